//! Stored results: of every completed run one a frame, none missing, none double, in order; of any other run the first so
//! many. Nothing of a run that was deleted with its scenario, and nothing stored under a fence that was not held.

use std::collections::BTreeMap;

use super::{Evidence, Findings, SCENARIO};
use crate::{sources::frames, streams::Message};

const ORDER: &str = "stored results are in order, each frame once";
const WHOLE: &str = "every frame of a completed run has exactly one stored result";
const FENCE: &str = "nothing is stored by a runner that had lost the scenario";

/// A run as the log has it.
#[derive(Default)]
struct Run<'a> {
    scenario: &'a str,
    /// The last of the scenario's deletes comes after it: its results are gone.
    deleted: bool,
    completed: bool,
    frames: Option<u64>,
    /// The fence of each attempt, and the event that ended it.
    fences: Vec<u64>,
    error: bool,
}

pub fn check(evidence: &Evidence, findings: &mut Findings) {
    let runs = runs(&evidence.events);
    let mut stored: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
    for message in &evidence.detections {
        stored.entry(message.text("/run")).or_default().push(message);
    }
    for (run, messages) in &stored {
        let Some(known) = runs.get(run) else {
            findings.violated(ORDER, format!("results of run {run}, which the log does not know"), &messages[..1]);
            continue;
        };
        if known.deleted {
            let text = format!("{} results of run {run} are there, whose scenario was deleted", messages.len());
            findings.violated("a delete takes the results away", text, &messages[..1]);
        }
        let mut last_fence = 0;
        for (number, message) in messages.iter().enumerate() {
            if message.number("/frame") != Some(number as u64) || message.token(SCENARIO) != known.scenario {
                let text =
                    format!("{}, run {run}: frame {:?} at place {number}", known.scenario, message.number("/frame"));
                findings.violated(ORDER, text, &[message]);
                break;
            }
            let fence = message.fence.unwrap_or(0);
            if !known.fences.contains(&fence) || fence < last_fence {
                let text =
                    format!("{}, run {run}: fence {fence} after {last_fence}, of {:?}", known.scenario, known.fences);
                findings.violated(FENCE, text, &[message]);
                break;
            }
            last_fence = fence;
        }
    }
    let (mut whole, mut unknown) = (0, 0);
    for (run, known) in runs.iter().filter(|(_, run)| run.completed) {
        if known.deleted {
            unknown += 1;
            continue;
        }
        let found = stored.get(run).map_or(0, Vec::len) as u64;
        let clip = known.scenario.starts_with("clip-");
        let wanted = frames(known.scenario);
        if wanted.is_some_and(|wanted| wanted != found)
            || known.frames.is_some_and(|frames| frames != found)
            || known.error
        {
            let text = format!(
                "{}, run {run}: {found} results are stored, the log says {:?} (with an error: {}), the source has {wanted:?}",
                known.scenario, known.frames, known.error
            );
            findings.violated(WHOLE, text, &[]);
        }
        whole += usize::from(clip);
    }
    findings.figure("frames", evidence.detections.len());
    findings.figure("completed_clips", whole);
    findings.figure("completed_and_deleted", unknown);
    for scenario in &evidence.last {
        let last = evidence.events.iter().rev().find(|e| e.token(SCENARIO) == scenario && e.token(3) == "deactivated");
        if last.is_none_or(|event| event.text("/data/reason") != "completed") {
            let text = format!("{scenario} was started when nothing was broken any more, and did not complete");
            findings.violated("the system works again afterwards", text, &last.into_iter().collect::<Vec<_>>());
        }
    }
}

fn runs(events: &[Message]) -> BTreeMap<&str, Run<'_>> {
    let mut runs: BTreeMap<&str, Run<'_>> = BTreeMap::new();
    for event in events {
        let (scenario, kind) = (event.token(SCENARIO), event.token(3));
        if kind == "scenario_deleted" {
            runs.values_mut().filter(|run| run.scenario == scenario).for_each(|run| run.deleted = true);
            continue;
        }
        let id = event.text("/data/run");
        if id.is_empty() {
            continue;
        }
        let run = runs.entry(id).or_default();
        run.scenario = scenario;
        match kind {
            "runner_assigned" => run.fences.push(event.seq),
            "source_ended" => {
                run.frames = event.number("/data/frames");
                run.error = event.body.pointer("/data/error").is_some_and(|error| !error.is_null());
            }
            "deactivated" => run.completed = event.text("/data/reason") == "completed",
            _ => {}
        }
    }
    runs
}
