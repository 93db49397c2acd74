//! The projections equal the log: what every api shows of every scenario is what its log folds to.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Evidence, Findings, table::Folded};

const CHECK: &str = "the projections equal the log";

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
