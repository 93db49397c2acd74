//! What JetStream says of the streams that commands go through, and what it lately refused to store.
//!
//! A server whose disk is full, or whose quota is, tells it in its answer to a publish and nowhere else; so what it told
//! is remembered for a while.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, ErrorCode, context::GetStreamErrorKind};
use kadr_shared::{nats::Nats, publish::PublishFailed, time::Timestamp};
use tokio::time::timeout;

/// How long NATS may take to tell of a stream.
const ASK_DEADLINE: Duration = Duration::from_secs(1);
/// A refusal is told of for this long: whether it still holds is known by the next attempt only, and somebody has to be
/// let through to make it.
const LATELY: Duration = Duration::from_secs(30);

/// How a stream fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamHealth {
    Ok {
        last: u64,
        /// When its last message was stored, by the server's stamp.
        at: Timestamp,
    },
    /// It is not there; whoever needs it first makes it again.
    Missing,
    /// Too few of its replicas are there.
    NoLeader,
    /// No answer in time.
    Silent,
}

impl StreamHealth {
    /// Its last sequence, if it is there to tell.
    pub(crate) const fn last(self) -> Option<u64> {
        match self {
            Self::Ok { last, .. } => Some(last),
            Self::Missing | Self::NoLeader | Self::Silent => None,
        }
    }
}

/// Looks at a stream, within a deadline.
pub(crate) async fn look(nats: &Nats, stream: &str) -> StreamHealth {
    match timeout(ASK_DEADLINE, nats.jetstream.get_stream(stream)).await {
        Ok(Ok(stream)) => {
            let info = stream.cached_info();
            match &info.cluster {
                Some(cluster) if cluster.leader.is_none() => StreamHealth::NoLeader,
                _ => StreamHealth::Ok { last: info.state.last_sequence, at: info.state.last_timestamp.into() },
            }
        }
        Ok(Err(error)) => match error.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => StreamHealth::Missing,
            GetStreamErrorKind::JetStream(_) => StreamHealth::NoLeader,
            _ => StreamHealth::Silent,
        },
        Err(_) => StreamHealth::Silent,
    }
}

/// What the server said when it would not store a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) text: String,
    /// It will say so again: there is no room. Otherwise it may have found a leader in a moment.
    pub(crate) full: bool,
}

/// The server's refusal in a failed publish; none if it did not answer.
pub(crate) fn refusal(failed: &PublishFailed) -> Option<Refusal> {
    let said = failed.source.source()?.downcast_ref::<jetstream::Error>()?;
    let code = said.error_code();
    let full = [
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::STREAM_STORE_FAILED,
    ]
    .contains(&code);
    Some(Refusal { text: format!("{} (JetStream's error {})", said.to_string().trim(), code.0), full })
}

/// The latest refusal.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    latest: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Refusals {
    pub(crate) fn note(&self, text: String) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), text));
    }

    /// Something was stored.
    pub(crate) fn clear(&self) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was refused lately and not stored since.
    pub(crate) fn lately(&self) -> Option<String> {
        self.lately_at(Instant::now())
    }

    fn lately_at(&self, now: Instant) -> Option<String> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < LATELY).map(|(_, text)| text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_of_until_something_is_stored_or_it_is_old() {
        let refusals = Refusals::default();
        assert_eq!(refusals.lately(), None);
        refusals.note("full".into());
        assert_eq!(refusals.lately().as_deref(), Some("full"));
        assert_eq!(refusals.lately_at(Instant::now() + LATELY), None, "who is never let through never finds out");
        refusals.clear();
        assert_eq!(refusals.lately(), None);
    }
}
