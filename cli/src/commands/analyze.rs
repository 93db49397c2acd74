//! `kadr analyze`: the main job in one command, through the whole system, started for it and ended after it.

mod outputs;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use kadr_inference::Store;
use kadr_shared::{
    id::{CommandId, ScenarioId},
    nats::Nats,
};
use serde_json::json;

use self::{outputs::Outputs, watch::End};
use super::{FAILED, Failure, models, scenario};
use crate::{
    args::AnalyzeArgs,
    client::Client,
    config::{self, Config},
    signals::{self, INTERRUPTED},
    system::System,
};

pub async fn run(args: AnalyzeArgs) -> Result<(), Failure> {
    let source = check_source(&args.source).map_err(Failure::unusable)?;
    ensure_model(&args).await?;
    let out = prepare(&args.out).map_err(Failure::unusable)?;
    let stop = signals::first_signal()?;

    // Beside the results, so that the video is moved and not copied; it goes when this function ends.
    let work = tempfile::Builder::new()
        .prefix(".kadr-")
        .tempdir_in(&out)
        .with_context(|| format!("can't write into {}", out.display()))
        .map_err(Failure::unusable)?;
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data: work.path().to_owned(),
        models: args.models.clone(),
        workers: args.workers,
        threads: args.threads,
        precision: args.precision,
        device: args.device.to_string(),
        serve: args.analysis.model.to_string(),
        ..Config::default()
    };
    let mut system = System::start(&config).await.map_err(Failure::unusable)?;
    let (api, nats_url) = (system.api(), system.nats_url().to_owned());
    let done = tokio::select! {
        error = system.broken() => Err(error),
        done = analyze(&args, &source, &out, &config, api, nats_url, &stop) => done,
    };
    system.stop().await;
    let (end, outputs) = match done {
        Err(error) if stop.is_cancelled() => return Err(Failure { code: INTERRUPTED, error: Some(error) }),
        done => done?,
    };
    outputs.summary(&end);
    match end.shortfall() {
        None => Ok(()),
        Some(_) if stop.is_cancelled() => Err(Failure { code: INTERRUPTED, error: None }),
        Some(why) => Err(Failure { code: FAILED, error: Some(anyhow!(why)) }),
    }
}

async fn analyze(
    args: &AnalyzeArgs,
    source: &Path,
    out: &Path,
    config: &Config,
    api: std::net::SocketAddr,
    nats_url: String,
    stop: &tokio_util::sync::CancellationToken,
) -> Result<(End, Outputs)> {
    let client = Client::new(&format!("http://{api}"))?;
    let nats = Nats::connect(&nats_url, "kadr-analyze").await?;
    let id = scenario_id(source)?;
    let url = source.to_str().with_context(|| format!("{} is no UTF-8 path", source.display()))?;
    let mut given = json!({ "url": url });
    if let Some(fps) = args.fps {
        given["fps"] = json!(fps);
    }
    client.create(&id, &scenario::settings(given, &args.analysis)?).await?;
    client.command(&id, "start", &CommandId::generate()).await?;
    let end = watch::until_ended(&client, &nats, &id, stop).await?;
    let recordings = kadr_runner::Config::new(config.data.clone()).recordings();
    let outputs = Outputs::write(&client, &nats, &id, &end, &recordings, out, args.csv).await?;
    if !args.analysis.no_video && !outputs.has_video() && end.shortfall().is_none() {
        return Err(anyhow!("every frame was analysed but the annotated video is missing"));
    }
    Ok((end, outputs))
}

fn check_source(path: &Path) -> Result<PathBuf> {
    let text = path.to_string_lossy();
    // Not repeated: there may be a password in an address, and in one with a mistake in it.
    if !path.exists() && (text.contains("://") || text.contains(':') && text.contains('@')) {
        return Err(anyhow!(
            "an address is no file: analyze takes a video, an image or a folder of images; a camera is watched by a scenario \
             (`kadr up`, `kadr scenario create`)"
        ));
    }
    // A pattern, whose files the runner finds.
    if !path.exists() && text.contains(['*', '?', '[']) {
        return std::path::absolute(path).with_context(|| format!("can't read {}", path.display()));
    }
    std::fs::canonicalize(path).with_context(|| format!("can't read {}", path.display()))
}

/// Model, classes and weights are looked at before anything is started.
async fn ensure_model(args: &AnalyzeArgs) -> Result<(), Failure> {
    let catalog = config::catalog(&args.models).map_err(Failure::unusable)?;
    let model = catalog.model(&args.analysis.model).map_err(Failure::unusable)?;
    model.classes(&args.analysis.classes).map_err(Failure::unusable)?;
    let store = Store::new(config::folders(&args.models));
    match store.locate(model) {
        Ok(_) => Ok(()),
        Err(kadr_inference::weights::WeightsError::NotFound { .. }) => models::ensure(&args.models, model).await,
        Err(error) => Err(Failure::unusable(error)),
    }
}

fn prepare(out: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(out).with_context(|| format!("can't make the folder {}", out.display()))?;
    std::fs::canonicalize(out).with_context(|| format!("can't use the folder {}", out.display()))
}

/// A name from the file's.
fn scenario_id(source: &Path) -> Result<ScenarioId> {
    let stem = source.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).take(40).collect();
    name = name.trim_matches(['-', '_']).to_owned();
    if name.is_empty() {
        name.push_str("clip");
    }
    name.parse().with_context(|| format!("can't make a scenario's id of {}", source.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addresss_password_is_not_repeated() {
        for address in ["rtsp://me:hunter2@host/cam", "rtsp//me:hunter2@host/cam", "rtsp:/me:hunter2@host/cam"] {
            let words = format!("{:#}", check_source(Path::new(address)).unwrap_err());
            assert!(words.contains("is no file") && !words.contains("hunter2"), "{words}");
        }
        let words = format!("{:#}", check_source(Path::new("me@home.mp4")).unwrap_err());
        assert!(words.contains("me@home.mp4"), "{words}");
    }

    #[test]
    fn any_file_name_gives_an_id() {
        for (file, id) in [
            ("/a/bikes.mp4", "bikes"),
            ("/a/My Clip (1).MP4", "my-clip--1"),
            ("/a/кадр.mp4", "clip"),
            ("/a/.mp4", "mp4"),
            (&format!("/a/{}.mp4", "x".repeat(200)), &"x".repeat(40)),
        ] {
            assert_eq!(scenario_id(Path::new(file)).unwrap().as_str(), id);
        }
    }
}
