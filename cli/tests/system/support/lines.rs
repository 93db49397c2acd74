//! Files of JSON lines, and what is promised of each line.

use std::{collections::BTreeSet, path::Path};

use kadr_shared::domain::{Event, State};
use serde_json::Value;

/// The types of a file's run from its creation to its end.
pub(crate) const WHOLE_RUN: [&str; 7] = [
    "scenario_created",
    "start_requested",
    "runner_assigned",
    "activated",
    "source_ended",
    "shutdown_acknowledged",
    "deactivated",
];

/// Each line, parsed.
pub(crate) fn read(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Events' types, in order.
pub(crate) fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// The types of a run's log without the attempts that another one followed, and how each of those ended. On a starved
/// machine a runner may lose its lease at any time: that is told, and nothing is lost by it.
pub(crate) fn last_attempt<'a>(types: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut last, mut ends) = (Vec::new(), Vec::new());
    for kind in types {
        match *kind {
            "source_interrupted" | "source_resumed" => {}
            end @ ("runner_left" | "attempt_failed") => {
                ends.push(end);
                while last.pop().is_some_and(|kind| kind != "start_requested") {}
            }
            other => last.push(other),
        }
    }
    (last, ends)
}

/// That an object has exactly these fields, separated by spaces.
#[track_caller]
pub(crate) fn has_exactly(value: &Value, fields: &str) {
    let found: BTreeSet<&str> =
        value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect();
    assert_eq!(found, fields.split_whitespace().collect(), "{value}");
}

/// The state that a log gives, by `evolve` alone.
pub(crate) fn folded(events: &[Value]) -> State {
    events.iter().fold(State::default(), |state, event| {
        let event: Event = serde_json::from_value(event.clone()).unwrap();
        state.evolve(event.seq, event.time, &event.cause, &event.parse().unwrap())
    })
}
