//! What happens next: the one place where the state machine's rules stand.
//!
//! [`decide`] is pure and total. Each input leads to one event at most, so that an append is all or nothing; where a
//! shutdown has to pass several states at once, [`due`] names the next step after each.

use std::time::Duration;

use kadr_shared::{
    domain::{Assignment, Command, EndReason, EventData, Fact, Phase, Refusal, Run, Shutdown, State, Wait},
    id::{RunId, RunnerId},
    time::Timestamp,
};

/// What asks for a decision.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "made once for each decision, and used up by it")]
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
    /// The pause that began with the event of this sequence is over.
    RetryDue { since: u64 },
    /// Nobody has claimed the start with this sequence, and nobody will: it is lost.
    StartLost { start: u64 },
}

/// Clock and chance, as arguments. There is no time of day among them: wall clocks may be wrong.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// How long the scenario has been active without a break; zero: it is not.
    pub active_for: Duration,
    /// The id of a run, should one begin.
    pub new_run: RunId,
    /// From 0 to 1: spreads retries.
    pub jitter: f64,
}

/// The pause after the first failed attempt; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An attempt that gave results for so long was a good one: its failure is the first of a new row.
const STEADY: Duration = Duration::from_secs(60);

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
    /// So long after the event that led to this state was stored; `at` is that moment by the server's clock.
    After { pause: Duration, at: Timestamp, signal: Signal },
    /// If the shutdown has not gone on by [`SHUTDOWN_PATIENCE`] after it came into this state, or is not done by
    /// [`SHUTDOWN_LONGEST`] after it began.
    Silence(Assignment),
    /// If the start with this sequence turns out to be lost.
    Claim { start: u64 },
}

/// How long a runner may be silent in each half of a shutdown.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);
/// How long both halves may take together: a stop is done within 5 s, also if the leader changes meanwhile.
pub const SHUTDOWN_LONGEST: Duration = Duration::from_millis(3500);

pub fn due(state: &State) -> Option<Due> {
    match &state.phase {
        Phase::InitStartup { wait: Wait::Retry { since, pause_ms, at } } => {
            let (pause, signal) = (Duration::from_millis(*pause_ms), Signal::RetryDue { since: *since });
            Some(Due::After { pause, at: *at, signal })
        }
        Phase::InitStartup { wait: Wait::Runner { start } } => Some(Due::Claim { start: *start }),
        Phase::InitShutdown { shutdown } | Phase::InShutdownProcessing { shutdown } => match &shutdown.assignment {
            None => Some(Due::Now(Signal::Proceed)),
            Some(assignment) => Some(Due::Silence(assignment.clone())),
        },
        Phase::Inactive | Phase::InStartupProcessing { .. } | Phase::Active { .. } => None,
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
        (Signal::RetryDue { since }, Phase::InitStartup { wait: Wait::Retry { since: wanted, .. } })
            if since == wanted =>
        {
            let run = state.run.as_ref()?;
            Some(start_again(run, run.attempt.saturating_add(1)))
        }
        (Signal::StartLost { start }, Phase::InitStartup { wait: Wait::Runner { start: wanted } })
            if start == wanted =>
        {
            let run = state.run.as_ref()?;
            Some(start_again(run, run.attempt))
        }
        (Signal::RunnerGone { .. } | Signal::Proceed | Signal::RetryDue { .. } | Signal::StartLost { .. }, _) => None,
    }
}

fn start_again(run: &Run, attempt: u32) -> EventData {
    EventData::StartRequested { run: run.id, attempt, settings: run.settings.clone() }
}

fn held(shutdown: &Shutdown, fence: u64) -> bool {
    shutdown.assignment.as_ref().is_some_and(|a| a.fence == fence)
}

/// An attempt failed: another one by the restart policy, or the end of the run.
fn failure(state: &State, run: RunId, error: &str, retry: bool, context: &Context) -> EventData {
    let failures = state.run.as_ref().map_or(1, |r| failures_in_a_row(r, context.active_for));
    let again = state.run.as_ref().filter(|r| r.settings.restart.allows_after(failures, retry));
    match again {
        Some(r) => EventData::AttemptFailed {
            run,
            attempt: r.attempt,
            error: error.to_owned(),
            failures,
            pause_ms: u64::try_from(pause(failures, context.jitter).as_millis()).unwrap_or(u64::MAX),
        },
        None => EventData::RunFailed { run, error: error.to_owned() },
    }
}

/// The failures in a row, this one included.
fn failures_in_a_row(run: &Run, active_for: Duration) -> u32 {
    if active_for >= STEADY { 1 } else { run.failures.saturating_add(1) }
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
