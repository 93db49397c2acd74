//! `kadr scenario`: the REST API for people.

use std::path::Path;

use anyhow::{Context, Result};
use kadr_shared::id::{CommandId, ScenarioId};
use serde_json::{Value, json};

use crate::{
    args::{AnalysisArgs, ClientArgs, Keyed, ScenarioCommand},
    client::{Accepted, Client, Scenario},
    print,
};

pub async fn run(command: ScenarioCommand) -> Result<()> {
    match command {
        ScenarioCommand::Create { id, source, analysis, client } => {
            let settings = settings(&absolute(&source)?, &analysis);
            show(&Client::new(&client.api)?.create(&id, &settings).await?, client.json)
        }
        ScenarioCommand::List { client } => list(&client).await,
        ScenarioCommand::Get { id, client } => show(&Client::new(&client.api)?.get(&id).await?, client.json),
        ScenarioCommand::Start(keyed) => command_of(keyed, "start").await,
        ScenarioCommand::Stop(keyed) => command_of(keyed, "stop").await,
        ScenarioCommand::Delete { id, client } => delete(&id, &client).await,
    }
}

/// The body of a scenario's creation.
pub fn settings(source: &str, analysis: &AnalysisArgs) -> Value {
    json!({
        "source": { "url": source },
        "model": analysis.model,
        "analysis": {
            "input_size": analysis.input_size, "confidence": analysis.confidence,
            "iou": analysis.iou, "classes": analysis.classes,
        },
        "outputs": { "video": !analysis.no_video },
    })
}

/// Paths are taken from here, addresses as they are.
fn absolute(source: &str) -> Result<String> {
    if source.contains("://") {
        return Ok(source.to_owned());
    }
    let path = std::path::absolute(Path::new(source)).with_context(|| format!("{source:?} is no path"))?;
    Ok(path.display().to_string())
}

async fn list(client: &ClientArgs) -> Result<()> {
    let scenarios = Client::new(&client.api)?.list().await?;
    if client.json {
        return print::json(&scenarios);
    }
    let mut table = print::table(["scenario", "state", "health", "frames", "fps", "source"]);
    for value in scenarios {
        let scenario: Scenario = serde_json::from_value(value).context("the API's answer can't be read")?;
        let fps = scenario.health.analysed_fps.map_or_else(String::new, |fps| format!("{fps:.1}"));
        let source = scenario.settings.source.url.to_string();
        table.add_row([scenario.id, scenario.state, scenario.health.status, frames(&scenario.progress), fps, source]);
    }
    println!("{table}");
    Ok(())
}

fn frames(progress: &crate::client::Progress) -> String {
    match progress.of {
        Some(of) => format!("{} of {of}", progress.frame),
        None => progress.frame.to_string(),
    }
}

fn show(value: &Value, as_json: bool) -> Result<()> {
    if as_json {
        return print::json(value);
    }
    let scenario: Scenario = serde_json::from_value(value.clone()).context("the API's answer can't be read")?;
    let mut table = print::table(["scenario", &scenario.id]);
    table.add_row(["state", &scenario.state]);
    table.add_row(["health", &with(&scenario.health.status, scenario.health.error.as_deref())]);
    table.add_row(["frames", &frames(&scenario.progress)]);
    if let Some(ended) = &scenario.ended {
        table.add_row(["ended", &with(&ended.reason, ended.error.as_deref())]);
    }
    table.add_row(["source", &scenario.settings.source.url.to_string()]);
    table.add_row(["model", scenario.settings.model.as_str()]);
    let classes = scenario.settings.analysis.classes.join(", ");
    table.add_row(["classes", if classes.is_empty() { "all" } else { &classes }]);
    println!("{table}");
    Ok(())
}

fn with(status: &str, error: Option<&str>) -> String {
    match error {
        Some(error) => format!("{status}: {error}"),
        None => status.to_owned(),
    }
}

async fn command_of(keyed: Keyed, command: &str) -> Result<()> {
    let Keyed { id, key, client } = keyed;
    let key = key.unwrap_or_else(CommandId::generate);
    let Accepted { id: command_id, accepted_at_seq } = Client::new(&client.api)?.command(&id, command, &key).await?;
    if client.json {
        return print::json(&json!({ "id": command_id, "accepted_at_seq": accepted_at_seq }));
    }
    match accepted_at_seq {
        Some(seq) => println!("{command} of {id} accepted (event {seq})"),
        None => println!("{command} of {id} is queued; no orchestrator has answered yet (key {command_id})"),
    }
    Ok(())
}

async fn delete(id: &ScenarioId, client: &ClientArgs) -> Result<()> {
    let deleted = Client::new(&client.api)?.delete(id).await?;
    if client.json {
        return print::json(&json!({ "id": id, "deleted": deleted }));
    }
    if deleted {
        println!("deleted {id}; its log stays");
    } else {
        println!("the deletion of {id} is queued; no orchestrator has answered yet");
    }
    Ok(())
}
