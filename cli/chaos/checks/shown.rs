//! The projections equal the log: what every api shows of every scenario is what its log folds to, at the end and at any
//! time before, up to the sequence that the answer names.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Evidence, Findings, SCENARIO, table::Folded};

const CHECK: &str = "the projections equal the log";
const READ: &str = "one reads one's own write";

pub fn check(evidence: &Evidence, folded: &BTreeMap<String, Folded>, findings: &mut Findings) {
    let end = evidence.events.last().map_or(0, |event| event.seq);
    let mut compared = 0;
    for (api, shown) in evidence.shown.iter().enumerate() {
        for (scenario, wanted) in folded {
            compared += 1;
            let found = shown.get(scenario).unwrap_or(&Value::Null);
            for difference in differences(found, wanted, end) {
                findings.violated(CHECK, format!("api-{api}, {scenario}: {difference}"), &[]);
            }
        }
    }
    findings.figure("projected", compared);
    reads(evidence, findings);
}

/// What was read in the middle of everything, against the log up to the sequence that each answer names.
fn reads(evidence: &Evidence, findings: &mut Findings) {
    let mut story: BTreeMap<&str, Vec<Folded>> = BTreeMap::new();
    for event in &evidence.events {
        let states = story.entry(event.token(SCENARIO)).or_default();
        let mut state = states.last().cloned().unwrap_or_default();
        // What is wrong with it is told elsewhere.
        let _ = state.apply(event);
        states.push(state);
    }
    let mut compared = 0;
    for read in evidence.reads.iter().filter(|read| read.status == 200) {
        compared += 1;
        let seq = read.body.get("seq").and_then(Value::as_u64).unwrap_or(0);
        if read.at_least.is_some_and(|at_least| seq < at_least) {
            findings.violated(READ, format!("asked for {:?}, has seen {seq}: {read:?}", read.at_least), &[]);
        }
        let then = story.get(read.scenario.as_str()).and_then(|states| states.iter().rfind(|state| state.seq <= seq));
        let differences = differences(&read.body, &then.cloned().unwrap_or_default(), seq);
        if !differences.is_empty() {
            let text = format!("api-{}, {}, at {seq}: {}", read.api, read.scenario, differences.join("; "));
            findings.violated(CHECK, text, &[]);
        }
    }
    findings.figure("reads", compared);
}

fn differences(found: &Value, wanted: &Folded, end: u64) -> Vec<String> {
    if found.is_null() || !wanted.exists {
        let agrees = found.is_null() && !wanted.exists;
        return if agrees { Vec::new() } else { vec![format!("shown: {found}; exists: {}", wanted.exists)] };
    }
    let text = |pointer: &str| found.pointer(pointer).and_then(Value::as_str);
    let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_u64);
    let mut differences = Vec::new();
    let mut differ = |what: &str, found: String, wanted: String| {
        if found != wanted {
            differences.push(format!("{what} is shown as {found}, not {wanted}"));
        }
    };
    differ("state", text("/state").unwrap_or_default().to_owned(), wanted.state.name().to_owned());
    differ("run", format!("{:?}", text("/run")), format!("{:?}", wanted.run.as_deref()));
    differ("attempt", format!("{:?}", number("/attempt")), format!("{:?}", Some(wanted.attempt)));
    differ("settings", sorted(found.get("settings")), sorted(Some(&wanted.settings)));
    let ended = wanted.ended.as_ref();
    differ("ended.reason", format!("{:?}", text("/ended/reason")), format!("{:?}", ended.map(|e| e.reason.as_str())));
    differ(
        "ended.error",
        format!("{:?}", text("/ended/error")),
        format!("{:?}", ended.and_then(|e| e.error.as_deref())),
    );
    // When nothing happens any more, every answer has seen the whole log.
    differ("seq", format!("{:?}", number("/seq")), format!("{:?}", Some(end)));
    differences
}

/// The same text for the same JSON: `serde_json` keeps its maps in order.
fn sorted(value: Option<&Value>) -> String {
    fn by_name(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let sorted: BTreeMap<_, _> = map.iter().map(|(name, value)| (name.clone(), by_name(value))).collect();
                Value::Object(sorted.into_iter().collect())
            }
            Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
            other => other.clone(),
        }
    }
    value.map(by_name).unwrap_or(Value::Null).to_string()
}
