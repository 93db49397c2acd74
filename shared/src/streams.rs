//! The streams: their settings, and making sure that the server has them so.
//!
//! Any service may be the first to start, so each of them calls [`ensure`]; the calls agree.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    context::{CreateKeyValueError, CreateStreamError, GetStreamError},
    kv,
    stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType},
};
use time::OffsetDateTime;
use tracing::warn;

use crate::{nats::Nats, subjects, telemetry::chain};

/// How long a command's key is remembered, and how long an input may wait for an orchestrator.
pub const INBOX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// A node that has not renewed its key for this long is gone.
pub const NODE_TTL: Duration = Duration::from_secs(2);
/// How often a node renews its key.
pub const NODE_RENEWAL: Duration = Duration::from_millis(500);
/// A leader that has not renewed its key for this long is replaced. Shorter than a runner's: a hand-over costs nothing,
/// and a stop that comes while nobody leads has to be carried out in time. The server knows no shorter one.
pub const LEADER_TTL: Duration = Duration::from_secs(1);
/// How often a leader renews its key.
pub const LEADER_RENEWAL: Duration = Duration::from_millis(300);
/// A frame that nobody took in this time is dropped by the server; its runner sends it again.
const FRAME_AGE: Duration = Duration::from_secs(60);
/// The most frames without a result that a scenario may have (`inflight`).
pub const MAX_INFLIGHT: usize = 8;
/// Frames of a scenario in the queue: those without a result, and those whose answer was sent but whose
/// acknowledgement is on its way.
pub const FRAMES_PER_SUBJECT: i64 = 2 * MAX_INFLIGHT as i64;
/// How long a service that starts waits for streams.
const START_PATIENCE: Duration = Duration::from_secs(60);
const START_RETRY: Duration = Duration::from_millis(500);
const DETECTIONS_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// 8 GiB: about 8 million frames with three objects each.
const DETECTIONS_BYTES: i64 = 8 << 30;

/// Live video is kept for so long: whoever packs it into segments finds the latest ones there.
pub const VIDEO_AGE: Duration = Duration::from_secs(15);
/// 256 MiB: some 30 videos of 4 Mbit/s that are watched at a time; with more, less than [`VIDEO_AGE`] is kept.
const VIDEO_BYTES: i64 = 256 << 20;

/// 8 GiB of recordings of all scenarios together: more would be in the way of the log. The oldest go first.
const RECORDINGS_BYTES: i64 = 8 << 30;

/// A stream that could not be made as it has to be.
#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    #[error("can't read stream {stream}")]
    Get { stream: &'static str, source: GetStreamError },
    #[error("can't create or update stream {stream}")]
    Create { stream: &'static str, source: CreateStreamError },
    #[error("can't create bucket {bucket}")]
    Bucket { bucket: &'static str, source: CreateKeyValueError },
    #[error(
        "stream {stream} exists with another {what} ({found}, not {wanted}), and that can't be changed: use another NATS server or account, or move that stream away"
    )]
    Differs { stream: &'static str, what: &'static str, found: String, wanted: String },
}

/// Creates what is missing and verifies what is there.
pub async fn ensure(nats: &Nats) -> Result<(), StreamsError> {
    let (js, replicas) = (&nats.jetstream, nats.replicas());
    ensure_stream(js, subjects::EVENTS, events(replicas)).await?;
    ensure_stream(js, subjects::INBOX, inbox(replicas, first_input(js).await?)).await?;
    ensure_stream(js, subjects::FRAMES, frames(replicas)).await?;
    ensure_stream(js, subjects::DETECTIONS, detections(replicas)).await?;
    ensure_stream(js, subjects::VIDEO, video(replicas)).await?;
    ensure_stream(js, subjects::RECORDINGS, recordings(replicas)).await?;
    for config in [secrets(replicas), nodes(replicas)] {
        let bucket = if config.bucket == subjects::NODES { subjects::NODES } else { subjects::SECRETS };
        js.create_or_update_key_value(config).await.map_err(|source| StreamsError::Bucket { bucket, source })?;
    }
    Ok(())
}

/// The same at a service's start: a cluster that has only just come up, or elects leaders, is waited for, up to
/// [`START_PATIENCE`]. What waiting can't mend is told at once.
pub async fn ensure_at_start(nats: &Nats) -> Result<(), StreamsError> {
    let begun = tokio::time::Instant::now();
    loop {
        match ensure(nats).await {
            Err(error) if !matches!(error, StreamsError::Differs { .. }) && begun.elapsed() < START_PATIENCE => {
                warn!(error = chain(&error), "the streams can't be made yet, trying again");
                tokio::time::sleep(START_RETRY).await;
            }
            made => return made,
        }
    }
}

async fn ensure_stream(js: &jetstream::Context, name: &'static str, mut wanted: Config) -> Result<(), StreamsError> {
    // What can't be updated is compared first: the server's own message would not say what to do about it.
    if let Some(stream) = find(js, name).await? {
        let found = &stream.config;
        let differs = |what, found: String, wanted: String| StreamsError::Differs { stream: name, what, found, wanted };
        if found.storage != wanted.storage {
            return Err(differs("storage", format!("{:?}", found.storage), format!("{:?}", wanted.storage)));
        }
        if found.retention != wanted.retention {
            return Err(differs("retention", format!("{:?}", found.retention), format!("{:?}", wanted.retention)));
        }
        if found.deny_delete && !wanted.deny_delete || found.deny_purge && !wanted.deny_purge {
            return Err(differs("denial of deletes", "denied".into(), "allowed".into()));
        }
        wanted.first_sequence = found.first_sequence;
    }
    js.create_or_update_stream(wanted).await.map(|_| ()).map_err(|source| StreamsError::Create { stream: name, source })
}

async fn find(js: &jetstream::Context, name: &'static str) -> Result<Option<Info>, StreamsError> {
    match js.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(source) => Err(StreamsError::Get { stream: name, source }),
    }
}

/// Where a new inbox begins. One that was lost must not begin at 1 again: events name the inputs that caused them, and
/// what is not above those counts as handled. Microseconds run ahead of any inbox, and stay exact in JSON.
async fn first_input(js: &jetstream::Context) -> Result<Option<u64>, StreamsError> {
    let log_is_empty = find(js, subjects::EVENTS).await?.is_none_or(|log| log.state.last_sequence == 0);
    let micros = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000;
    Ok(if log_is_empty { None } else { u64::try_from(micros).ok() })
}

fn is_not_found(error: &GetStreamError) -> bool {
    use jetstream::{ErrorCode, context::GetStreamErrorKind};
    matches!(error.kind(), GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Commands and facts in one order; a key is used once.
fn inbox(replicas: usize, first: Option<u64>) -> Config {
    Config {
        name: subjects::INBOX.into(),
        description: Some("what asks for a decision: commands and runners' facts".into()),
        subjects: vec![subjects::INBOX_ALL.into()],
        storage: StorageType::File,
        max_age: INBOX_AGE,
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        num_replicas: replicas,
        first_sequence: first,
        ..Config::default()
    }
}

/// The log: kept for ever.
fn events(replicas: usize) -> Config {
    Config {
        name: subjects::EVENTS.into(),
        description: Some("the log: everything that happened to scenarios".into()),
        subjects: vec![subjects::EVENTS_ALL.into()],
        storage: StorageType::File,
        deny_delete: true,
        deny_purge: true,
        num_replicas: replicas,
        ..Config::default()
    }
}

/// Frames under way. In memory: a lost one is sent again by its runner.
fn frames(replicas: usize) -> Config {
    Config {
        name: subjects::FRAMES.into(),
        description: Some("frames that wait for inference".into()),
        subjects: vec![subjects::FRAMES_ALL.into()],
        storage: StorageType::Memory,
        retention: RetentionPolicy::WorkQueue,
        max_age: FRAME_AGE,
        max_messages_per_subject: FRAMES_PER_SUBJECT,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        num_replicas: replicas,
        ..Config::default()
    }
}

/// Stored results, one a frame, in order.
fn detections(replicas: usize) -> Config {
    Config {
        name: subjects::DETECTIONS.into(),
        description: Some("what was found in each frame".into()),
        subjects: vec![subjects::DETECTIONS_ALL.into()],
        storage: StorageType::File,
        max_age: DETECTIONS_AGE,
        max_bytes: DETECTIONS_BYTES,
        num_replicas: replicas,
        ..Config::default()
    }
}

/// Live video. In memory: what is lost is a moment that somebody watched.
fn video(replicas: usize) -> Config {
    Config {
        name: subjects::VIDEO.into(),
        description: Some("live video of scenarios that somebody watches".into()),
        subjects: vec![subjects::VIDEO_ALL.into()],
        storage: StorageType::Memory,
        max_age: VIDEO_AGE,
        max_bytes: VIDEO_BYTES,
        num_replicas: replicas,
        ..Config::default()
    }
}

/// Recorded video. How long and how much of it is kept is each scenario's own setting, within what there is room for.
fn recordings(replicas: usize) -> Config {
    Config {
        name: subjects::RECORDINGS.into(),
        description: Some("recorded video of scenarios".into()),
        subjects: vec![subjects::RECORDINGS_ALL.into()],
        storage: StorageType::File,
        max_bytes: RECORDINGS_BYTES,
        allow_message_ttl: true,
        num_replicas: replicas,
        ..Config::default()
    }
}

/// Passwords, encrypted.
fn secrets(replicas: usize) -> kv::Config {
    kv::Config {
        bucket: subjects::SECRETS.into(),
        description: "cameras' passwords, encrypted".into(),
        history: 1,
        storage: StorageType::File,
        num_replicas: replicas,
        ..kv::Config::default()
    }
}

/// Who leads and which runners live. In memory: it is renewed twice a second.
fn nodes(replicas: usize) -> kv::Config {
    kv::Config {
        bucket: subjects::NODES.into(),
        description: "who leads, and which runners live".into(),
        history: 1,
        storage: StorageType::Memory,
        limit_markers: Some(NODE_TTL),
        num_replicas: replicas,
        ..kv::Config::default()
    }
}
