//! Every scenario's state, folded from the log as it is read. Nothing else changes a state.

use std::collections::{BTreeSet, HashMap};

use kadr_shared::{
    domain::{EventError, Phase, State},
    id::ScenarioId,
    log::{self, LogError},
    tail::Entry,
};

/// The states as of one position in the log.
#[derive(Default)]
pub(crate) struct Book {
    states: HashMap<ScenarioId, State>,
    /// Scenarios that are not inactive: those that time alone can change.
    running: BTreeSet<ScenarioId>,
    position: u64,
    last_input: u64,
}

/// An event that this orchestrator can't fold. It must not decide without it.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    #[error("the log can't be read")]
    Log(#[from] LogError),
    #[error("the log holds an event that this version of kadr does not understand")]
    Event(#[from] EventError),
}

impl Book {
    /// Folds one more message of the log; the scenario that it was about.
    pub(crate) fn fold(&mut self, entry: &Entry) -> Result<ScenarioId, BookError> {
        let event = log::read(entry)?;
        let data = event.parse()?;
        let state = self.states.remove(&event.scenario).unwrap_or_default();
        let state = state.evolve(event.seq, event.time, &event.cause, &data);
        if state.phase == Phase::Inactive {
            self.running.remove(&event.scenario);
        } else {
            self.running.insert(event.scenario.clone());
        }
        self.last_input = self.last_input.max(state.last_input);
        self.position = event.seq;
        self.states.insert(event.scenario.clone(), state);
        Ok(event.scenario)
    }

    /// A scenario that was never heard of has the default state.
    pub(crate) fn state(&self, scenario: &ScenarioId) -> State {
        self.states.get(scenario).cloned().unwrap_or_default()
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (&ScenarioId, &State)> {
        self.running.iter().filter_map(|id| self.states.get_key_value(id))
    }

    /// The sequence of the last event folded.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// The latest input that any scenario's log tells of: all before it were handled, for they are read in order.
    pub(crate) const fn last_input(&self) -> u64 {
        self.last_input
    }
}
