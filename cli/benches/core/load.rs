//! What the benchmarks put into the streams.

use futures::{StreamExt, stream};
use kadr_shared::{
    domain::{Cause, Command, CommandEnvelope, EndReason, EventData},
    id::{RunId, ScenarioId},
    inbox, log,
    nats::Nats,
    publish::Stored,
    settings::Settings,
};

pub(crate) fn scenario(number: usize) -> ScenarioId {
    format!("s{number}").parse().unwrap()
}

pub(crate) fn settings(source: &str) -> Settings {
    serde_json::from_value(serde_json::json!({ "source": {"url": source}, "outputs": {"video": false} })).unwrap()
}

pub(crate) async fn send(nats: &Nats, scenario: &ScenarioId, key: String, command: Command) -> u64 {
    let envelope = CommandEnvelope { id: key.parse().unwrap(), actor: "bench".into(), command };
    match inbox::send_command(nats, scenario, &envelope).await.unwrap() {
        Stored::At(input) => input,
        other => panic!("{other:?}"),
    }
}

/// Writes a log of `events` events: runs of files, one after another in each of `scenarios` scenarios, many side by side.
pub(crate) async fn write_log(nats: &Nats, scenarios: usize, events: usize) {
    let each = events.div_ceil(scenarios);
    stream::iter(0..scenarios).for_each_concurrent(512, |number| write_scenario(nats, number, each)).await;
}

async fn write_scenario(nats: &Nats, number: usize, events: usize) {
    let id = scenario(number);
    let mut last = 0;
    for event in 0..events {
        let data = event_of_a_life(event, last);
        let cause = Cause { input: None, id: format!("bench-{event}") };
        match log::append(nats, &id, last, cause, "bench".into(), &data).await.unwrap() {
            Stored::At(seq) => last = seq,
            other => panic!("{other:?}"),
        }
    }
}

/// The `number`-th event of a scenario that is created and then run again and again.
fn event_of_a_life(number: usize, last: u64) -> EventData {
    let settings = || settings("/data/clip.mp4");
    if number == 0 {
        return EventData::ScenarioCreated { settings: settings(), generation: 1 };
    }
    let run = RunId::from_u128((number as u128 - 1) / 6 + 1);
    match (number - 1) % 6 {
        0 => EventData::StartRequested { run, attempt: 1, settings: Box::new(settings()) },
        1 => EventData::RunnerAssigned { run, attempt: 1, runner: format!("runner-{}", last % 9).parse().unwrap() },
        2 => EventData::Activated { run },
        3 => EventData::SourceEnded { run, frames: 250, of: Some(250), error: None },
        4 => EventData::ShutdownAcknowledged { run, gone: false },
        _ => EventData::Deactivated { run, reason: EndReason::Completed, frames: Some(250), error: None },
    }
}
