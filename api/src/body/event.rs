//! A line of the log, and a page of them.

use kadr_shared::domain::{Cause, Event};
use poem_openapi::Object;
use serde::Serialize;
use serde_json::Value;

/// What happened, in the past tense.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
#[oai(rename = "Event")]
pub(crate) struct EventBody {
    /// Its place in the log of all scenarios.
    seq: u64,
    time: String,
    scenario: String,
    #[serde(rename = "type")]
    #[oai(rename = "type")]
    kind: String,
    version: u32,
    cause: CauseBody,
    /// Who asked for it.
    actor: String,
    /// By type.
    data: Value,
}

/// What caused an event.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
#[oai(rename = "Cause")]
pub(super) struct CauseBody {
    /// The inbox sequence of the command or fact; null for what kadr does of its own accord.
    input: Option<u64>,
    /// The command's key, the fact's id, or kadr's reason.
    id: String,
}

/// A page of a scenario's log.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
pub(crate) struct Events {
    pub(crate) events: Vec<EventBody>,
    /// The sequence to go on from; null: there are no more yet.
    pub(crate) next: Option<u64>,
    /// The last sequence of the log that this answer has seen.
    pub(crate) seq: u64,
}

impl From<Cause> for CauseBody {
    fn from(Cause { input, id }: Cause) -> Self {
        Self { input, id }
    }
}

impl From<Event> for EventBody {
    fn from(event: Event) -> Self {
        let Event { seq, time, scenario, kind, version, cause, actor, data } = event;
        Self {
            seq,
            time: time.to_string(),
            scenario: scenario.to_string(),
            kind,
            version,
            cause: cause.into(),
            actor,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_out_as_it_stands_in_the_log() {
        let line = concat!(
            r#"{"seq":43,"time":"2026-01-31T12:00:00.000Z","scenario":"gate","type":"start_requested","version":1,"#,
            r#""cause":{"input":120,"id":"k"},"actor":"api","data":{"attempt":1}}"#
        );
        let event: Event = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&EventBody::from(event)).unwrap(), line);
    }
}
