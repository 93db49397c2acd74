//! How a scenario got from state to state.

use kadr_shared::time::Timestamp;
use poem_openapi::Object;
use serde::Serialize;

use super::{
    event::CauseBody,
    scenario::{Reason, StateName},
};
use crate::time_travel::{Present, Transition};

/// A page of a scenario's transitions.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
#[oai(rename = "History")]
pub(crate) struct HistoryBody {
    transitions: Vec<TransitionBody>,
    /// The state that holds, on the last page; null on the others.
    present: Option<PresentBody>,
    /// The sequence to go on from; null: this is the last page.
    next: Option<u64>,
    /// The last sequence of the log that this answer has seen.
    seq: u64,
}

/// A change of state. Null in place of a state: the scenario did not exist.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
#[oai(rename = "Transition")]
struct TransitionBody {
    /// The event's place in the log.
    seq: u64,
    /// When it was stored, by the server's stamp.
    at: String,
    from: Option<StateName>,
    to: Option<StateName>,
    /// How long it was in `from`, in milliseconds by the server's stamps; null where there was none.
    duration_ms: Option<u64>,
    /// The event's type.
    #[serde(rename = "type")]
    #[oai(rename = "type")]
    kind: String,
    cause: CauseBody,
    /// Who asked for it.
    actor: String,
    /// How the run ended, if this ended one.
    reason: Option<Reason>,
    /// What went wrong, if anything.
    error: Option<String>,
}

/// The state that holds.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
#[oai(rename = "PresentState")]
struct PresentBody {
    /// Null: the scenario is deleted.
    state: Option<StateName>,
    since: String,
    /// How long it has been so, in milliseconds up to now by the API's clock.
    duration_ms: u64,
}

impl HistoryBody {
    pub(crate) fn new(
        transitions: Vec<Transition>,
        next: Option<u64>,
        present: Option<Present>,
        now: Timestamp,
        seq: u64,
    ) -> Self {
        Self {
            transitions: transitions.into_iter().map(TransitionBody::from).collect(),
            present: present.map(|present| PresentBody {
                state: present.state.as_ref().map(StateName::from),
                since: present.since.to_string(),
                duration_ms: millis(now.since(present.since)),
            }),
            next,
            seq,
        }
    }
}

impl From<Transition> for TransitionBody {
    fn from(transition: Transition) -> Self {
        let Transition { seq, at, from, to, lasted, kind, cause, actor, reason, error } = transition;
        Self {
            seq,
            at: at.to_string(),
            from: from.as_ref().map(StateName::from),
            to: to.as_ref().map(StateName::from),
            duration_ms: lasted.map(millis),
            kind: kind.to_owned(),
            cause: cause.into(),
            actor,
            reason: reason.map(Reason::from),
            error,
        }
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
