//! `/health`: whether the process serves, and whether what it serves is up to date.

use std::{sync::Arc, time::Duration};

use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Serialize;
use tokio::time::timeout;

use super::{Part, Services};
use crate::{
    body::Body,
    projection::{Following, Position, log_end},
};

/// How long NATS may take to tell the end of the log.
const ASK_DEADLINE: Duration = Duration::from_secs(1);
/// How long the projection may take to get to where the log ended when it was asked.
const CATCH_UP: Duration = Duration::from_millis(500);

pub(super) struct HealthApi {
    pub(super) services: Arc<Services>,
}

/// That it lives.
#[derive(Debug, Serialize, Object)]
struct Liveness {
    /// Always `live`.
    status: String,
}

/// Whether it is ready, and what is missing if not.
#[derive(Debug, Serialize, Object)]
struct Readiness {
    /// `ready`, or what is missing and what to do.
    status: String,
    /// `connected` or `disconnected`.
    nats: String,
    projection: ProjectionHealth,
}

/// Up to where the tables have followed the log.
#[derive(Debug, Serialize, Object)]
#[oai(rename = "ProjectionHealth")]
struct ProjectionHealth {
    seq: u64,
    /// The last sequence of the log; null: not known now.
    of: Option<u64>,
}

#[derive(ApiResponse)]
enum Live {
    /// The process serves.
    #[oai(status = 200)]
    Yes(Body<Liveness>),
}

#[derive(ApiResponse)]
enum Ready {
    /// What it answers is up to date.
    #[oai(status = 200)]
    Yes(Body<Readiness>),
    /// Something is missing: `status` says what.
    #[oai(status = 503)]
    No(Body<Readiness>),
}

#[OpenApi(tag = "Part::Health")]
impl HealthApi {
    /// Whether the process serves
    #[oai(path = "/health/live", method = "get", operation_id = "health_live")]
    async fn live(&self) -> Live {
        Live::Yes(Body(Liveness { status: "live".to_owned() }))
    }

    /// Whether what is served is up to date
    #[oai(path = "/health/ready", method = "get", operation_id = "health_ready")]
    async fn ready(&self) -> Ready {
        let nats = &self.services.nats;
        let connected = nats.is_connected();
        let of = if connected {
            timeout(ASK_DEADLINE, log_end(nats)).await.ok().and_then(Result::ok).map(|log| log.last)
        } else {
            None
        };
        let mut position = self.services.position.clone();
        if let Some(of) = of {
            // Something may have been stored a moment ago: behind is who does not get there at all. The position is
            // read below, whatever became of the wait.
            let caught_up = position.wait_for(|p| p.seq >= of && p.following == Following::Yes);
            let _ = timeout(CATCH_UP, caught_up).await;
        }
        let at = position.borrow().clone();
        let missing = missing(connected, &at, of);
        let ready = missing.is_none();
        let body = Body(Readiness {
            status: missing.unwrap_or_else(|| "ready".to_owned()),
            nats: if connected { "connected" } else { "disconnected" }.to_owned(),
            projection: ProjectionHealth { seq: at.seq, of },
        });
        if ready { Ready::Yes(body) } else { Ready::No(body) }
    }
}

/// What keeps it from being ready.
fn missing(connected: bool, at: &Position, of: Option<u64>) -> Option<String> {
    if !connected {
        return Some("the connection to NATS is lost; it is taken up again by itself".to_owned());
    }
    match (&at.following, of) {
        (Following::Halted(reason), _) => Some(format!("the projection has stopped: {reason}")),
        (Following::Interrupted(reason), _) => Some(format!("the projection is interrupted, it tries again: {reason}")),
        (Following::Starting, _) => Some("the projection is starting".to_owned()),
        (Following::Yes, None) => Some("NATS does not tell the end of the log".to_owned()),
        (Following::Yes, Some(of)) if at.seq < of => Some("the projection is behind, it catches up".to_owned()),
        (Following::Yes, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        let at = |seq, following| Position { seq, following };
        assert_eq!(missing(true, &at(5, Following::Yes), Some(5)), None);
        for (connected, at, of, word) in [
            (false, at(5, Following::Yes), None, "NATS"),
            (true, at(5, Following::Yes), None, "end of the log"),
            (true, at(4, Following::Yes), Some(5), "behind"),
            (true, at(0, Following::Starting), Some(0), "starting"),
            (true, at(5, Following::Interrupted("disk full".into())), Some(5), "disk full"),
            (true, at(5, Following::Halted("version 2".into())), Some(5), "version 2"),
        ] {
            let text = missing(connected, &at, of).unwrap();
            assert!(text.contains(word), "{text}");
        }
    }
}
