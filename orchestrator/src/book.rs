//! Every scenario's state, folded from the log as it is read. Nothing else changes a state.

use std::collections::{BTreeSet, HashMap};

use kadr_shared::{
    domain::{EventError, Phase, State},
    id::ScenarioId,
    log,
    tail::Entry,
    telemetry::chain,
};
use tracing::error;

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
#[error("the log holds an event that this version of kadr does not understand")]
pub struct BookError(#[from] EventError);

impl Book {
    /// Folds one more message of the log.
    pub(crate) fn fold(&mut self, entry: &Entry) -> Result<(), BookError> {
        self.position = entry.seq;
        let event = match log::read(entry) {
            Ok(event) => event,
            // Written by somebody else: it can't be taken away, and it must not stop everything for ever.
            Err(foreign) => {
                error!(seq = entry.seq, error = chain(&foreign), "the log holds a message that is none of kadr's");
                return Ok(());
            }
        };
        let data = event.parse()?;
        let state = self.states.remove(&event.scenario).unwrap_or_default();
        let state = state.evolve(event.seq, event.time, &event.cause, &data);
        if state.phase == Phase::Inactive {
            self.running.remove(&event.scenario);
        } else {
            self.running.insert(event.scenario.clone());
        }
        self.last_input = self.last_input.max(state.last_input);
        self.states.insert(event.scenario, state);
        Ok(())
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
