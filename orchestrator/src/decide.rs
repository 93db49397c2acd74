//! What happens next: the one place where the state machine's rules stand.
//!
//! [`decide`] is pure and total. Each input leads to one event at most, so that an append is all or nothing; where a
//! shutdown has to pass several states at once, [`due`] names the next step after each.

use std::time::Duration;

use kadr_shared::{
    domain::{Assignment, Command, EndReason, EventData, Fact, Phase, Refusal, Shutdown, State, Wait},
    id::{RunId, RunnerId},
    time::Timestamp,
};

/// What asks for a decision.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Command(Command),
    Fact { run: RunId, runner: RunnerId, fact: Fact },
    Signal(Signal),
}

/// What the leader finds by itself. A signal names the state that it was found in, so a late one is void.
#[derive(Debug, Clone, PartialEq)]
pub enum Signal {
    /// The runner of this assignment is lost, or silent during a shutdown.
    RunnerGone { fence: u64, error: String },
    /// The next step of a shutdown that waits for nobody.
    Proceed,
    /// The moment of the next attempt has come.
    RetryDue,
}

/// Clock and chance, as arguments.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    pub now: Timestamp,
    /// The id of a run, should one begin.
    pub new_run: RunId,
    /// From 0 to 1: spreads retries.
    pub jitter: f64,
}

/// The pause after the first failed attempt; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What happens on `input`; none: it changes nothing (it is late, or said already).
///
/// A command always leads to an event, if only to a refusal.
pub fn decide(state: &State, input: &Input, context: &Context) -> Option<EventData> {
    match input {
        Input::Command(command) => Some(on_command(state, command, context)),
        Input::Fact { run, runner, fact } => on_fact(state, *run, runner, fact, context),
        Input::Signal(signal) => on_signal(state, signal, context),
    }
}

/// What the leader must do by itself in a state, besides watching its runner.
#[derive(Debug, Clone, PartialEq)]
pub enum Due {
    /// At once.
    Now(Signal),
    /// At this moment.
    At(Timestamp, Signal),
    /// If the shutdown has not gone on by [`SHUTDOWN_PATIENCE`] after it was first seen in this state.
    Silence(Assignment),
}

/// How long a runner may take for each half of a shutdown.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);

pub fn due(state: &State) -> Option<Due> {
    match &state.phase {
        Phase::InitStartup { wait: Wait::Retry { at } } => Some(Due::At(*at, Signal::RetryDue)),
        Phase::InitShutdown { shutdown } | Phase::InShutdownProcessing { shutdown } => match &shutdown.assignment {
            None => Some(Due::Now(Signal::Proceed)),
            Some(assignment) => Some(Due::Silence(assignment.clone())),
        },
        Phase::Inactive
        | Phase::InitStartup { wait: Wait::Runner { .. } }
        | Phase::InStartupProcessing { .. }
        | Phase::Active { .. } => None,
    }
}

fn on_command(state: &State, command: &Command, context: &Context) -> EventData {
    let refused = |reason| EventData::CommandRefused { command: command.kind(), reason };
    let Some(settings) = &state.settings else {
        return match command {
            Command::Create { settings } => {
                EventData::ScenarioCreated { settings: settings.clone(), generation: state.generation + 1 }
            }
            _ => refused(Refusal::NotFound),
        };
    };
    match (command, &state.phase) {
        (Command::Create { .. }, _) => refused(Refusal::AlreadyExists),
        (Command::Reconfigure { settings }, Phase::Inactive) => {
            EventData::ScenarioReconfigured { settings: settings.clone() }
        }
        (Command::Delete, Phase::Inactive) => EventData::ScenarioDeleted {},
        (Command::Reconfigure { .. } | Command::Delete, _) => refused(Refusal::StillRunning),
        (Command::Start, Phase::Inactive) => {
            EventData::StartRequested { run: context.new_run, attempt: 1, settings: Box::new(settings.clone()) }
        }
        (Command::Start, Phase::InitShutdown { .. } | Phase::InShutdownProcessing { .. }) => {
            refused(Refusal::ShuttingDown)
        }
        (Command::Start, Phase::InitStartup { .. } | Phase::InStartupProcessing { .. } | Phase::Active { .. }) => {
            refused(Refusal::AlreadyRunning)
        }
        (Command::Stop, Phase::Inactive) => refused(Refusal::NotRunning),
        (Command::Stop, _) => match &state.run {
            Some(run) => EventData::StopRequested { run: run.id },
            None => refused(Refusal::NotRunning),
        },
    }
}

fn on_fact(state: &State, run: RunId, runner: &RunnerId, fact: &Fact, context: &Context) -> Option<EventData> {
    if state.run.as_ref().map(|r| r.id) != Some(run) {
        return None;
    }
    // Of an assignment that is no more, or of somebody else: void.
    let holds = |fence: u64| state.assignment().is_some_and(|a| a.fence == fence && a.runner == *runner);
    match (fact, &state.phase) {
        (Fact::Claimed { start }, Phase::InitStartup { wait: Wait::Runner { start: wanted } }) if start == wanted => {
            let attempt = state.run.as_ref().map_or(1, |r| r.attempt);
            Some(EventData::RunnerAssigned { run, attempt, runner: runner.clone() })
        }
        (Fact::Claimed { .. }, _) => None,
        (fact, _) if !holds(fact.fence()) => None,

        (Fact::Streaming { .. }, Phase::InStartupProcessing { .. }) => Some(EventData::Activated { run }),
        (Fact::Interrupted { kind, error, .. }, Phase::InStartupProcessing { .. } | Phase::Active { .. }) => {
            Some(EventData::SourceInterrupted { run, kind: *kind, error: error.clone() })
        }
        (Fact::Resumed { .. }, Phase::InStartupProcessing { .. } | Phase::Active { .. }) => {
            Some(EventData::SourceResumed { run })
        }
        (Fact::Ended { frames, of, error, .. }, Phase::InStartupProcessing { .. } | Phase::Active { .. }) => {
            Some(EventData::SourceEnded { run, frames: *frames, of: *of, error: error.clone() })
        }
        (Fact::Failed { error, retry, .. }, Phase::InStartupProcessing { .. } | Phase::Active { .. }) => {
            Some(failure(state, run, error, *retry, context))
        }
        (Fact::Left { .. }, Phase::InStartupProcessing { .. } | Phase::Active { .. }) => {
            let attempt = state.run.as_ref().map_or(1, |r| r.attempt);
            Some(EventData::RunnerLeft { run, attempt })
        }
        (Fact::Stopping { .. }, Phase::InitShutdown { .. }) => {
            Some(EventData::ShutdownAcknowledged { run, gone: false })
        }
        // It let go without a word before: both at once, the second half is then due.
        (Fact::Released { .. } | Fact::Left { .. }, Phase::InitShutdown { .. }) => {
            Some(EventData::ShutdownAcknowledged { run, gone: true })
        }
        (Fact::Released { frames, .. }, Phase::InShutdownProcessing { shutdown }) => {
            Some(deactivated(run, shutdown, Some(*frames)))
        }
        (Fact::Left { .. }, Phase::InShutdownProcessing { shutdown }) => Some(deactivated(run, shutdown, None)),
        // During a shutdown only its own steps count; before it, those mean nothing.
        (
            Fact::Streaming { .. }
            | Fact::Interrupted { .. }
            | Fact::Resumed { .. }
            | Fact::Ended { .. }
            | Fact::Failed { .. }
            | Fact::Left { .. }
            | Fact::Stopping { .. }
            | Fact::Released { .. },
            _,
        ) => None,
    }
}

fn on_signal(state: &State, signal: &Signal, context: &Context) -> Option<EventData> {
    let run = state.run.as_ref()?.id;
    match (signal, &state.phase) {
        (
            Signal::RunnerGone { fence, error },
            Phase::InStartupProcessing { assignment } | Phase::Active { assignment },
        ) if assignment.fence == *fence => Some(failure(state, run, error, true, context)),
        (Signal::RunnerGone { fence, .. }, Phase::InitShutdown { shutdown }) if held(shutdown, *fence) => {
            Some(EventData::ShutdownAcknowledged { run, gone: true })
        }
        (Signal::RunnerGone { fence, .. }, Phase::InShutdownProcessing { shutdown }) if held(shutdown, *fence) => {
            Some(deactivated(run, shutdown, None))
        }
        (Signal::Proceed, Phase::InitShutdown { shutdown }) if shutdown.assignment.is_none() => {
            Some(EventData::ShutdownAcknowledged { run, gone: true })
        }
        (Signal::Proceed, Phase::InShutdownProcessing { shutdown }) if shutdown.assignment.is_none() => {
            Some(deactivated(run, shutdown, None))
        }
        (Signal::RetryDue, Phase::InitStartup { wait: Wait::Retry { at } }) if context.now >= *at => {
            let run = state.run.as_ref()?;
            Some(EventData::StartRequested {
                run: run.id,
                attempt: run.attempt.saturating_add(1),
                settings: run.settings.clone(),
            })
        }
        (Signal::RunnerGone { .. } | Signal::Proceed | Signal::RetryDue, _) => None,
    }
}

fn held(shutdown: &Shutdown, fence: u64) -> bool {
    shutdown.assignment.as_ref().is_some_and(|a| a.fence == fence)
}

/// An attempt failed: another one by the restart policy, or the end of the run.
fn failure(state: &State, run: RunId, error: &str, retry: bool, context: &Context) -> EventData {
    let failures = state.run.as_ref().map_or(1, |r| r.failures.saturating_add(1));
    let again = state.run.as_ref().filter(|r| retry && r.settings.restart.allows_after(failures));
    match again {
        Some(r) => EventData::AttemptFailed {
            run,
            attempt: r.attempt,
            error: error.to_owned(),
            retry_at: context.now.after(pause(failures, context.jitter)),
        },
        None => EventData::RunFailed { run, error: error.to_owned() },
    }
}

/// The pause after the `failures`-th failed attempt: doubled each time, half of it by chance.
fn pause(failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

fn deactivated(run: RunId, shutdown: &Shutdown, frames: Option<u64>) -> EventData {
    let reason: EndReason = shutdown.reason;
    EventData::Deactivated { run, reason, frames, error: shutdown.error.clone() }
}

#[cfg(test)]
#[path = "decide/tests.rs"]
mod tests;
