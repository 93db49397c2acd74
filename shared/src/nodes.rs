//! Signs of life in `KADR_NODES`: who leads, which runners live and how their scenarios fare.
//!
//! The bucket's client drops a key's TTL when it updates; renewals are raw publishes that carry it.

use async_nats::jetstream::message::PublishMessage;
use serde::{Deserialize, Serialize};

use crate::{
    id::{RunId, RunnerId, ScenarioId},
    nats::Nats,
    publish::{PublishFailed, Stored, publish},
    streams::{LEADER_TTL, NODE_TTL},
    subjects,
    time::Timestamp,
};

/// A runner's key, renewed every [`NODE_RENEWAL`](crate::streams::NODE_RENEWAL).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunnerBeat {
    pub runner: RunnerId,
    pub capacity: usize,
    pub free: usize,
    pub scenarios: Vec<Progress>,
}

/// How a scenario fares in a runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub scenario: ScenarioId,
    pub run: RunId,
    pub fence: u64,
    /// Frames whose results are stored, in this run.
    pub frames: u64,
    /// Frames that the source has, where it says so.
    pub of: Option<u64>,
    /// Frames given up because the source would not wait.
    pub dropped: u64,
    /// The source's nominal rate.
    pub source_fps: Option<f64>,
    /// Results stored a second, lately.
    pub analysed_fps: Option<f64>,
    pub last_frame_at: Option<Timestamp>,
    /// Of a camera.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<CameraProgress>,
    /// Why it does not get on, in words for people, where no fact can tell it (results can't be stored).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// How a camera fares, in this attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraProgress {
    /// Since when it plays; none: it does not.
    pub connected_at: Option<Timestamp>,
    /// Sessions after the first one.
    pub reconnects: u64,
    /// Frames dropped because as many as may be were under way.
    pub busy: u64,
    /// Frames given up because their results did not come in time.
    pub late: u64,
    /// Images that could not be read.
    #[serde(default)]
    pub unreadable: u64,
    /// Frames that come a second, lately.
    pub fps: Option<f64>,
}

/// Who leads, as the leader's key says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderBeat {
    pub orchestrator: String,
    /// Why it can't decide, in words for people (the log can't be written).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Renews a runner's key.
pub async fn renew_runner(nats: &Nats, beat: &RunnerBeat) -> Result<(), PublishFailed> {
    let payload = serde_json::to_vec(beat).unwrap_or_default();
    let message = PublishMessage::build().payload(payload.into()).ttl(NODE_TTL);
    publish(&nats.jetstream, subjects::runner(&beat.runner), message).await.map(|_| ())
}

/// Lets a runner's key expire at once, so that nobody waits for it.
pub async fn remove_runner(nats: &Nats, runner: &RunnerId) -> Result<(), PublishFailed> {
    let message = PublishMessage::build().header("KV-Operation", "DEL").ttl(NODE_TTL);
    publish(&nats.jetstream, subjects::runner(runner), message).await.map(|_| ())
}

/// The leader's key as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderKey {
    /// None: nobody leads.
    pub holder: Option<LeaderBeat>,
    /// What a claim has to expect.
    pub revision: u64,
}

/// Reads the leader's key from the bucket's leader. `None`: it can't be read now.
pub async fn read_leader(nats: &Nats) -> Option<LeaderKey> {
    use async_nats::jetstream::stream::LastRawMessageErrorKind;
    let stream = nats.jetstream.get_stream_no_info(subjects::NODES_STREAM).await.ok()?;
    match stream.get_last_raw_message_by_subject(subjects::LEADER).await {
        // A marker of an expired key has no body.
        Ok(message) => {
            Some(LeaderKey { holder: serde_json::from_slice(&message.payload).ok(), revision: message.sequence })
        }
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Some(LeaderKey { holder: None, revision: 0 }),
        Err(_) => None,
    }
}

/// Takes or renews the leader's key if its revision is still `expected`; the new revision, or none if it was not.
pub async fn claim_leader(nats: &Nats, beat: &LeaderBeat, expected: u64) -> Result<Option<u64>, PublishFailed> {
    let payload = serde_json::to_vec(beat).unwrap_or_default();
    let message =
        PublishMessage::build().payload(payload.into()).ttl(LEADER_TTL).expected_last_subject_sequence(expected);
    match publish(&nats.jetstream, subjects::LEADER.to_owned(), message).await? {
        Stored::At(revision) => Ok(Some(revision)),
        Stored::Conflict | Stored::SubjectFull => Ok(None),
    }
}

/// Gives leadership up.
pub async fn release_leader(nats: &Nats, revision: u64) -> Result<(), PublishFailed> {
    let message =
        PublishMessage::build().header("KV-Operation", "DEL").ttl(NODE_TTL).expected_last_subject_sequence(revision);
    publish(&nats.jetstream, subjects::LEADER.to_owned(), message).await.map(|_| ())
}
