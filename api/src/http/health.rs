//! `/health`: whether the process serves, and whether all that kadr needs to do its work is there.

use std::{sync::Arc, time::Duration};

use kadr_shared::{
    nodes::{self, LeaderKey},
    subjects,
};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Serialize;
use tokio::time::timeout;

use super::{Part, Services};
use crate::{
    body::Body,
    projection::{Following, Position},
    storage::{self, StreamHealth},
};

/// How long NATS may take to tell who leads.
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
    nats: Connection,
    orchestrator: OrchestratorHealth,
    projection: ProjectionHealth,
    storage: StorageHealth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum Connection {
    Connected,
    Disconnected,
}

/// Who decides on commands.
#[derive(Debug, Serialize, Object)]
struct OrchestratorHealth {
    /// The one that leads; null: none, or not known.
    leader: Option<String>,
    /// Why it can't decide, in its own words; null: it can.
    trouble: Option<String>,
}

/// Up to where the tables have followed the log.
#[derive(Debug, Serialize, Object)]
#[oai(rename = "ProjectionHealth")]
struct ProjectionHealth {
    seq: u64,
    /// The last sequence of the log; null: not known now.
    of: Option<u64>,
}

/// Whether JetStream takes what has to be kept.
#[derive(Debug, Serialize, Object)]
struct StorageHealth {
    /// The stream of events.
    log: StreamStatus,
    /// The stream of commands.
    inbox: StreamStatus,
    /// What the server said when it would not store a command, in the last 30 s; null: it stores.
    refused: Option<String>,
}

/// How a stream fares: `missing`: not there (it is made again by whoever needs it first); `no_leader`: too few of its
/// replicas are there; `silent`: no answer in time; `unknown`: not asked, there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum StreamStatus {
    Ok,
    Missing,
    NoLeader,
    Silent,
    Unknown,
}

#[derive(ApiResponse)]
enum Live {
    /// The process serves.
    #[oai(status = 200)]
    Yes(Body<Liveness>),
}

#[derive(ApiResponse)]
enum Ready {
    /// All is well: what it answers is up to date, and commands are decided.
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

    /// Whether what is served is up to date and commands can be carried out
    #[oai(path = "/health/ready", method = "get", operation_id = "health_ready")]
    async fn ready(&self) -> Ready {
        let found = self.look().await;
        let missing = found.missing();
        let status = if missing.is_empty() { "ready".to_owned() } else { missing.join("; ") };
        let body = Body(found.body(status));
        if missing.is_empty() { Ready::Yes(body) } else { Ready::No(body) }
    }
}

impl HealthApi {
    async fn look(&self) -> Found {
        let Services { nats, position, commands, .. } = &*self.services;
        let mut found =
            Found { streams: None, leader: None, at: position.borrow().clone(), refused: commands.refusals().lately() };
        if !nats.is_connected() {
            return found;
        }
        let (log, inbox, leader) = tokio::join!(
            storage::look(nats, subjects::EVENTS),
            storage::look(nats, subjects::INBOX),
            timeout(ASK_DEADLINE, nodes::read_leader(nats)),
        );
        if let Some(of) = log.last() {
            // Something may have been stored a moment ago: behind is who does not get there at all. The position is
            // read below, whatever became of the wait.
            let mut position = position.clone();
            let caught_up = position.wait_for(|p| p.seq >= of && p.following == Following::Yes);
            let _ = timeout(CATCH_UP, caught_up).await;
        }
        found.at = position.borrow().clone();
        found.streams = Some(Streams { log, inbox });
        found.leader = leader.ok().flatten();
        found
    }
}

/// What a look at everything has found.
#[derive(Debug)]
struct Found {
    /// None: there is no connection.
    streams: Option<Streams>,
    /// None: it is not known.
    leader: Option<LeaderKey>,
    at: Position,
    refused: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Streams {
    log: StreamHealth,
    inbox: StreamHealth,
}

impl Found {
    /// What keeps it from being ready, with what to do.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut add = |text: Option<String>| missing.extend(text);
        match &self.streams {
            None => add(Some("the connection to NATS is lost; it is taken up again by itself".to_owned())),
            Some(Streams { log, inbox }) => {
                add(stream_trouble("the log", *log));
                add(stream_trouble("the inbox of commands", *inbox));
                add(self.leader_trouble());
            }
        }
        add(self.refused.as_ref().map(|said| format!("NATS has refused to store a command: {said}; make room")));
        let of = self.streams.and_then(|streams| streams.log.last());
        add(match (&self.at.following, of) {
            (Following::Halted(reason), _) => Some(format!("the projection has stopped: {reason}")),
            (Following::Interrupted(reason), _) => {
                Some(format!("the projection is interrupted, it tries again: {reason}"))
            }
            (Following::Starting, _) => Some("the projection is starting".to_owned()),
            (Following::Yes, Some(of)) if self.at.seq < of => {
                Some("the projection is behind, it catches up".to_owned())
            }
            (Following::Yes, _) => None,
        });
        missing
    }

    fn leader_trouble(&self) -> Option<String> {
        match &self.leader {
            None => Some("NATS does not tell which orchestrator leads".to_owned()),
            Some(LeaderKey { holder: None, .. }) => {
                Some("no orchestrator leads: commands are kept and not decided; start one".to_owned())
            }
            Some(LeaderKey { holder: Some(beat), .. }) => beat
                .trouble
                .as_ref()
                .map(|trouble| format!("the leading orchestrator {} can't decide: {trouble}", beat.orchestrator)),
        }
    }

    fn body(self, status: String) -> Readiness {
        let holder = self.leader.and_then(|key| key.holder);
        let (leader, trouble) = holder.map_or((None, None), |beat| (Some(beat.orchestrator), beat.trouble));
        Readiness {
            status,
            nats: if self.streams.is_some() { Connection::Connected } else { Connection::Disconnected },
            orchestrator: OrchestratorHealth { leader, trouble },
            projection: ProjectionHealth { seq: self.at.seq, of: self.streams.and_then(|streams| streams.log.last()) },
            storage: StorageHealth {
                log: self.streams.map_or(StreamStatus::Unknown, |streams| streams.log.into()),
                inbox: self.streams.map_or(StreamStatus::Unknown, |streams| streams.inbox.into()),
                refused: self.refused,
            },
        }
    }
}

fn stream_trouble(what: &str, stream: StreamHealth) -> Option<String> {
    match stream {
        StreamHealth::Ok { .. } => None,
        StreamHealth::Missing => Some(format!("NATS does not have {what}; it is made again")),
        StreamHealth::NoLeader => Some(format!("NATS has no quorum for {what}: too few of its nodes are there")),
        StreamHealth::Silent => {
            Some(format!("NATS does not tell the end of {what}: it hangs, or too few of its nodes are there"))
        }
    }
}

impl From<StreamHealth> for StreamStatus {
    fn from(stream: StreamHealth) -> Self {
        match stream {
            StreamHealth::Ok { .. } => Self::Ok,
            StreamHealth::Missing => Self::Missing,
            StreamHealth::NoLeader => Self::NoLeader,
            StreamHealth::Silent => Self::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::{nodes::LeaderBeat, time::Timestamp};

    use super::*;

    fn well() -> Found {
        let beat = LeaderBeat { orchestrator: "o1".into(), trouble: None };
        Found {
            streams: Some(Streams {
                log: StreamHealth::Ok { last: 5, at: Timestamp::EPOCH },
                inbox: StreamHealth::Ok { last: 9, at: Timestamp::EPOCH },
            }),
            leader: Some(LeaderKey { holder: Some(beat), revision: 1 }),
            at: Position { seq: 5, following: Following::Yes },
            refused: None,
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        assert_eq!(well().missing(), Vec::<String>::new());
        let at = |seq, following| Position { seq, following };
        let streams = |log, inbox| Some(Streams { log, inbox });
        let ok = StreamHealth::Ok { last: 5, at: Timestamp::EPOCH };
        let trouble = LeaderBeat { orchestrator: "o1".into(), trouble: Some("no space left".into()) };
        for (found, word) in [
            (Found { streams: None, leader: None, ..well() }, "connection to NATS is lost"),
            (Found { streams: streams(StreamHealth::Silent, ok), ..well() }, "end of the log"),
            (Found { streams: streams(ok, StreamHealth::NoLeader), ..well() }, "no quorum for the inbox"),
            (Found { streams: streams(StreamHealth::Missing, ok), ..well() }, "does not have the log"),
            (Found { leader: None, ..well() }, "which orchestrator leads"),
            (Found { leader: Some(LeaderKey { holder: None, revision: 0 }), ..well() }, "no orchestrator leads"),
            (Found { leader: Some(LeaderKey { holder: Some(trouble), revision: 1 }), ..well() }, "no space left"),
            (Found { refused: Some("insufficient resources".into()), ..well() }, "insufficient resources"),
            (Found { at: at(4, Following::Yes), ..well() }, "behind"),
            (Found { at: at(5, Following::Starting), ..well() }, "starting"),
            (Found { at: at(5, Following::Interrupted("disk full".into())), ..well() }, "disk full"),
            (Found { at: at(5, Following::Halted("version 2".into())), ..well() }, "version 2"),
        ] {
            let missing = found.missing();
            assert!(missing.len() == 1 && missing[0].contains(word), "{word}: {missing:?}");
        }
    }
}
