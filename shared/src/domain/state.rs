//! A scenario's state: what follows from its events, and nothing else.
//!
//! [`State::evolve`] is total: it never fails, and an event that does not fit leaves what it can't change as it was.
//! Whether an event *should* happen is decided elsewhere.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cause, EventData};
use crate::{
    id::{RunId, RunnerId},
    settings::Settings,
    time::Timestamp,
};

/// Everything that is known of a scenario from its log.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct State {
    /// How many times it was created; 0: never.
    pub generation: u32,
    /// None: it does not exist (not yet, or deleted).
    pub settings: Option<Settings>,
    pub phase: Phase,
    /// The present run, or the last one.
    pub run: Option<Run>,
    pub health: Health,
    /// How the last run ended; none while one is on or before the first.
    pub ended: Option<Ended>,
    /// The latest inbox sequence that caused an event: what is at or below it has been handled.
    pub last_input: u64,
    /// The sequence of the latest event.
    pub seq: u64,
    pub updated_at: Timestamp,
}

/// The six states, each with what only it knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Inactive,
    InitStartup {
        wait: Wait,
    },
    InStartupProcessing {
        assignment: Assignment,
    },
    Active {
        assignment: Assignment,
    },
    InitShutdown {
        shutdown: Shutdown,
    },
    InShutdownProcessing {
        shutdown: Shutdown,
    },
}

/// What a starting scenario waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// A runner's claim of the start with this sequence.
    Runner { start: u64 },
    /// The next attempt, which begins so long after the event with sequence `since`. `at` is that moment by the server's
    /// clock, for those who did not see the event happen.
    Retry { since: u64, pause_ms: u64, at: Timestamp },
}

/// Who runs it. The fence is the sequence of the assignment; whatever carries an older one is void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub runner: RunnerId,
    pub fence: u64,
}

/// A shutdown under way, and how the run will have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// The runner that is still to let go, if any.
    pub assignment: Option<Assignment>,
    pub reason: EndReason,
    pub error: Option<String>,
}

/// A run, from Start to inactive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub id: RunId,
    /// Counts from 1.
    pub attempt: u32,
    /// Attempts that failed in a row: one that had run steadily begins the count anew.
    pub failures: u32,
    pub started_at: Timestamp,
    /// Frames stored, known at its end.
    pub frames: Option<u64>,
    /// Frames that the source says it has.
    pub of: Option<u64>,
    /// What the run began with: it holds for all its attempts.
    pub settings: Box<Settings>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    Stopped,
    Completed,
    Failed,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub reason: EndReason,
    pub error: Option<String>,
    pub at: Timestamp,
}

/// Health is not state: a camera that went away leaves the scenario active.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    pub status: HealthStatus,
    pub error: Option<String>,
    pub since: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It does not run, by its user's will or because its source ended.
    #[default]
    Idle,
    /// On its way to the first result, or waiting for its next attempt (`error` tells why there is one).
    Starting,
    Ok,
    /// The source gives nothing or nobody analyses; it goes on trying.
    Reconnecting,
    Stopping,
    /// The last run failed.
    Failed,
}

impl State {
    pub const fn exists(&self) -> bool {
        self.settings.is_some()
    }

    /// The assignment that facts must carry the fence of.
    pub const fn assignment(&self) -> Option<&Assignment> {
        match &self.phase {
            Phase::InStartupProcessing { assignment } | Phase::Active { assignment } => Some(assignment),
            Phase::InitShutdown { shutdown } | Phase::InShutdownProcessing { shutdown } => shutdown.assignment.as_ref(),
            Phase::Inactive | Phase::InitStartup { .. } => None,
        }
    }

    /// The state after one more event, which has sequence `seq` and was stored at `time`.
    #[must_use]
    pub fn evolve(mut self, seq: u64, time: Timestamp, cause: &Cause, data: &EventData) -> Self {
        self.seq = seq;
        self.last_input = self.last_input.max(cause.input.unwrap_or(0));
        if !matches!(data, EventData::CommandRefused { .. }) {
            self.updated_at = time;
        }
        match data {
            EventData::CommandRefused { .. } => {}
            EventData::ScenarioCreated { settings, generation } => {
                self.generation = *generation;
                self.settings = Some(settings.clone());
                self.phase = Phase::Inactive;
                self.run = None;
                self.ended = None;
                // Not by `set_health`: of a scenario that was never there, nothing has changed yet, and it is new.
                self.health = Health { status: HealthStatus::Idle, error: None, since: time };
            }
            EventData::ScenarioReconfigured { settings } => self.settings = Some(settings.clone()),
            EventData::ScenarioDeleted {} => {
                self.settings = None;
                self.phase = Phase::Inactive;
                self.set_health(HealthStatus::Idle, None, time);
            }
            EventData::StartRequested { run, attempt, settings } => {
                let (started_at, failures) = match &self.run {
                    Some(known) if known.id == *run => (known.started_at, known.failures),
                    _ => (time, 0),
                };
                self.run = Some(Run {
                    id: *run,
                    attempt: *attempt,
                    failures,
                    started_at,
                    frames: None,
                    of: None,
                    settings: settings.clone(),
                });
                self.ended = None;
                self.phase = Phase::InitStartup { wait: Wait::Runner { start: seq } };
                self.set_health(HealthStatus::Starting, None, time);
            }
            EventData::RunnerAssigned { runner, .. } => {
                let assignment = Assignment { runner: runner.clone(), fence: seq };
                self.phase = Phase::InStartupProcessing { assignment };
            }
            EventData::Activated { .. } => {
                if let Phase::InStartupProcessing { assignment } = &self.phase {
                    self.phase = Phase::Active { assignment: assignment.clone() };
                }
                self.set_health(HealthStatus::Ok, None, time);
            }
            EventData::SourceInterrupted { error, .. } => {
                self.set_health(HealthStatus::Reconnecting, Some(error.clone()), time);
            }
            EventData::SourceResumed { .. } => {
                let active = matches!(self.phase, Phase::Active { .. });
                self.set_health(if active { HealthStatus::Ok } else { HealthStatus::Starting }, None, time);
            }
            EventData::SourceEnded { frames, of, error, .. } => {
                if let Some(run) = &mut self.run {
                    run.frames = Some(*frames);
                    run.of = *of;
                }
                self.begin_shutdown(EndReason::Completed, error.clone(), time);
            }
            EventData::AttemptFailed { error, failures, pause_ms, .. } => {
                if let Some(run) = &mut self.run {
                    run.failures = *failures;
                }
                self.wait_to_retry(seq, time, *pause_ms);
                self.set_health(HealthStatus::Starting, Some(error.clone()), time);
            }
            EventData::RunnerLeft { .. } => {
                self.wait_to_retry(seq, time, 0);
                self.set_health(HealthStatus::Starting, None, time);
            }
            EventData::RunFailed { error, .. } => {
                self.begin_shutdown(EndReason::Failed, Some(error.clone()), time);
            }
            EventData::StopRequested { .. } => self.begin_shutdown(EndReason::Stopped, None, time),
            EventData::ShutdownAcknowledged { gone, .. } => {
                if let Phase::InitShutdown { shutdown } = &self.phase {
                    let mut shutdown = shutdown.clone();
                    if *gone {
                        shutdown.assignment = None;
                    }
                    self.phase = Phase::InShutdownProcessing { shutdown };
                }
            }
            EventData::Deactivated { reason, frames, error, .. } => {
                if let Some(run) = &mut self.run {
                    run.frames = frames.or(run.frames);
                }
                self.phase = Phase::Inactive;
                self.ended = Some(Ended { reason: *reason, error: error.clone(), at: time });
                let status = if *reason == EndReason::Failed { HealthStatus::Failed } else { HealthStatus::Idle };
                self.set_health(status, error.clone(), time);
            }
        }
        self
    }

    fn wait_to_retry(&mut self, since: u64, time: Timestamp, pause_ms: u64) {
        let at = time.after(Duration::from_millis(pause_ms));
        self.phase = Phase::InitStartup { wait: Wait::Retry { since, pause_ms, at } };
    }

    /// Into shutdown; a shutdown that is under way keeps its reason.
    fn begin_shutdown(&mut self, reason: EndReason, error: Option<String>, time: Timestamp) {
        if matches!(self.phase, Phase::InitShutdown { .. } | Phase::InShutdownProcessing { .. }) {
            return;
        }
        let assignment = self.assignment().cloned();
        self.set_health(HealthStatus::Stopping, error.clone(), time);
        self.phase = Phase::InitShutdown { shutdown: Shutdown { assignment, reason, error } };
    }

    fn set_health(&mut self, status: HealthStatus, error: Option<String>, time: Timestamp) {
        if self.health.status != status || self.health.error != error {
            self.health = Health { status, error, since: time };
        }
    }
}

impl Phase {
    /// The state's name, as the API shows it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::InitStartup { .. } => "init_startup",
            Self::InStartupProcessing { .. } => "in_startup_processing",
            Self::Active { .. } => "active",
            Self::InitShutdown { .. } => "init_shutdown",
            Self::InShutdownProcessing { .. } => "in_shutdown_processing",
        }
    }
}
