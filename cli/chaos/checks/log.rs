//! The log: it folds, no transition is one that the table forbids, and every stored command has exactly one effect, in the
//! order of the inbox.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Evidence, Findings, SCENARIO,
    table::{Folded, State},
};
use crate::{probe::SCENARIO as PROBE, streams::Message};

/// Where the inbox has `cmd` or `run`, and the command's key.
const WHAT: usize = 3;
const KEY: usize = 4;
/// Violations of one scenario that are told: those behind the first follow from it.
const TOLD: usize = 3;

/// Checks, and gives each scenario as its log has it at the end.
pub fn check(evidence: &Evidence, findings: &mut Findings) -> BTreeMap<String, Folded> {
    let mut folded: BTreeMap<String, Folded> = BTreeMap::new();
    let mut wrongs: BTreeMap<String, usize> = BTreeMap::new();
    let mut seen_states: BTreeMap<&str, usize> = BTreeMap::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut runs: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = 1;
    for event in &evidence.events {
        if event.seq != next {
            findings.violated("the log has no holes", format!("sequence {} follows {}", event.seq, next - 1), &[event]);
        }
        next = event.seq + 1;
        let scenario = event.token(SCENARIO);
        let state = folded.entry(scenario.to_owned()).or_default();
        let before = state.clone();
        for wrong in state.apply(event) {
            let told = wrongs.entry(scenario.to_owned()).or_default();
            *told += 1;
            if *told <= TOLD {
                let text = format!("{scenario}, event {}: {wrong} (before: {before:?})", event.seq);
                findings.violated("no transition that the table forbids, and fencing", text, &[event]);
            }
        }
        *seen_states.entry(state.state.name()).or_default() += 1;
        *kinds.entry(event.token(WHAT)).or_default() += 1;
        if event.token(WHAT) == "start_requested" && before.state == State::Inactive {
            let run = event.text("/data/run");
            if let Some(other) = runs.insert(run, scenario) {
                findings.violated("a run has an id of its own", format!("{run} in {other} and {scenario}"), &[event]);
            }
        }
    }
    effects(evidence, findings);
    findings.figure("events", evidence.events.len());
    findings.figure("events_by_type", kinds);
    findings.figure("states_after_events", seen_states);
    findings.figure("runs", runs.len());
    folded
}

fn effects(evidence: &Evidence, findings: &mut Findings) {
    let mut by_input: BTreeMap<u64, Vec<&Message>> = BTreeMap::new();
    for event in &evidence.events {
        if let Some(input) = event.number("/cause/input") {
            by_input.entry(input).or_default().push(event);
        }
    }
    let mut inputs = BTreeSet::new();
    let (mut commands, mut facts, mut void, mut probes) = (0, 0, 0, 0);
    for input in &evidence.inbox {
        inputs.insert(input.seq);
        let effects = by_input.get(&input.seq).map(Vec::as_slice).unwrap_or_default();
        let command = input.token(WHAT) == "cmd";
        if input.token(SCENARIO).starts_with(PROBE) {
            probes += 1;
        } else if command {
            commands += 1;
        } else {
            facts += 1;
            void += usize::from(effects.is_empty());
        }
        let shown: Vec<_> = std::iter::once(input).chain(effects.iter().copied()).collect();
        if effects.len() > 1 || (command && effects.is_empty()) {
            let text = format!("{} (input {}) has {} effects", input.subject, input.seq, effects.len());
            findings.violated("every accepted command has exactly one effect", text, &shown);
        }
        for effect in effects {
            let id = if command { input.token(KEY) } else { input.text("/id") };
            if effect.text("/cause/id") != id || effect.token(SCENARIO) != input.token(SCENARIO) {
                let text = format!("event {} names input {} but not its id or its scenario", effect.seq, input.seq);
                findings.violated("every effect is its command's", text, &shown);
            }
            if command && !answers(input.text("/command/command"), effect) {
                let text = format!("{} is no answer to {}", effect.token(WHAT), input.text("/command/command"));
                findings.violated("every effect is its command's", text, &shown);
            }
        }
    }
    for (input, events) in &by_input {
        if !inputs.contains(input) {
            findings.violated("every cause is in the inbox", format!("input {input} is not there"), events);
        }
    }
    findings.figure("commands", commands);
    findings.figure("probes", probes);
    findings.figure("facts", facts);
    findings.figure("void_facts", void);
}

/// Whether an event can be what a command led to.
fn answers(command: &str, event: &Message) -> bool {
    let done = match command {
        "create" => "scenario_created",
        "reconfigure" => "scenario_reconfigured",
        "start" => "start_requested",
        "stop" => "stop_requested",
        "delete" => "scenario_deleted",
        _ => return false,
    };
    event.token(WHAT) == done || (event.token(WHAT) == "command_refused" && event.text("/data/command") == command)
}
