//! What must hold, checked from the streams after everything has come to rest. One promise a file.
//!
//! Nothing here calls the code that it checks: the state machine's table is written down a second time in `table`.

mod answers;
mod frames;
mod level;
mod log;
mod shown;
mod table;
#[cfg(test)]
mod tests;
pub mod times;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    killer::Blown,
    process::{Kind, Life},
    rest::{Answer, Read},
    spans::Span,
    streams::Message,
    watch::Held,
    world::Fallen,
};

/// All that the checks go by.
pub struct Evidence {
    pub inbox: Vec<Message>,
    pub events: Vec<Message>,
    pub detections: Vec<Message>,
    pub answers: Vec<Answer>,
    pub stored: Vec<(String, u64)>,
    pub reads: Vec<Read>,
    /// What each api shows of each scenario; null: it says that there is none.
    pub shown: Vec<BTreeMap<String, Value>>,
    /// Scenarios of clips that were started last, when nothing was broken any more.
    pub last: Vec<String>,
    pub blows: Vec<Blown>,
    pub spans: Vec<Span>,
    pub processes: Vec<Process>,
    pub held: BTreeMap<(String, usize), Vec<Held>>,
    pub fallen: Vec<Fallen>,
}

/// A process by its name, with all its lives.
pub struct Process {
    pub name: String,
    pub kind: Kind,
    pub lives: Vec<Life>,
    /// What each life wrote.
    pub logs: Vec<String>,
}

/// Something that should not be.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    pub check: &'static str,
    pub text: String,
    /// The messages that show it.
    pub evidence: Vec<Value>,
}

/// What was found, and the figures on the way.
#[derive(Default)]
pub struct Findings {
    pub violations: Vec<Violation>,
    pub figures: serde_json::Map<String, Value>,
}

impl Findings {
    pub fn violated(&mut self, check: &'static str, text: impl Into<String>, evidence: &[&Message]) {
        let evidence = evidence.iter().map(|message| shown(message)).collect();
        self.violations.push(Violation { check, text: text.into(), evidence });
    }

    pub fn figure(&mut self, name: &str, value: impl Serialize) {
        self.figures.insert(name.to_owned(), json!(value));
    }
}

fn shown(message: &Message) -> Value {
    json!({"seq": message.seq, "at": message.at, "subject": message.subject, "fence": message.fence, "body": message.body})
}

/// Where messages of the streams have a scenario's name.
const SCENARIO: usize = 2;

pub fn all(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let folded = log::check(evidence, &mut findings);
    answers::check(evidence, &mut findings);
    shown::check(evidence, &folded, &mut findings);
    frames::check(evidence, &mut findings);
    times::check(evidence, &mut findings);
    level::check(evidence, &mut findings);
    processes(evidence, &mut findings);
    findings
}

/// A service may fail to begin while NATS does not answer: its supervisor tries again. One that works must not end.
const BEGINNING_MS: i64 = 30_000;

fn processes(evidence: &Evidence, findings: &mut Findings) {
    let mut retried = 0;
    for fallen in &evidence.fallen {
        let age = fallen.life.until.unwrap_or(fallen.life.from) - fallen.life.from;
        if age < BEGINNING_MS && fallen.name.split('-').next() != Some(Kind::Nats.name()) {
            retried += 1;
        } else {
            let text = format!("{} ended by itself after {age} ms ({}): {}", fallen.name, fallen.status, fallen.said);
            findings.violated("no process ends by itself", text, &[]);
        }
    }
    findings.figure("began_in_vain", retried);
    for blow in evidence.blows.iter().filter(|blow| blow.what == "drain" && blow.skipped.is_none()) {
        if blow.drained.is_none() {
            let text = format!("{} was asked to end at {} and had to be killed", blow.target, blow.at);
            findings.violated("a process that is asked to end does so", text, &[]);
        }
    }
    for process in &evidence.processes {
        for log in &process.logs {
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                findings.violated("no process panics", format!("{}: {line}", process.name), &[]);
            }
        }
    }
}
