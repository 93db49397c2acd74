//! Old events as new ones: the log is kept for ever, and written once.
//!
//! Each type of event has a version of its own. What a newer kadr writes differently gets the next number and a step
//! here, from the version before to it; everything else in kadr knows the newest shape only. A version above the newest
//! is never guessed at. Nothing here looks at a state: a step has the event alone to go by.

use serde_json::{Value, json};

use super::Event;
use crate::time::Timestamp;

/// The version in which events of a type are written now.
pub(super) fn current(kind: &str) -> u32 {
    match kind {
        "attempt_failed" | "scenario_created" | "scenario_reconfigured" | "start_requested" => 2,
        _ => 1,
    }
}

/// A type of event, the version that a step leads away from, and the step.
const STEPS: [(&str, u32, Step); 4] = [
    ("attempt_failed", 1, attempt_failed_2),
    ("scenario_created", 1, settings_2),
    ("scenario_reconfigured", 1, settings_2),
    ("start_requested", 1, settings_2),
];

type Step = fn(&Event, &mut Value);

/// The event's data in the newest shape; its version must not be above [`current`].
pub(super) fn upcast(event: &Event) -> Value {
    let mut data = event.data.clone();
    for version in event.version..current(&event.kind) {
        for (_, _, step) in STEPS.iter().filter(|(kind, from, _)| *kind == event.kind && *from == version) {
            step(event, &mut data);
        }
    }
    data
}

/// Version 1 named the moment of the next attempt by the decider's clock, and left the failures to be counted.
fn attempt_failed_2(event: &Event, data: &mut Value) {
    let retry_at = data.get("retry_at").and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
    let pause = retry_at.map_or(0, |at| at.since(event.time).as_millis().min(60_000));
    // Hand-overs were counted as attempts, too: at most too many, so that a limit is kept.
    let failures = data.get("attempt").cloned().unwrap_or(json!(1));
    if let Some(fields) = data.as_object_mut() {
        fields.remove("retry_at");
        fields.insert("pause_ms".into(), json!(u64::try_from(pause).unwrap_or(0)));
        fields.insert("failures".into(), failures);
    }
}

/// Version 1 knew no `class_agnostic`: rivals were of one class.
fn settings_2(_: &Event, data: &mut Value) {
    if let Some(analysis) = data.pointer_mut("/settings/analysis").and_then(Value::as_object_mut) {
        analysis.insert("class_agnostic".into(), json!(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::EventData, id::RunId};

    fn event(line: &str) -> Event {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn an_attempt_failed_of_version_1_is_read_as_one_of_version_2() {
        let old = event(
            r#"{"seq": 9, "time": "2026-01-31T12:00:00.000Z", "scenario": "gate", "type": "attempt_failed",
            "version": 1, "cause": {"input": null, "id": "runner_gone"}, "actor": "orchestrator",
            "data": {"run": "00000000-0000-0000-0000-000000000001", "attempt": 3, "error": "lost",
                     "retry_at": "2026-01-31T12:00:02.500Z"}}"#,
        );
        let wanted = EventData::AttemptFailed {
            run: RunId::from_u128(1),
            attempt: 3,
            error: "lost".into(),
            failures: 3,
            pause_ms: 2500,
        };
        assert_eq!(old.parse().unwrap(), wanted);
        assert_eq!(wanted.version(), 2, "what is written now");
    }

    #[test]
    fn an_event_of_the_newest_version_is_left_as_it_is() {
        let new = event(
            r#"{"seq": 9, "time": "2026-01-31T12:00:00.000Z", "scenario": "gate", "type": "activated", "version": 1,
            "cause": {"input": 1, "id": "k"}, "actor": "r", "data": {"run": "00000000-0000-0000-0000-000000000001"}}"#,
        );
        assert_eq!(upcast(&new), new.data);
    }
}
