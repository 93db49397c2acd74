//! `kadr models`: which models there are, and getting their weights.

mod calibrate;
mod import;

use std::time::Duration;

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use kadr_inference::Store;
use kadr_shared::{catalog::Model, id::ModelName};
use serde_json::json;

use crate::{
    args::ModelsCommand,
    commands::Failure,
    config::{catalog, folders},
    print,
};

pub async fn run(command: ModelsCommand) -> Result<(), Failure> {
    match command {
        ModelsCommand::List { folders, json } => list(&folders.models, json),
        ModelsCommand::Fetch { name, if_missing, folders } => fetch(&folders.models, &name, if_missing).await,
        ModelsCommand::Calibrate(args) => tokio::task::block_in_place(|| calibrate::run(&args)),
        ModelsCommand::Import(args) => import::run(args).await,
    }
}

fn list(models: &str, as_json: bool) -> Result<(), Failure> {
    let catalog = catalog(models).map_err(Failure::unusable)?;
    let store = Store::new(folders(models));
    let found: Vec<_> = catalog.models().iter().map(|model| (model, store.locate(model))).collect();
    if as_json {
        let models: Vec<_> = found
            .iter()
            .map(|(model, weights)| {
                json!({
                    "name": model.name, "licence": model.licence, "labels": model.labels,
                    "path": weights.as_ref().ok().map(|w| w.path.display().to_string()),
                    "error": weights.as_ref().err().map(ToString::to_string),
                })
            })
            .collect();
        print::json(&models)?;
        return Ok(());
    }
    let mut table = print::table(["model", "classes", "licence of the weights", "weights"]);
    for (model, weights) in found {
        let weights = match weights {
            Ok(weights) => weights.path.display().to_string(),
            Err(kadr_inference::weights::WeightsError::NotFound { .. }) => "not here".to_owned(),
            Err(error) => format!("not usable: {error}"),
        };
        table.add_row([model.name.to_string(), model.labels.len().to_string(), model.licence.clone(), weights]);
    }
    println!("{table}");
    Ok(())
}

async fn fetch(models: &str, name: &ModelName, if_missing: bool) -> Result<(), Failure> {
    let catalog = catalog(models).map_err(Failure::unusable)?;
    let model = catalog.model(name).map_err(Failure::unusable)?;
    if if_missing && Store::new(folders(models)).locate(model).is_ok() {
        return Ok(());
    }
    ensure(models, model).await
}

/// Downloads a model's weights into the first folder, with a progress bar.
pub async fn ensure(models: &str, model: &Model) -> Result<(), Failure> {
    let folders = folders(models);
    let folder = folders
        .first()
        .ok_or_else(|| Failure::unusable(anyhow!("no folder of models is given: set KADR_MODELS or --models")))?;
    let bar = ProgressBar::new(0).with_style(style()?);
    bar.set_message(format!("weights of {} ({})", model.name, model.licence));
    bar.enable_steady_tick(Duration::from_millis(200));
    let fetched = Store::new(folders.clone())
        .fetch(model, folder, |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })
        .await;
    bar.finish_and_clear();
    let path = fetched
        .with_context(|| format!("the weights of {} are not here and can't be fetched", model.name))
        .map_err(Failure::unusable)?;
    println!("fetched {} (weights under {})", path.display(), model.licence);
    Ok(())
}

fn style() -> Result<ProgressStyle, Failure> {
    Ok(ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
        .map_err(anyhow::Error::from)?)
}
