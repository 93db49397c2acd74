//! What is asked of the server for one decision: append, purge, look. Each in bounded time; nothing here decides.

use std::{cmp::Ordering, time::Duration};

use async_nats::jetstream::{
    ErrorCode,
    stream::{ConsumerErrorKind, LastRawMessageErrorKind},
};
use kadr_shared::{
    domain::{Cause, EventData},
    id::ScenarioId,
    log,
    nats::Nats,
    publish::Stored,
    subjects,
    telemetry::chain,
};
use tokio::time::{Instant, sleep, timeout};

/// For an append, a read or a purge. Short: a stop that waits behind a lost acknowledgement is to be done in time.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A request that follows from the state with `last` as its sequence.
pub(super) struct Job {
    pub(super) nats: Nats,
    pub(super) scenario: ScenarioId,
    pub(super) last: u64,
}

/// How a job ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Stored {
        seq: u64,
        kind: &'static str,
    },
    /// The scenario's log goes on to this sequence: the decision was made on an older state.
    Behind {
        last: u64,
    },
    /// The input changes nothing, and that is so by the newest state.
    Void,
    /// It is not known whether anything was stored. Trying again is safe.
    Failed(String),
    /// The scenario's log ends before what was read of it: it is another one.
    Replaced {
        end: u64,
        read: u64,
    },
}

impl Job {
    pub(super) async fn append(self, cause: Cause, actor: String, data: EventData) -> (ScenarioId, Ended) {
        let ended = self.try_append(cause, actor, &data).await.unwrap_or_else(Ended::Failed);
        (self.scenario, ended)
    }

    /// Takes a scenario's detections, what its webhook has been told of them, its recordings and its passwords away before
    /// the log says that it is deleted: doing it twice is harmless.
    pub(super) async fn delete(self, cause: Cause, actor: String, data: EventData) -> (ScenarioId, Ended) {
        let ended = async {
            match self.look().await? {
                Ended::Void => {}
                other => return Ok(other),
            }
            self.forget_webhook().await?;
            self.purge(subjects::DETECTIONS, subjects::detections(&self.scenario)).await?;
            self.purge(subjects::RECORDINGS, subjects::recordings(&self.scenario)).await?;
            self.purge(subjects::SECRETS_STREAM, subjects::secrets_of(&self.scenario)).await?;
            self.try_append(cause, actor, &data).await
        };
        let ended = ended.await.unwrap_or_else(Ended::Failed);
        (self.scenario, ended)
    }

    /// Whether the state is the newest.
    pub(super) async fn check(self) -> (ScenarioId, Ended) {
        let ended = self.look().await.unwrap_or_else(Ended::Failed);
        (self.scenario, ended)
    }

    async fn try_append(&self, cause: Cause, actor: String, data: &EventData) -> Result<Ended, String> {
        let append = log::append(&self.nats, &self.scenario, self.last, cause, actor, data);
        match timeout(PATIENCE, append).await {
            Ok(Ok(Stored::At(seq))) => Ok(Ended::Stored { seq, kind: data.kind() }),
            // Somebody else's event, or this very one of an earlier try: reading on tells which.
            Ok(Ok(Stored::Conflict | Stored::SubjectFull)) => match self.look().await? {
                Ended::Void => Err("the log refused an append, but has not changed".to_owned()),
                other => Ok(other),
            },
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("the log does not acknowledge an append in time".to_owned()),
        }
    }

    /// How the newest state is to this one's, by the stream's leader. An end before what was read is looked at again: a node
    /// that has just begun to lead may know less for a moment than another one has already told.
    async fn look(&self) -> Result<Ended, String> {
        let begun = Instant::now();
        loop {
            let last = self.last().await?;
            match last.cmp(&self.last) {
                Ordering::Less if begun.elapsed() < PATIENCE => sleep(LOOK_AGAIN).await,
                Ordering::Less => return Ok(Ended::Replaced { end: last, read: self.last }),
                Ordering::Equal => return Ok(Ended::Void),
                Ordering::Greater => return Ok(Ended::Behind { last }),
            }
        }
    }

    /// Where the scenario's log ends.
    async fn last(&self) -> Result<u64, String> {
        let filter = subjects::events_of(&self.scenario);
        let read = async {
            let stream = self.nats.jetstream.get_stream_no_info(subjects::EVENTS).await.map_err(|e| chain(&e))?;
            match stream.get_last_raw_message_by_subject(&filter).await {
                Ok(message) => Ok(message.sequence),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
                Err(error) => Err(chain(&error)),
            }
        };
        timeout(PATIENCE, read).await.map_err(|_| "the log can't be read in time".to_owned())?
    }

    async fn forget_webhook(&self) -> Result<(), String> {
        let consumer = subjects::webhook_consumer(&self.scenario);
        let forget = self.nats.jetstream.delete_consumer_from_stream(consumer, subjects::DETECTIONS);
        match timeout(PATIENCE, forget).await.map_err(|_| "the webhook's consumer can't be deleted in time")? {
            Err(error) if !is_missing(&error.kind()) => {
                Err(format!("the webhook's consumer can't be deleted: {}", chain(&error)))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn purge(&self, stream: &'static str, filter: String) -> Result<(), String> {
        let purge = async {
            let stream = self.nats.jetstream.get_stream(stream).await.map_err(|e| chain(&e))?;
            stream.purge().filter(filter).await.map_err(|e| chain(&e))
        };
        let purged = timeout(PATIENCE, purge).await.map_err(|_| format!("{stream} can't be purged in time"))?;
        purged.map(|_| ()).map_err(|error| format!("can't purge {stream}: {error}"))
    }
}

fn is_missing(kind: &ConsumerErrorKind) -> bool {
    matches!(kind, ConsumerErrorKind::JetStream(error) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}
