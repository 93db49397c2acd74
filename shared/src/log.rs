//! The log as events: reading messages of `KADR_EVENTS`, asking where it ends, and appending one with the expected sequence.

use std::time::Duration;

use async_nats::jetstream::{context::GetStreamError, message::PublishMessage};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    domain::{Cause, Event, EventBody, EventData, EventError},
    id::ScenarioId,
    nats::Nats,
    publish::{EXPECTED_SUBJECT, PublishFailed, Stored, publish},
    subjects,
    tail::{Entry, Tail},
    time::Timestamp,
};

/// A message of the log that is no event.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("message {seq} of the log has the subject {subject}, which is no event's")]
    Subject { seq: u64, subject: String },
    #[error("message {seq} of the log can't be read")]
    Body { seq: u64, source: serde_json::Error },
    #[error("an event can't be written")]
    Write(#[source] serde_json::Error),
    #[error(transparent)]
    Publish(#[from] PublishFailed),
}

/// The log as the leader of its stream has it.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    pub made: OffsetDateTime,
    pub last: u64,
}

/// Where the log ends can't be told now.
#[derive(Debug, thiserror::Error)]
pub enum ExtentError {
    #[error("NATS does not say in time where the log ends")]
    Silent,
    #[error("NATS does not say where the log ends")]
    Stream(#[from] GetStreamError),
}

/// For how long an end before what was read of it must stay so to be believed. A node that has just begun to lead, or has
/// woken up, may know less for a moment than another one has already told.
const DOUBT: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Where the log ends, after `read` was read of it. Less than that is another log, or one that was put back.
/// Each try takes `patience` at most.
pub async fn extent(nats: &Nats, read: u64, patience: Duration) -> Result<Extent, ExtentError> {
    let begun = Instant::now();
    loop {
        let asked = timeout(patience, nats.jetstream.get_stream(subjects::EVENTS)).await;
        let stream = asked.map_err(|_| ExtentError::Silent)??;
        let info = stream.cached_info();
        let extent = Extent { made: info.created, last: info.state.last_sequence };
        if extent.last >= read || begun.elapsed() >= DOUBT {
            return Ok(extent);
        }
        sleep(ASK_AGAIN).await;
    }
}

/// A reader of the whole log from a sequence on.
pub fn tail(nats: &Nats, from: u64) -> Tail {
    Tail::new(nats.jetstream.clone(), subjects::EVENTS, subjects::EVENTS_ALL, from)
}

/// A reader of one scenario's log from a sequence on.
pub fn tail_of(nats: &Nats, scenario: &ScenarioId, from: u64) -> Tail {
    Tail::new(nats.jetstream.clone(), subjects::EVENTS, subjects::events_of(scenario), from)
}

/// The event in a message of the log.
pub fn read(entry: &Entry) -> Result<Event, LogError> {
    let subject = entry.message.subject.as_str();
    let (Some(scenario), Some(kind)) = (subjects::scenario_in(subject), subjects::event_kind_in(subject)) else {
        return Err(LogError::Subject { seq: entry.seq, subject: subject.chars().take(200).collect() });
    };
    let body: EventBody =
        serde_json::from_slice(&entry.message.payload).map_err(|source| LogError::Body { seq: entry.seq, source })?;
    Ok(Event {
        seq: entry.seq,
        time: entry.time,
        scenario,
        kind: kind.to_owned(),
        version: body.version,
        cause: body.cause,
        actor: body.actor,
        data: body.data,
    })
}

/// An event with its data parsed: what folding needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub seq: u64,
    pub time: Timestamp,
    pub scenario: ScenarioId,
    pub cause: Cause,
    pub data: EventData,
}

/// The event in a message of the log, parsed without a detour: a whole log is folded at every start.
pub fn read_data(entry: &Entry) -> Result<Recorded, ReadError> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
        cause: Cause,
    }
    let subject = entry.message.subject.as_str();
    let payload = entry.message.payload.as_ref();
    if let (Some(scenario), Some(kind)) = (subjects::scenario_in(subject), subjects::event_kind_in(subject))
        && let Ok(Head { version, cause }) = serde_json::from_slice::<Head>(payload)
        && EventData::is_current(kind, version)
        && let Some(rest) = payload.strip_prefix(b"{")
    {
        // The type comes first, so that the data is parsed as what it is; fields besides these two are passed over.
        let mut tagged = Vec::with_capacity(payload.len() + kind.len() + 12);
        for part in [&b"{\"type\":\""[..], kind.as_bytes(), &b"\","[..], rest] {
            tagged.extend_from_slice(part);
        }
        let data = serde_json::from_slice(&tagged).map_err(|source| EventError::Data {
            seq: entry.seq,
            kind: kind.to_owned(),
            source,
        })?;
        return Ok(Recorded { seq: entry.seq, time: entry.time, scenario, cause, data });
    }
    // Foreign, of another version, or written in a form that is not kadr's own.
    let event = read(entry)?;
    let data = event.parse()?;
    Ok(Recorded { seq: event.seq, time: event.time, scenario: event.scenario, cause: event.cause, data })
}

/// A message of the log that can't be folded.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is none of kadr's.
    #[error(transparent)]
    Foreign(#[from] LogError),
    /// It is an event, but not one that this version understands.
    #[error(transparent)]
    Event(#[from] EventError),
}

/// Appends an event if `last` is still the sequence of the scenario's latest one (0: it has none).
pub async fn append(
    nats: &Nats,
    scenario: &ScenarioId,
    last: u64,
    cause: Cause,
    actor: String,
    data: &EventData,
) -> Result<Stored, LogError> {
    let payload = data.body(cause, actor).and_then(|body| serde_json::to_vec(&body)).map_err(LogError::Write)?;
    let message = PublishMessage::build()
        .payload(payload.into())
        .expected_last_subject_sequence(last)
        .header(EXPECTED_SUBJECT, subjects::events_of(scenario).as_str());
    Ok(publish(&nats.jetstream, subjects::event(scenario, data.kind()), message).await?)
}
