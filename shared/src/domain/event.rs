//! Events: what happened, in the past tense, holding all that [`State::evolve`](super::State::evolve) needs.
//!
//! A message on `kadr.evt.{scenario}.{type}` holds an [`EventBody`]; the sequence and the time are the server's.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CommandKind, EndReason, InterruptionKind, upcast};
use crate::{
    id::{RunId, RunnerId, ScenarioId},
    settings::Settings,
    time::Timestamp,
};

/// What happened. The variant's name in snake case is the event's type and the last token of its subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum EventData {
    ScenarioCreated {
        settings: Settings,
        generation: u32,
    },
    ScenarioReconfigured {
        settings: Settings,
    },
    ScenarioDeleted {},
    CommandRefused {
        command: CommandKind,
        reason: Refusal,
    },
    /// An attempt begins: runners may claim it. The settings are those of the whole run.
    StartRequested {
        run: RunId,
        attempt: u32,
        settings: Box<Settings>,
    },
    /// Its sequence is the fence of everything that this runner does for the scenario.
    RunnerAssigned {
        run: RunId,
        attempt: u32,
        runner: RunnerId,
    },
    Activated {
        run: RunId,
    },
    SourceInterrupted {
        run: RunId,
        kind: InterruptionKind,
        error: String,
    },
    SourceResumed {
        run: RunId,
    },
    /// The source came to its end; the shutdown begins.
    SourceEnded {
        run: RunId,
        frames: u64,
        of: Option<u64>,
        error: Option<String>,
    },
    /// An attempt failed and another one follows after the pause.
    AttemptFailed {
        run: RunId,
        attempt: u32,
        error: String,
        /// Failed attempts in a row: one that had run steadily begins the count anew.
        failures: u32,
        pause_ms: u64,
    },
    /// The runner stopped in order and let go; another attempt follows at once, and it is not counted as failed.
    RunnerLeft {
        run: RunId,
        attempt: u32,
    },
    /// Failed for good; the shutdown begins.
    RunFailed {
        run: RunId,
        error: String,
    },
    /// Asked for by a user; the shutdown begins, or goes on.
    StopRequested {
        run: RunId,
    },
    /// The runner saw the shutdown; `gone`: there is none (left) to wait for.
    ShutdownAcknowledged {
        run: RunId,
        gone: bool,
    },
    Deactivated {
        run: RunId,
        reason: EndReason,
        frames: Option<u64>,
        error: Option<String>,
    },
}

/// Why a command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    NotFound,
    AlreadyExists,
    AlreadyRunning,
    NotRunning,
    ShuttingDown,
    StillRunning,
}

impl Refusal {
    /// For people: what is so, and what to do.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::NotFound => "there is no such scenario: create it first",
            Self::AlreadyExists => "a scenario of this id exists: delete it first, or choose another id",
            Self::AlreadyRunning => "the scenario runs already",
            Self::NotRunning => "the scenario does not run",
            Self::ShuttingDown => "the scenario is shutting down: start it when it is inactive",
            Self::StillRunning => "the scenario runs: stop it first",
        }
    }
}

/// What caused an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The inbox sequence of the command or fact; none for what the leader does of its own accord.
    pub input: Option<u64>,
    /// The command's key, the fact's id, or the leader's reason.
    pub id: String,
}

/// An event's payload in the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventBody {
    pub version: u32,
    pub cause: Cause,
    pub actor: String,
    pub data: Value,
}

/// An event as read from the log: a line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub seq: u64,
    pub time: Timestamp,
    pub scenario: ScenarioId,
    #[serde(rename = "type")]
    pub kind: String,
    pub version: u32,
    pub cause: Cause,
    pub actor: String,
    pub data: Value,
}

/// An event that this version can't read.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("event {seq} is {kind} in version {version}; this kadr reads version {known}: use a newer kadr")]
    Version { seq: u64, kind: String, version: u32, known: u32 },
    #[error("event {seq} of type {kind} can't be read")]
    Data { seq: u64, kind: String, source: serde_json::Error },
}

impl EventData {
    /// The version of its type's body, as it is written now.
    pub fn version(&self) -> u32 {
        upcast::current(self.kind())
    }

    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ScenarioCreated { .. } => "scenario_created",
            Self::ScenarioReconfigured { .. } => "scenario_reconfigured",
            Self::ScenarioDeleted {} => "scenario_deleted",
            Self::CommandRefused { .. } => "command_refused",
            Self::StartRequested { .. } => "start_requested",
            Self::RunnerAssigned { .. } => "runner_assigned",
            Self::Activated { .. } => "activated",
            Self::SourceInterrupted { .. } => "source_interrupted",
            Self::SourceResumed { .. } => "source_resumed",
            Self::SourceEnded { .. } => "source_ended",
            Self::AttemptFailed { .. } => "attempt_failed",
            Self::RunnerLeft { .. } => "runner_left",
            Self::RunFailed { .. } => "run_failed",
            Self::StopRequested { .. } => "stop_requested",
            Self::ShutdownAcknowledged { .. } => "shutdown_acknowledged",
            Self::Deactivated { .. } => "deactivated",
        }
    }

    /// Whether data of this type and version is in today's shape.
    pub fn is_current(kind: &str, version: u32) -> bool {
        upcast::current(kind) == version
    }

    /// The payload for the stream.
    pub fn body(&self, cause: Cause, actor: String) -> Result<EventBody, serde_json::Error> {
        let mut tagged = serde_json::to_value(self)?;
        let data = tagged.get_mut("data").map(Value::take).unwrap_or_default();
        Ok(EventBody { version: self.version(), cause, actor, data })
    }
}

impl Event {
    /// Parses the data into its type; data of an older version is brought to the newest first.
    pub fn parse(&self) -> Result<EventData, EventError> {
        let known = upcast::current(&self.kind);
        if self.version > known {
            return Err(EventError::Version { seq: self.seq, kind: self.kind.clone(), version: self.version, known });
        }
        let tagged = serde_json::json!({ "type": self.kind, "data": upcast::upcast(self) });
        serde_json::from_value(tagged).map_err(|source| EventError::Data {
            seq: self.seq,
            kind: self.kind.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_back_and_its_type_is_its_name() {
        let run = RunId::from_u128(1);
        let settings = || -> Settings { serde_json::from_str(r#"{"source": {"url": "/a.mp4"}}"#).unwrap() };
        let all = [
            EventData::ScenarioCreated { settings: settings(), generation: 1 },
            EventData::ScenarioReconfigured { settings: settings() },
            EventData::ScenarioDeleted {},
            EventData::CommandRefused { command: CommandKind::Start, reason: Refusal::AlreadyRunning },
            EventData::StartRequested { run, attempt: 1, settings: Box::new(settings()) },
            EventData::RunnerAssigned { run, attempt: 1, runner: "r1".parse().unwrap() },
            EventData::Activated { run },
            EventData::SourceInterrupted { run, kind: InterruptionKind::Source, error: "gone".into() },
            EventData::SourceResumed { run },
            EventData::SourceEnded { run, frames: 3, of: Some(3), error: None },
            EventData::AttemptFailed { run, attempt: 1, error: "lost".into(), failures: 1, pause_ms: 5 },
            EventData::RunnerLeft { run, attempt: 1 },
            EventData::RunFailed { run, error: "no file".into() },
            EventData::StopRequested { run },
            EventData::ShutdownAcknowledged { run, gone: true },
            EventData::Deactivated { run, reason: EndReason::Stopped, frames: Some(3), error: None },
        ];
        for data in all {
            let body = data.body(Cause { input: Some(1), id: "k".into() }, "api".into()).unwrap();
            let event = Event {
                seq: 1,
                time: Timestamp::from_millis(0),
                scenario: "gate".parse().unwrap(),
                kind: data.kind().to_owned(),
                version: body.version,
                cause: body.cause,
                actor: body.actor,
                data: body.data,
            };
            let line = serde_json::to_string(&event).unwrap();
            let read: Event = serde_json::from_str(&line).unwrap();
            assert_eq!(read.parse().unwrap(), data, "{line}");
        }
    }

    #[test]
    fn a_newer_version_is_not_guessed_at() {
        let line = r#"{"seq": 4, "time": "2026-01-31T12:00:00.000Z", "scenario": "gate", "type": "activated",
            "version": 2, "cause": {"input": 1, "id": "k"}, "actor": "r", "data": {}}"#;
        let event: Event = serde_json::from_str(line).unwrap();
        assert!(matches!(event.parse(), Err(EventError::Version { seq: 4, version: 2, known: 1, .. })));
    }
}
