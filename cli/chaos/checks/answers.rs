//! What callers were told agrees with the log, and a key gets one answer however often and wherever it is used.

use std::collections::BTreeMap;

use super::{Evidence, Findings, SCENARIO};
use crate::{
    rest::{Answer, Meaning},
    streams::Message,
};

const CHECK: &str = "every answer agrees with the log";
const KEYS: &str = "a key gets one answer";

pub fn check(evidence: &Evidence, findings: &mut Findings) {
    // The event that answers a key.
    let mut by_key: BTreeMap<(&str, &str), &Message> = BTreeMap::new();
    for event in &evidence.events {
        by_key.entry((event.token(SCENARIO), event.text("/cause/id"))).or_insert(event);
    }
    let mut first: BTreeMap<(&str, &str), (&Answer, Meaning)> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in &evidence.answers {
        let key = (answer.scenario.as_str(), answer.key.as_str());
        let meaning = answer.meaning();
        let name = match &meaning {
            Meaning::Done(_) => "done",
            Meaning::Refused(_) => "refused",
            Meaning::KeyUsed => "key_used",
            Meaning::Unclear => "unclear",
            Meaning::Odd => "odd",
        };
        *counts.entry(name).or_default() += 1;
        let event = by_key.get(&key).copied();
        if let Some(text) = contradiction(answer, &meaning, event) {
            findings.violated(CHECK, format!("{text}: {answer:?}"), &event.into_iter().collect::<Vec<_>>());
        }
        if meaning == Meaning::Unclear {
            continue;
        }
        // The plan asks for something else under a used key only after a clear answer to the first.
        match first.get(&key) {
            None => {
                first.insert(key, (answer, meaning));
            }
            Some((before, was)) if before.ask == answer.ask && *was != meaning => {
                findings.violated(KEYS, format!("{was:?}, then {meaning:?}: {before:?}, {answer:?}"), &[]);
            }
            Some((before, _)) if before.ask != answer.ask && meaning != Meaning::KeyUsed => {
                findings.violated(KEYS, format!("used for two commands: {before:?}, {answer:?}"), &[]);
            }
            Some(_) => {}
        }
    }
    for (subject, seq) in &evidence.stored {
        if !evidence.inbox.iter().any(|input| input.seq == *seq && input.subject == *subject) {
            findings.violated(CHECK, format!("{subject} was stored as {seq} and is not there"), &[]);
        }
    }
    findings.figure("answers", counts);
}

/// What an answer says against the log.
fn contradiction(answer: &Answer, meaning: &Meaning, event: Option<&Message>) -> Option<String> {
    let kind = event.map(|event| event.token(3)).unwrap_or_default();
    match meaning {
        Meaning::Odd => Some("an answer that is not to be understood".to_owned()),
        // Another command of this key stands in the inbox, or this one would have been taken.
        Meaning::Unclear | Meaning::KeyUsed => None,
        Meaning::Done(seq) => match event {
            None => Some("done, says the answer; the log knows nothing of it".to_owned()),
            Some(_) if kind == "command_refused" => Some("done, says the answer; refused, says the log".to_owned()),
            Some(event) if seq.is_some_and(|seq| seq != event.seq) => {
                Some(format!("event {seq:?}, says the answer; {}, says the log", event.seq))
            }
            Some(_) => {
                let wanted = match answer.ask {
                    "create" => "scenario_created",
                    "reconfigure" => "scenario_reconfigured",
                    "start" => "start_requested",
                    "stop" => "stop_requested",
                    _ => "scenario_deleted",
                };
                (kind != wanted).then(|| format!("{} was answered by {kind}", answer.ask))
            }
        },
        Meaning::Refused(reason) => match event {
            Some(event) if kind == "command_refused" && event.text("/data/reason") == reason => None,
            Some(_) => Some(format!("refused as {reason}, says the answer; the log says otherwise")),
            None => Some(format!("refused as {reason}, says the answer; the log knows nothing of it")),
        },
    }
}
