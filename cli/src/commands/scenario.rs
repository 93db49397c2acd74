//! `kadr scenario`: the REST API for people. Printing results stands in [`detections`].

mod detections;

use std::path::Path;

use anyhow::{Context, Result, bail};
use kadr_shared::id::{CommandId, ScenarioId};
use serde_json::{Value, json};

use crate::{
    args::{
        AnalysisArgs, ClientArgs, Keyed, OutputArgs, PaceArg, PreprocessArgs, RecordArg, ScenarioCommand, SourceArgs,
        TlsArg, TransportArg,
    },
    client::{Accepted, Camera, Client, Configured, Scenario},
    print,
};

pub async fn run(command: ScenarioCommand) -> Result<()> {
    match command {
        ScenarioCommand::Create { id, source, analysis, outputs, client } => {
            let settings = with_outputs(settings(given(source)?, &analysis)?, outputs)?;
            show(&Client::new(&client.api)?.create(&id, &settings).await?, client.json)
        }
        ScenarioCommand::List { client } => list(&client).await,
        ScenarioCommand::Get { id, at, client } => show(&Client::new(&client.api)?.get_at(&id, at).await?, client.json),
        ScenarioCommand::History { id, client } => history(&id, &client).await,
        ScenarioCommand::Configure { id, source, analysis, outputs, key, client } => {
            let settings = with_outputs(settings(given(source)?, &analysis)?, outputs)?;
            configure(&id, &settings, key, &client).await
        }
        ScenarioCommand::Start(keyed) => command_of(keyed, "start").await,
        ScenarioCommand::Stop(keyed) => command_of(keyed, "stop").await,
        ScenarioCommand::Detections(args) => detections::run(args).await,
        ScenarioCommand::Delete { id, client } => delete(&id, &client).await,
    }
}

async fn configure(id: &ScenarioId, settings: &Value, key: Option<CommandId>, client: &ClientArgs) -> Result<()> {
    let key = key.unwrap_or_else(CommandId::generate);
    match Client::new(&client.api)?.configure(id, settings, &key).await? {
        Configured::Done(scenario) => show(&scenario, client.json),
        Configured::Queued(answer) if client.json => print::json(&answer),
        Configured::Queued(_) => {
            println!("the settings of {id} are queued; no orchestrator has answered yet (key {key})");
            Ok(())
        }
    }
}

async fn history(id: &ScenarioId, client: &ClientArgs) -> Result<()> {
    let history = Client::new(&client.api)?.history(id).await?;
    if client.json {
        return print::json(&history);
    }
    const NONE: &str = "-";
    let name = |state: Option<String>| state.unwrap_or_else(|| NONE.to_owned());
    let mut table = print::table(["seq", "at", "from", "lasted", "to", "event", "by", "cause", "error"]);
    for t in history.transitions {
        let lasted = t.duration_ms.map_or_else(|| NONE.to_owned(), span);
        let error = t.error.unwrap_or_default();
        table.add_row([t.seq.to_string(), t.at, name(t.from), lasted, name(t.to), t.kind, t.actor, t.cause.id, error]);
    }
    println!("{table}");
    if let Some(present) = history.present {
        let state = present.state.as_deref().unwrap_or("deleted");
        println!("\n{state} for {} (since {})", span(present.duration_ms), present.since);
    }
    Ok(())
}

/// A duration in the two units that matter: `2 d 3 h`, `1 min 5 s`, `0.250 s`.
fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}.{:03} s", millis % 1000),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The body of a scenario's creation and configuration.
pub fn settings(source: Value, analysis: &AnalysisArgs) -> Result<Value> {
    let mut settings = json!({
        "source": source,
        "model": analysis.model,
        "analysis": {
            "input_size": analysis.input_size, "confidence": analysis.confidence,
            "iou": analysis.iou, "class_agnostic": analysis.class_agnostic, "classes": analysis.classes,
        },
        "outputs": { "video": !analysis.no_video },
    });
    let PreprocessArgs { analysis_fps, every, crop, grey } = &analysis.preprocess;
    let preprocess = &mut settings["preprocess"];
    if let Some(fps) = analysis_fps {
        preprocess["fps"] = json!(fps);
    }
    if let Some(every) = every {
        preprocess["every"] = json!(every);
    }
    match crop[..] {
        [] => {}
        [left, top, width, height] => {
            preprocess["crop"] = json!({ "left": left, "top": top, "width": width, "height": height });
        }
        _ => bail!("--crop is four numbers, LEFT,TOP,WIDTH,HEIGHT, such as 0,200,1280,520"),
    }
    if *grey {
        preprocess["grey"] = true.into();
    }
    if preprocess.is_null()
        && let Some(settings) = settings.as_object_mut()
    {
        settings.remove("preprocess");
    }
    Ok(settings)
}

/// The same with what is made of results, and the webhook's secret if there is one.
fn with_outputs(mut settings: Value, args: OutputArgs) -> Result<Value> {
    let outputs = &mut settings["outputs"];
    if !args.files.is_empty() {
        outputs["files"] = args.files.iter().map(|format| format.name()).collect();
    }
    if let Some(record) = args.record {
        let what = match record {
            RecordArg::Annotated => "annotated",
            RecordArg::Untouched => "untouched",
        };
        outputs["record"] = json!({ "what": what });
        if let Some(days) = args.keep_days {
            outputs["record"]["keep_days"] = json!(days);
        }
    }
    if let Some(url) = args.webhook {
        let mut webhook = json!({ "url": url, "classes": args.webhook_classes });
        if let Some(confidence) = args.webhook_confidence {
            webhook["confidence"] = confidence.get().into();
        }
        if let Some(rate) = args.webhook_rate {
            webhook["rate"] = rate.get().into();
        }
        if let Some(file) = args.webhook_secret_file {
            webhook["secret"] = first_line(&file)?.into();
        }
        outputs["webhook"] = webhook;
    }
    Ok(settings)
}

/// The source's part of them, with the password if there is one.
fn given(args: SourceArgs) -> Result<Value> {
    let mut source = json!({ "url": absolute(&args.source)? });
    if let Some(username) = args.username {
        source["username"] = username.into();
    }
    if let Some(file) = args.password_file {
        source["password"] = first_line(&file)?.into();
    }
    if let Some(transport) = args.transport {
        source["transport"] = match transport {
            TransportArg::Tcp => "tcp",
            TransportArg::Udp => "udp",
        }
        .into();
    }
    if let Some(tls) = args.tls {
        source["tls"] = match tls {
            TlsArg::Verify => "verify",
            TlsArg::Any => "any",
        }
        .into();
    }
    if let Some(fps) = args.fps {
        source["fps"] = json!(fps);
    }
    if let Some(pace) = args.pace {
        source["pace"] = match pace {
            PaceArg::Full => "full",
            PaceArg::Own => "own",
        }
        .into();
    }
    if args.looped {
        source["loop"] = true.into();
    }
    if let Some(size) = args.size {
        source["size"] = size.to_string().into();
    }
    if let Some(profile) = args.profile {
        source["profile"] = profile.into();
    }
    if !args.quirks.is_empty() {
        source["quirks"] = json!(args.quirks);
    }
    Ok(source)
}

pub(super) fn first_line(file: &Path) -> Result<String> {
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.with_context(|| format!("can't read a secret from {}", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Paths are taken from here, addresses as they are.
fn absolute(source: &str) -> Result<String> {
    let path = Path::new(source);
    // An address with a mistake in it may hold a password: the API refuses it without repeating it.
    let mistaken = || path.is_relative() && (source.contains("//") || source.contains('@')) && !path.exists();
    if source.contains("://") || source.starts_with("push:") || source.starts_with("nats:") || mistaken() {
        return Ok(source.to_owned());
    }
    let path = std::path::absolute(path).with_context(|| format!("{source:?} is no path"))?;
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
    if let Some(camera) = &scenario.health.camera {
        let since = camera.connected_since.as_deref();
        let plays = since.map_or_else(|| "does not play".to_owned(), |since| format!("plays since {since}"));
        table.add_row(["camera", &format!("{plays}; reconnects: {}", camera.reconnects)]);
        let [comes, analysed] = [scenario.health.source_fps, scenario.health.analysed_fps]
            .map(|fps| fps.map_or_else(|| "-".to_owned(), |fps| format!("{fps:.1}")));
        table.add_row(["frames/s", &format!("{comes} come, {analysed} analysed")]);
        let Camera { dropped_busy: busy, dropped_late: late, dropped_unreadable: unreadable, .. } = camera;
        let mut dropped = format!("{busy} as inference was busy, {late} without a result in time");
        if *unreadable > 0 {
            dropped.push_str(&format!(", {unreadable} that could not be read"));
        }
        table.add_row(["dropped", &dropped]);
        table.add_row(["last frame", scenario.health.last_frame_at.as_deref().unwrap_or("-")]);
    }
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

#[cfg(test)]
mod tests {
    use super::{absolute, span};

    #[test]
    fn only_paths_are_taken_from_here() {
        for address in ["rtsp://cam/1", "push:", "nats:a.b", "rtsp//me:hunter2@cam/1", "me:hunter2@cam"] {
            assert_eq!(absolute(address).unwrap(), address);
        }
        for path in ["clip.mp4", "a/b.mp4", "/data//clip@1.mp4"] {
            assert!(absolute(path).unwrap().starts_with('/'));
        }
    }

    #[test]
    fn spans_are_short() {
        for (millis, text) in [
            (0, "0.000 s"),
            (59_999, "59.999 s"),
            (65_000, "1 min 5 s"),
            (3_900_000, "1 h 5 min"),
            (183_600_000, "2 d 3 h"),
        ] {
            assert_eq!(span(millis), text);
        }
    }
}
