//! Every scenario's state, folded from the log as it is read. Nothing else changes a state.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use kadr_shared::{
    domain::{EventError, Phase, State},
    id::ScenarioId,
    log::{self, ReadError},
    tail::Entry,
    telemetry::chain,
    time::Timestamp,
};
use tracing::error;

use crate::timers::Timers;

/// The states as of one position in the log.
#[derive(Default)]
pub(crate) struct Book {
    states: HashMap<ScenarioId, State>,
    /// Scenarios that are not inactive: those that time alone can change.
    running: BTreeSet<ScenarioId>,
    timers: Timers,
    position: u64,
    last_input: u64,
    /// Whether the log's end was reached once: from then on events are read as they happen.
    live: bool,
}

/// An event that this orchestrator can't fold. It must not decide without it.
#[derive(Debug, thiserror::Error)]
#[error("the log holds an event that this version of kadr does not understand")]
pub struct BookError(#[from] EventError);

impl Book {
    /// Folds one more message of the log, read at `now`; the scenario that it was about.
    pub(crate) fn fold(&mut self, entry: &Entry, now: Instant) -> Result<Option<ScenarioId>, BookError> {
        self.position = entry.seq;
        self.live |= entry.pending == 0;
        let event = match log::read_data(entry) {
            Ok(event) => event,
            // Written by somebody else: it can't be taken away, and it must not stop everything for ever.
            Err(ReadError::Foreign(foreign)) => {
                error!(seq = entry.seq, error = chain(&foreign), "the log holds a message that is none of kadr's");
                return Ok(None);
            }
            Err(ReadError::Event(error)) => return Err(error.into()),
        };
        let scenario = event.scenario;
        let state = self.states.remove(&scenario).unwrap_or_default();
        let state = state.evolve(event.seq, event.time, &event.cause, &event.data);
        if state.phase == Phase::Inactive {
            self.running.remove(&scenario);
        } else {
            self.running.insert(scenario.clone());
        }
        self.timers.note(&scenario, &state, self.live, now, Timestamp::now());
        self.last_input = self.last_input.max(state.last_input);
        self.states.insert(scenario.clone(), state);
        Ok(Some(scenario))
    }

    /// A scenario that was never heard of has the default state.
    pub(crate) fn state(&self, scenario: &ScenarioId) -> State {
        self.states.get(scenario).cloned().unwrap_or_default()
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (&ScenarioId, &State)> {
        self.running.iter().filter_map(|id| self.states.get_key_value(id))
    }

    pub(crate) const fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Scenarios that were ever heard of.
    pub(crate) fn scenarios(&self) -> usize {
        self.states.len()
    }

    /// The sequence of the last event folded.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// The latest input that any scenario's log tells of.
    pub(crate) const fn last_input(&self) -> u64 {
        self.last_input
    }
}
