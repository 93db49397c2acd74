//! Folded states that need not be read again: those that this writer's last commit left.

use std::collections::{HashMap, HashSet};

use kadr_shared::{domain::State, id::ScenarioId};

use super::write::Checkpoint;

/// The most states that are remembered: some tens of megabytes.
const MOST: usize = 16_384;

/// The states of some scenarios, as they are at a checkpoint.
#[derive(Debug, Default)]
pub(super) struct States {
    known: HashMap<ScenarioId, State>,
    at: Option<Checkpoint>,
    /// The tables hold no other.
    whole: bool,
}

impl States {
    /// Those of empty tables.
    pub(super) fn none_yet(at: Checkpoint) -> Self {
        Self { at: Some(at), whole: true, ..Self::default() }
    }

    /// To be changed by a transaction that began at this checkpoint. If somebody else has written meanwhile, what is
    /// remembered is old; if that transaction fails, it is too new.
    pub(super) fn begin(&mut self, at: &Checkpoint) {
        if self.at.take().as_ref() != Some(at) {
            *self = Self::default();
        }
    }

    /// The transaction is committed.
    pub(super) fn committed(&mut self, at: Checkpoint) {
        self.at = Some(at);
        if self.known.len() > MOST {
            self.known.clear();
            self.whole = false;
        }
    }

    /// Those of these scenarios that have to be read first.
    pub(super) fn missing<'a>(&self, scenarios: impl Iterator<Item = &'a ScenarioId>) -> HashSet<&'a ScenarioId> {
        if self.whole {
            return HashSet::new();
        }
        scenarios.filter(|scenario| !self.known.contains_key(*scenario)).collect()
    }

    pub(super) fn insert(&mut self, scenario: ScenarioId, state: State) {
        self.known.insert(scenario, state);
    }

    /// Takes a scenario's state out, to put its successor in: that of one without events if none is known.
    pub(super) fn take(&mut self, scenario: &ScenarioId) -> State {
        self.known.remove(scenario).unwrap_or_default()
    }

    pub(super) fn get(&self, scenario: &ScenarioId) -> Option<&State> {
        self.known.get(scenario)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Checkpoint {
        Checkpoint { stream: "log".into(), version: "1.0.0".into(), seq }
    }

    fn id(n: usize) -> ScenarioId {
        format!("s{n}").parse().unwrap()
    }

    #[test]
    fn what_somebody_else_or_a_failure_made_old_is_forgotten() {
        let mut states = States::none_yet(at(0));
        states.begin(&at(0));
        states.insert(id(1), State { seq: 1, ..State::default() });
        states.committed(at(1));
        states.begin(&at(1));
        assert_eq!(states.take(&id(1)).seq, 1);
        // That transaction failed: nothing was committed.
        states.begin(&at(1));
        assert_eq!(states.missing([&id(1)].into_iter()).len(), 1);
        states.insert(id(1), State { seq: 1, ..State::default() });
        states.committed(at(2));
        states.begin(&at(3));
        assert_eq!(states.missing([&id(1)].into_iter()).len(), 1, "somebody else had written");
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut states = States::none_yet(at(0));
        states.begin(&at(0));
        assert!(states.missing([&id(0)].into_iter()).is_empty(), "empty tables hold none");
        for n in 0..=MOST {
            states.insert(id(n), State::default());
        }
        states.committed(at(1));
        states.begin(&at(1));
        assert_eq!(states.missing([&id(0)].into_iter()).len(), 1);
    }
}
