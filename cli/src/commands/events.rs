//! `kadr events`: the log of a scenario, as it comes or folded again. Playing detections again stands in [`play`].

pub mod play;

use std::time::Duration;

use anyhow::{Context, Result};
use kadr_shared::domain::{Event, State};
use serde_json::json;

use crate::{
    args::{EventsArgs, EventsCommand, ReplayArgs},
    client::Client,
    print, signals,
};

/// Between two questions for new events: the API has no stream of them yet.
const LOOK: Duration = Duration::from_millis(300);

pub async fn run(command: EventsCommand) -> Result<()> {
    match command {
        EventsCommand::Tail(args) => tail(args).await,
        EventsCommand::Replay(args) => match (&args.to_subject, &args.nats) {
            (Some(subject), Some(nats)) => play::run(&args, subject, nats).await,
            // Clap lets no subject through without a server.
            _ => replay(args).await,
        },
    }
}

async fn tail(args: EventsArgs) -> Result<()> {
    let client = Client::new(&args.client.api)?;
    let stop = signals::first_signal()?;
    let mut from = args.from;
    loop {
        for event in client.events(&args.scenario, from).await? {
            from = event.seq + 1;
            if args.client.json {
                print::json_line(&event)?;
            } else {
                println!("{}", line(&event));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The state after each event from `--from` to `--to`, folded from the first by `evolve` alone.
async fn replay(args: ReplayArgs) -> Result<()> {
    let events = Client::new(&args.client.api)?.all_events(&args.scenario, 1).await?;
    let mut state = State::default();
    for event in events {
        if args.to.is_some_and(|to| to.is_before(event.seq, event.time)) {
            break;
        }
        let data = event.parse().context("the log holds an event that this version of kadr does not understand")?;
        state = state.evolve(event.seq, event.time, &event.cause, &data);
        if args.from.is_after(event.seq, event.time) {
            continue;
        }
        if args.client.json {
            print::json_line(&json!({ "event": event, "state": state }))?;
        } else {
            println!("{}", line(&event));
            println!("        -> {}", describe(&state));
        }
    }
    Ok(())
}

fn line(event: &Event) -> String {
    let input = event.cause.input.map_or_else(String::new, |seq| format!(" (input {seq})"));
    let data = match event.data.as_object() {
        Some(fields) if !fields.is_empty() => format!("  {}", event.data),
        _ => String::new(),
    };
    format!(
        "{:>6}  {}  {:<22} by {}, cause {}{input}{data}",
        event.seq, event.time, event.kind, event.actor, event.cause.id
    )
}

fn describe(state: &State) -> String {
    if !state.exists() {
        return "does not exist".to_owned();
    }
    let mut text = state.phase.name().to_owned();
    if let Some(run) = &state.run {
        text += &format!(", run {} attempt {}", run.id, run.attempt);
    }
    if let Some(assignment) = state.assignment() {
        text += &format!(", {} (fence {})", assignment.runner, assignment.fence);
    }
    if let Some(ended) = &state.ended {
        let reason = serde_json::to_value(ended.reason).unwrap_or_default();
        text += &format!(", ended: {}", reason.as_str().unwrap_or_default());
    }
    if let Some(error) = &state.health.error {
        text += &format!(" ({error})");
    }
    text
}
