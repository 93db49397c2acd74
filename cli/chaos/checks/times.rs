//! How long a stop takes, and how long it takes to go on after a kill: by the server's clock, counted only while a
//! quorum and an orchestrator lived (`spans`), and raw beside it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Evidence, Findings, SCENARIO,
    table::{Folded, State},
};
use crate::{
    killer::Blown,
    process::Kind,
    spans::{Cause, Span, counted, percentile, total, without},
    streams::Message,
    world::CAPACITY,
};

const STOPS: &str = "no stop takes longer than 5 s";
const RECOVERIES: &str = "recovery after a kill takes 5 s at most (p99)";
/// What also depends on how much of the machine there was.
pub const LIMITS: [&str; 2] = [STOPS, RECOVERIES];

const LIMIT_MS: i64 = 5_000;
/// A pause longer than a first attempt's is the restart policy's will, not kadr's slowness.
const FIRST_PAUSE_MS: u64 = 600;
/// A command that waited when the orchestrator was killed, or came soon after.
const SOON_MS: i64 = 1_000;

/// One measured wait.
#[derive(Debug, Clone, Serialize)]
struct Wait {
    what: String,
    from: i64,
    until: i64,
    raw_ms: i64,
    counted_ms: i64,
    /// Why it is not counted at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<&'static str>,
}

impl Wait {
    fn new(what: String, from: i64, until: i64, spans: &[Span]) -> Self {
        Self { what, from, until, raw_ms: until - from, counted_ms: counted(from, until, spans), left_out: None }
    }
}

pub fn check(evidence: &Evidence, findings: &mut Findings) {
    let spans = &evidence.spans;
    // Nobody needs frames to stop, or to decide.
    let deciding = without(spans, &[Cause::Frames, Cause::Worker]);
    let stops = stops(evidence, &deciding, findings);
    for late in stops.iter().filter(|wait| wait.counted_ms > LIMIT_MS) {
        let text = format!("{}: {} ms counted, {} ms in all", late.what, late.counted_ms, late.raw_ms);
        findings.violated(STOPS, text, &[]);
    }
    findings.figure("stops", summary(&stops));
    let story = Story::new(&evidence.events);
    let mut recoveries = Vec::new();
    for blow in evidence.blows.iter().filter(|blow| blow.what == "kill" && blow.skipped.is_none()) {
        match blow.kind {
            Some(Kind::Runner) => recoveries.extend(of_runner(evidence, &story, blow)),
            Some(Kind::Orchestrator) if blow.leader => recoveries.extend(of_orchestrator(evidence, blow, &deciding)),
            Some(Kind::Inference) => recoveries.extend(of_inference(evidence, &story, blow)),
            _ => {}
        }
    }
    for kind in ["runner", "orchestrator", "inference"] {
        let of_kind: Vec<_> = recoveries.iter().filter(|wait| wait.what.starts_with(kind)).cloned().collect();
        findings.figure(&format!("recovery_{kind}"), summary(&of_kind));
    }
    let mut times: Vec<_> = recoveries.iter().filter(|w| w.left_out.is_none()).map(|w| w.counted_ms).collect();
    times.sort_unstable();
    if percentile(&times, 99) > LIMIT_MS {
        let late: Vec<_> = recoveries.iter().filter(|w| w.left_out.is_none() && w.counted_ms > LIMIT_MS).collect();
        let text = format!("p99 of {} is {} ms: {}", times.len(), percentile(&times, 99), json!(late));
        findings.violated(RECOVERIES, text, &[]);
    }
    findings.figure("recovery", summary(&recoveries));
    let causes = [
        ("quorum", Cause::Quorum),
        ("writes", Cause::Writes),
        ("frames", Cause::Frames),
        ("orchestrator", Cause::Orchestrator),
        ("worker", Cause::Worker),
        ("starved", Cause::Starved),
    ];
    for (name, cause) in causes {
        findings.figure(&format!("without_{name}_ms"), total(spans, cause));
    }
    findings.figure("spans", spans);
}

fn summary(waits: &[Wait]) -> Value {
    let mut raw: Vec<_> = waits.iter().map(|w| w.raw_ms).collect();
    let mut counted: Vec<_> = waits.iter().filter(|w| w.left_out.is_none()).map(|w| w.counted_ms).collect();
    raw.sort_unstable();
    counted.sort_unstable();
    let figures = |sorted: &[i64]| json!({"n": sorted.len(), "p50": percentile(sorted, 50), "p99": percentile(sorted, 99), "max": percentile(sorted, 100)});
    let mut left_out: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in waits.iter().filter_map(|wait| wait.left_out) {
        *left_out.entry(reason).or_default() += 1;
    }
    json!({"counted_ms": figures(&counted), "raw_ms": figures(&raw), "left_out": left_out})
}

/// From each stop in the inbox to the end of its run.
fn stops(evidence: &Evidence, spans: &[Span], findings: &mut Findings) -> Vec<Wait> {
    let asked: BTreeMap<u64, &Message> = evidence.inbox.iter().map(|input| (input.seq, input)).collect();
    let mut waiting: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
    let mut stops = Vec::new();
    for event in &evidence.events {
        let run = event.text("/data/run");
        match event.token(3) {
            "stop_requested" => {
                let input = event.number("/cause/input").and_then(|seq| asked.get(&seq).copied());
                waiting.entry(run).or_default().extend(input);
            }
            "deactivated" => {
                for input in waiting.remove(run).unwrap_or_default() {
                    let what = format!("stop of {} (input {}, event {})", input.token(SCENARIO), input.seq, event.seq);
                    stops.push(Wait::new(what, input.at, event.at, spans));
                }
            }
            _ => {}
        }
    }
    for input in waiting.values().flatten() {
        findings.violated("every stop takes place", format!("{} never took place", input.subject), &[input]);
    }
    stops
}

/// One event of a scenario, the state after it, and who held it.
struct Chapter<'a> {
    event: &'a Message,
    state: State,
    held: Option<(u64, String)>,
}

/// What each scenario was at any time.
struct Story<'a> {
    of: BTreeMap<&'a str, Vec<Chapter<'a>>>,
    /// Scenarios that hold or wait for a slot, after each event.
    demand: Vec<(i64, usize)>,
}

impl<'a> Story<'a> {
    fn new(events: &'a [Message]) -> Self {
        let mut folded: BTreeMap<&str, Folded> = BTreeMap::new();
        let mut of: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        let (mut demand, mut wanting) = (Vec::new(), 0_usize);
        for event in events {
            let state = folded.entry(event.token(SCENARIO)).or_default();
            let wanted = wants_slot(state);
            // What is wrong with it is told elsewhere.
            let _ = state.apply(event);
            wanting = (wanting + usize::from(wants_slot(state))).saturating_sub(usize::from(wanted));
            demand.push((event.at, wanting));
            of.entry(event.token(SCENARIO)).or_default().push(Chapter {
                event,
                state: state.state,
                held: state.held.clone(),
            });
        }
        Self { of, demand }
    }

    /// Active scenarios at a moment: the place of the last event before it, and who held it.
    fn active_at(&self, at: i64) -> impl Iterator<Item = (&'a str, usize, &(u64, String))> {
        self.of.iter().filter_map(move |(scenario, story)| {
            let place = story.iter().rposition(|chapter| chapter.event.at <= at)?;
            let Chapter { state, held, .. } = story.get(place)?;
            (*state == State::Active).then_some((*scenario, place, held.as_ref()?))
        })
    }
}

fn wants_slot(state: &Folded) -> bool {
    state.held.is_some() || state.state == State::InitStartup
}

/// Scenarios that a killed runner had active, until each is active again with another one.
fn of_runner(evidence: &Evidence, story: &Story<'_>, blow: &Blown) -> Vec<Wait> {
    let Some(process) = evidence.processes.iter().find(|process| process.name == blow.target) else {
        return Vec::new();
    };
    let log = process.logs.get(blow.life).map(String::as_str).unwrap_or_default();
    let mut waits = Vec::new();
    for (scenario, place, (fence, runner)) in story.active_at(blow.at) {
        if !log.contains(runner.as_str()) || !log.contains(&format!("runner={runner}")) {
            continue;
        }
        let later = story.of.get(scenario).map(|s| s.get(place + 1..).unwrap_or_default()).unwrap_or_default();
        let mut pause = 0;
        let mut active = None;
        for Chapter { event, .. } in later {
            match event.token(3) {
                "attempt_failed" => pause = event.number("/data/pause_ms").unwrap_or(0).max(pause),
                "activated" | "source_resumed" => active = Some(event.at),
                "stop_requested" | "run_failed" | "source_ended" => break,
                _ => continue,
            }
            if active.is_some() {
                break;
            }
        }
        // A stored result under another fence says the same, maybe earlier.
        let stored = evidence.detections.iter().find(|message| {
            message.at > blow.at && message.token(SCENARIO) == scenario && message.fence.is_some_and(|f| f > *fence)
        });
        let Some(until) = active.map(|at| stored.map_or(at, |message| message.at.min(at))) else { continue };
        let mut wait = Wait::new(format!("runner {} of {scenario}", blow.target), blow.at, until, &evidence.spans);
        if pause > FIRST_PAUSE_MS {
            wait.left_out = Some("by the restart policy");
        } else if no_slot(evidence, story, blow.at, until) {
            wait.left_out = Some("no free slot");
        }
        waits.push(wait);
    }
    waits
}

/// Whether at some time more scenarios wanted a slot than living runners had.
fn no_slot(evidence: &Evidence, story: &Story<'_>, from: i64, until: i64) -> bool {
    let slots = |at: i64| {
        let runners = evidence.processes.iter().filter(|process| process.kind == Kind::Runner);
        runners.filter(|process| process.lives.iter().any(|life| life.awake_at(at))).count() * CAPACITY
    };
    story.demand.iter().filter(|(at, _)| *at >= from && *at <= until).any(|(at, wanting)| *wanting > slots(*at))
}

/// The first command that was decided after the leader's end, if one waited or came soon.
fn of_orchestrator(evidence: &Evidence, blow: &Blown, spans: &[Span]) -> Option<Wait> {
    let inputs: BTreeMap<u64, &Message> = evidence.inbox.iter().map(|input| (input.seq, input)).collect();
    let event = evidence.events.iter().find(|event| {
        let input = event.number("/cause/input").and_then(|seq| inputs.get(&seq));
        event.at > blow.at && input.is_some_and(|input| input.token(3) == "cmd")
    })?;
    let input = inputs.get(&event.number("/cause/input")?)?;
    (input.at < blow.at + SOON_MS).then(|| Wait::new(format!("orchestrator {}", blow.target), blow.at, event.at, spans))
}

/// Scenarios whose results were being stored when a worker was killed, until the next result of each.
fn of_inference(evidence: &Evidence, story: &Story<'_>, blow: &Blown) -> Vec<Wait> {
    let mut waits = Vec::new();
    for (scenario, place, (fence, _)) in story.active_at(blow.at) {
        let later = story.of.get(scenario).and_then(|s| s.get(place + 1)).map_or(i64::MAX, |chapter| chapter.event.at);
        let next = evidence.detections.iter().find(|message| {
            message.at > blow.at && message.token(SCENARIO) == scenario && message.fence == Some(*fence)
        });
        // What was stopped or lost its runner first is another story.
        let Some(next) = next.filter(|message| message.at <= later) else { continue };
        let what = format!("inference {} of {scenario}", blow.target);
        waits.push(Wait::new(what, blow.at, next.at, &evidence.spans));
    }
    waits
}
