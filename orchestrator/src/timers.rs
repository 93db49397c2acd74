//! What time alone brings to scenarios: pauses that end, shutdowns that nobody answers.
//!
//! By monotonic clocks, from the moment that the event was read: no jump of a wall clock makes a retry come late or a
//! shutdown last. Every orchestrator keeps them, so that a new leader need not begin them anew. Runners' signs of life
//! are not looked at here.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use kadr_shared::{
    domain::{Phase, State},
    id::ScenarioId,
    time::Timestamp,
};

use crate::decide::{Due, SHUTDOWN_LONGEST, SHUTDOWN_PATIENCE, Signal, due};

#[derive(Default)]
pub(crate) struct Timers {
    timers: HashMap<ScenarioId, Timer>,
}

struct Timer {
    step: Step,
    /// When it came to this step.
    entered: Instant,
    /// When its shutdown began.
    shutdown: Option<Instant>,
    /// When its pause is over.
    pause_ends: Option<Instant>,
}

/// What tells one wait from the next. Events that leave it as it is (a refused command) prolong nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// For the claim of this start.
    Claim(u64),
    /// In the pause that this event began.
    Pause(u64),
    /// For the runner with this fence.
    InitShutdown(u64),
    InShutdown(u64),
    /// For nothing: it has results, from the runner with this fence.
    Active(u64),
    Other,
}

impl Step {
    fn of(state: &State) -> Self {
        match (due(state), &state.phase) {
            (Some(Due::Claim { start }), _) => Self::Claim(start),
            (Some(Due::After { signal: Signal::RetryDue { since }, .. }), _) => Self::Pause(since),
            (Some(Due::Silence(held)), Phase::InitShutdown { .. }) => Self::InitShutdown(held.fence),
            (Some(Due::Silence(held)), _) => Self::InShutdown(held.fence),
            (_, Phase::Active { assignment }) => Self::Active(assignment.fence),
            _ => Self::Other,
        }
    }
}

impl Timers {
    /// Takes note of a scenario's state after an event that was read at `now`. `live`: it has only just happened;
    /// otherwise `wall` tells how much of a pause is over, as far as that clock can be believed.
    pub(crate) fn note(&mut self, scenario: &ScenarioId, state: &State, live: bool, now: Instant, wall: Timestamp) {
        if state.phase == Phase::Inactive {
            self.timers.remove(scenario);
            return;
        }
        let step = Step::of(state);
        let before = self.timers.get(scenario);
        if before.is_some_and(|timer| timer.step == step) {
            return;
        }
        let shutdown = match &state.phase {
            Phase::InitShutdown { .. } => Some(now),
            Phase::InShutdownProcessing { .. } => before.and_then(|timer| timer.shutdown).or(Some(now)),
            _ => None,
        };
        let pause_ends = match due(state) {
            Some(Due::After { pause, .. }) if live => Some(now + pause),
            Some(Due::After { pause, at, .. }) => Some(now + at.since(wall).min(pause)),
            _ => None,
        };
        self.timers.insert(scenario.clone(), Timer { step, entered: now, shutdown, pause_ends });
    }

    /// The signal that it is time for.
    pub(crate) fn ring(&self, scenario: &ScenarioId, state: &State, now: Instant) -> Option<Signal> {
        let timer = self.timers.get(scenario)?;
        match due(state)? {
            Due::Now(signal) => Some(signal),
            Due::After { signal, .. } => (now >= timer.pause_ends?).then_some(signal),
            Due::Silence(held) => {
                let silent = now.duration_since(timer.entered) >= SHUTDOWN_PATIENCE
                    || now.duration_since(timer.shutdown?) >= SHUTDOWN_LONGEST;
                let error = format!("runner {} did not answer the shutdown", held.runner);
                silent.then_some(Signal::RunnerGone { fence: held.fence, error })
            }
            Due::Claim { .. } => None,
        }
    }

    /// How long it has been active, as far as this orchestrator has seen.
    pub(crate) fn active_for(&self, scenario: &ScenarioId, now: Instant) -> Duration {
        match self.timers.get(scenario) {
            Some(Timer { step: Step::Active(_), entered, .. }) => now.duration_since(*entered),
            _ => Duration::ZERO,
        }
    }

    /// How long it has been at its present step.
    pub(crate) fn waiting(&self, scenario: &ScenarioId, now: Instant) -> Duration {
        self.timers.get(scenario).map_or(Duration::ZERO, |timer| now.duration_since(timer.entered))
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::{
        domain::{Cause, CommandKind, EventData, Refusal},
        id::RunId,
    };

    use super::*;

    const RUN: RunId = RunId::from_u128(1);
    const AT: Timestamp = Timestamp::EPOCH;

    fn gate() -> ScenarioId {
        "gate".parse().unwrap()
    }

    fn events(data: &[EventData]) -> State {
        let cause = Cause { input: None, id: "k".into() };
        data.iter().zip(1..).fold(State::default(), |state, (data, seq)| state.evolve(seq, AT, &cause, data))
    }

    fn started() -> Vec<EventData> {
        let settings: kadr_shared::settings::Settings =
            serde_json::from_str(r#"{"source": {"url": "/a.mp4"}}"#).unwrap();
        vec![
            EventData::ScenarioCreated { settings: settings.clone(), generation: 1 },
            EventData::StartRequested { run: RUN, attempt: 1, settings: Box::new(settings) },
            EventData::RunnerAssigned { run: RUN, attempt: 1, runner: "r1".parse().unwrap() },
        ]
    }

    fn after(more: &[EventData]) -> State {
        events(&started().into_iter().chain(more.iter().cloned()).collect::<Vec<_>>())
    }

    fn failed(pause_ms: u64) -> EventData {
        EventData::AttemptFailed { run: RUN, attempt: 1, error: "lost".into(), failures: 1, pause_ms }
    }

    #[test]
    fn a_pause_is_waited_for_whatever_the_wall_clock_says() {
        let (state, now) = (after(&[failed(500)]), Instant::now());
        for wall in [AT, AT.after(Duration::from_secs(86_400))] {
            let mut timers = Timers::default();
            timers.note(&gate(), &state, true, now, wall);
            assert_eq!(timers.ring(&gate(), &state, now + Duration::from_millis(499)), None);
            let signal = Some(Signal::RetryDue { since: 4 });
            assert_eq!(timers.ring(&gate(), &state, now + Duration::from_millis(500)), signal);
        }
    }

    #[test]
    fn of_a_pause_that_began_earlier_the_rest_is_waited_for_and_never_more() {
        let (state, now) = (after(&[failed(500)]), Instant::now());
        let rest = |wall| {
            let mut timers = Timers::default();
            timers.note(&gate(), &state, false, now, wall);
            (0..=500).find(|&ms| timers.ring(&gate(), &state, now + Duration::from_millis(ms)).is_some())
        };
        assert_eq!(rest(AT.after(Duration::from_millis(300))), Some(200));
        assert_eq!(rest(AT.after(Duration::from_secs(9))), Some(0));
        // A wall clock that is far behind the server's.
        assert_eq!(rest(AT), Some(500));
    }

    #[test]
    fn how_long_it_has_been_active_is_known_whatever_the_wall_clock_says() {
        let (mut timers, begun) = (Timers::default(), Instant::now());
        let later = begun + Duration::from_secs(9);
        timers.note(&gate(), &after(&[]), true, begun, AT);
        assert_eq!(timers.active_for(&gate(), later), Duration::ZERO, "it is not active yet");
        timers.note(&gate(), &after(&[EventData::Activated { run: RUN }]), true, begun, AT);
        let interrupted = EventData::SourceResumed { run: RUN };
        let state = after(&[EventData::Activated { run: RUN }, interrupted]);
        timers.note(&gate(), &state, true, begun + Duration::from_secs(5), AT.after(Duration::from_secs(86_400)));
        assert_eq!(timers.active_for(&gate(), later), Duration::from_secs(9));
    }

    #[test]
    fn a_shutdown_is_over_in_time_also_if_each_half_is_answered_late() {
        let mut timers = Timers::default();
        let begun = Instant::now();
        let stop = EventData::StopRequested { run: RUN };
        let state = after(std::slice::from_ref(&stop));
        timers.note(&gate(), &state, true, begun, AT);
        // A refused command in between prolongs nothing.
        let refused = EventData::CommandRefused { command: CommandKind::Start, reason: Refusal::ShuttingDown };
        timers.note(&gate(), &after(&[stop.clone(), refused]), true, begun + Duration::from_secs(2), AT);
        assert_eq!(timers.ring(&gate(), &state, begun + Duration::from_millis(2900)), None);
        assert!(timers.ring(&gate(), &state, begun + SHUTDOWN_PATIENCE).is_some());

        let acknowledged = begun + Duration::from_millis(2900);
        let state = after(&[stop, EventData::ShutdownAcknowledged { run: RUN, gone: false }]);
        timers.note(&gate(), &state, true, acknowledged, AT);
        assert_eq!(timers.ring(&gate(), &state, acknowledged), None);
        assert!(timers.ring(&gate(), &state, begun + SHUTDOWN_LONGEST).is_some());
    }
}
