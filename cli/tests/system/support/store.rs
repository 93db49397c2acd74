//! What lies in the streams, read without the API.

use futures::{StreamExt, TryStreamExt};
use kadr_shared::{
    id::ScenarioId, log, message::detection::FrameDetections, nats::Nats, subjects, tail::Tail, testkit::eventually,
};
use serde_json::Value;

/// Stored detection messages of a scenario, counted by the server.
pub(crate) async fn stored(nats: &Nats, scenario: &str) -> usize {
    let stream = nats.jetstream.get_stream(subjects::DETECTIONS).await.unwrap();
    let subject = subjects::detections(&id(scenario));
    let counts: Vec<(String, usize)> = stream.info_with_subjects(&subject).await.unwrap().try_collect().await.unwrap();
    counts.iter().map(|(_, count)| count).sum()
}

/// A scenario's stored detections as they are.
pub(crate) async fn recorded(nats: &Nats, scenario: &str) -> Vec<Value> {
    let count = stored(nats, scenario).await;
    let subject = subjects::detections(&scenario.parse().unwrap());
    let mut tail = Tail::new(nats.jetstream.clone(), subjects::DETECTIONS, subject, 1);
    let mut all = Vec::new();
    while all.len() < count {
        all.push(serde_json::from_slice(&tail.next().await.message.payload).unwrap());
    }
    all
}

/// Waits until at least `count` are stored; gives how many are.
pub(crate) async fn at_least(nats: &Nats, scenario: &str, count: usize) -> usize {
    let what = format!("{count} stored results of {scenario}");
    eventually(&what, || async { Some(stored(nats, scenario).await).filter(|&stored| stored >= count) }).await
}

/// That there is exactly one message for each of `frames` frames, in order.
pub(crate) async fn each_frame_once(nats: &Nats, scenario: &str, frames: usize) {
    let count = stored(nats, scenario).await;
    let subject = subjects::detections(&id(scenario));
    let mut tail = Tail::new(nats.jetstream.clone(), subjects::DETECTIONS, subject, 1);
    let mut numbers = Vec::new();
    for _ in 0..count {
        let result: FrameDetections = serde_json::from_slice(&tail.next().await.message.payload).unwrap();
        numbers.push(result.frame);
    }
    assert_eq!(numbers, (0..frames as u64).collect::<Vec<_>>());
}

/// A scenario's log so far.
pub(crate) async fn log_of(nats: &Nats, scenario: &str) -> Vec<Value> {
    let scenario = id(scenario);
    let stream = nats.jetstream.get_stream(subjects::EVENTS).await.unwrap();
    let counts: Vec<(String, usize)> =
        stream.info_with_subjects(subjects::events_of(&scenario)).await.unwrap().try_collect().await.unwrap();
    let mut tail = log::tail_of(nats, &scenario, 1);
    let mut events = Vec::new();
    for _ in 0..counts.iter().map(|(_, count)| count).sum() {
        events.push(serde_json::to_value(log::read(&tail.next().await).unwrap()).unwrap());
    }
    events
}

/// Waits for the first event of a type.
pub(crate) async fn happened(nats: &Nats, scenario: &str, kind: &str) -> Value {
    let mut tail = log::tail_of(nats, &id(scenario), 1);
    let found = async {
        loop {
            let event = log::read(&tail.next().await).unwrap();
            if event.kind == kind {
                return serde_json::to_value(event).unwrap();
            }
        }
    };
    // A run takes its time; whether it stands still is seen by what is stored.
    match tokio::time::timeout(super::process::LONGEST, found).await {
        Ok(event) => event,
        Err(_) => panic!("there was no {kind}: {:#?}", log_of(nats, scenario).await),
    }
}

/// Every message of every stream, as text.
pub(crate) async fn everything_stored(nats: &Nats) -> String {
    let mut text = String::new();
    let mut names = nats.jetstream.stream_names();
    while let Some(name) = names.next().await {
        let stream = nats.jetstream.get_stream(name.unwrap()).await.unwrap();
        let state = &stream.cached_info().state;
        for sequence in state.first_sequence..=state.last_sequence {
            if let Ok(message) = stream.get_raw_message(sequence).await {
                text.push_str(&String::from_utf8_lossy(&message.payload));
            }
        }
    }
    text
}

fn id(scenario: &str) -> ScenarioId {
    scenario.parse().unwrap()
}
