#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]
//! The judges judged: a run as it should be passes, and each thing that may go wrong is seen.

use serde_json::{Value, json};

use super::{Evidence, all};
use crate::{rest::Answer, streams::Message};

const RUN: &str = "run-1";

fn settings() -> Value {
    json!({"source": {"url": "file:///clip.mp4"}, "restart": {"policy": "on_failure", "limit": 5}})
}

/// A scenario `clip-1`, created and started by commands, run by runner `r` to its end.
struct World {
    evidence: Evidence,
}

impl World {
    fn empty() -> Self {
        let evidence = Evidence {
            inbox: Vec::new(),
            events: Vec::new(),
            detections: Vec::new(),
            answers: Vec::new(),
            stored: Vec::new(),
            reads: Vec::new(),
            shown: Vec::new(),
            last: Vec::new(),
            blows: Vec::new(),
            spans: Vec::new(),
            processes: Vec::new(),
            held: Default::default(),
            fallen: Vec::new(),
        };
        Self { evidence }
    }

    /// As it should be.
    fn good() -> Self {
        let mut world = Self::empty();
        world.command("create", "scenario_created", json!({"settings": settings(), "generation": 1}));
        world.command("start", "start_requested", json!({"run": RUN, "attempt": 1, "settings": settings()}));
        world.fact(2, "claimed", "runner_assigned", json!({"run": RUN, "attempt": 1, "runner": "r"}));
        world.fact(3, "streaming", "activated", json!({"run": RUN}));
        world.fact(3, "ended", "source_ended", json!({"run": RUN, "frames": 60, "of": 60, "error": null}));
        world.fact(3, "stopping", "shutdown_acknowledged", json!({"run": RUN, "gone": false}));
        let ended = json!({"run": RUN, "reason": "completed", "frames": 60, "error": null});
        world.fact(3, "released", "deactivated", ended);
        for frame in 0..60 {
            world.store(frame, 3);
        }
        world
    }

    fn next(messages: &[Message]) -> u64 {
        messages.last().map_or(1, |last| last.seq + 1)
    }

    fn push(messages: &mut Vec<Message>, subject: String, body: Value, fence: Option<u64>) {
        let seq = Self::next(messages);
        messages.push(Message { seq, at: i64::try_from(seq).unwrap() * 100, subject, body, fence });
    }

    fn event(&mut self, input: Option<u64>, cause: &str, kind: &str, data: Value) {
        let body = json!({"version": 1, "cause": {"input": input, "id": cause}, "actor": "a", "data": data});
        Self::push(&mut self.evidence.events, format!("kadr.evt.clip-1.{kind}"), body, None);
    }

    fn command(&mut self, command: &str, kind: &str, data: Value) {
        let input = Self::next(&self.evidence.inbox);
        let key = format!("key-{input}");
        let body = json!({"id": key, "actor": "a", "command": {"command": command}});
        Self::push(&mut self.evidence.inbox, format!("kadr.in.clip-1.cmd.{key}"), body, None);
        self.event(Some(input), &key, kind, data);
    }

    fn fact(&mut self, fence: u64, name: &str, kind: &str, data: Value) {
        let input = Self::next(&self.evidence.inbox);
        let id = format!("{fence}-{name}-0-r");
        Self::push(&mut self.evidence.inbox, format!("kadr.in.clip-1.run.{RUN}.{id}"), json!({"id": id}), None);
        self.event(Some(input), &id, kind, data);
    }

    fn store(&mut self, frame: u64, fence: u64) {
        let body = json!({"run": RUN, "frame": frame});
        Self::push(&mut self.evidence.detections, "kadr.det.clip-1".to_owned(), body, Some(fence));
    }

    /// The checks that do not hold.
    fn broken(&self) -> Vec<String> {
        let mut broken: Vec<_> =
            all(&self.evidence).violations.into_iter().map(|v| format!("{}: {}", v.check, v.text)).collect();
        broken.dedup();
        broken
    }

    #[track_caller]
    fn is_seen(&self, check: &str) {
        let broken = self.broken();
        assert!(broken.iter().any(|text| text.contains(check)), "{check:?} is not in {broken:#?}");
    }
}

#[test]
fn a_run_as_it_should_be_passes() {
    assert_eq!(World::good().broken(), Vec::<String>::new());
}

#[test]
fn a_fact_under_an_old_fence_is_seen() {
    let mut world = World::good();
    let fact = world.evidence.events.get_mut(4).unwrap();
    *fact.body.pointer_mut("/cause/id").unwrap() = json!("2-ended-0-r");
    world.is_seen("fact ended of r under fence 2");
    *world.evidence.events.get_mut(4).unwrap().body.pointer_mut("/cause/id").unwrap() = json!("3-ended-0-other");
    world.is_seen("fact ended of other under fence 3");
}

#[test]
fn a_transition_that_is_not_in_the_table_is_seen() {
    let mut world = World::good();
    world.fact(3, "streaming", "activated", json!({"run": RUN}));
    world.is_seen("activated in state inactive");
}

#[test]
fn a_command_without_an_effect_or_with_two_is_seen() {
    let mut world = World::good();
    world.command("stop", "command_refused", json!({"command": "stop", "reason": "not_running"}));
    assert_eq!(world.broken(), Vec::<String>::new());
    let last = world.evidence.events.pop().unwrap();
    world.is_seen("has 0 effects");
    world.evidence.events.push(last.clone());
    world.evidence.events.push(Message { seq: last.seq + 1, ..last });
    world.is_seen("has 2 effects");
}

#[test]
fn commands_out_of_order_are_seen() {
    let mut world = World::good();
    for _ in 0..2 {
        world.command("stop", "command_refused", json!({"command": "stop", "reason": "not_running"}));
    }
    let count = world.evidence.events.len();
    let (one, other) = (world.evidence.events[count - 2].body.clone(), world.evidence.events[count - 1].body.clone());
    world.evidence.events[count - 2].body = other;
    world.evidence.events[count - 1].body = one;
    world.is_seen("after one caused by");
}

#[test]
fn a_wrong_refusal_is_seen() {
    let mut world = World::good();
    world.command("start", "command_refused", json!({"command": "start", "reason": "already_running"}));
    world.is_seen("start refused as already_running in state inactive");
}

#[test]
fn another_attempt_than_the_policy_allows_is_seen() {
    let mut world = World::good();
    world.evidence.events.truncate(4);
    world.event(None, "runner_gone", "attempt_failed", json!({"run": RUN, "attempt": 1, "failures": 6, "pause_ms": 1}));
    world.is_seen("failure 6 after 0");
    world.is_seen("by the policy on_failure up to 5");
}

#[test]
fn missing_double_and_fenced_results_are_seen() {
    let mut world = World::good();
    world.evidence.detections.pop();
    world.is_seen("59 results are stored");
    let mut world = World::good();
    world.store(59, 3);
    world.is_seen("frame Some(59) at place 60");
    let mut world = World::good();
    world.evidence.detections.last_mut().unwrap().fence = Some(2);
    world.is_seen("fence 2 after 3");
}

#[test]
fn an_answer_against_the_log_is_seen() {
    let answer = |status, body| Answer {
        key: "key-2".to_owned(),
        scenario: "clip-1".to_owned(),
        ask: "start",
        api: 0,
        at: 0,
        until: 1,
        status,
        body,
    };
    let mut world = World::good();
    world.evidence.answers.push(answer(202, json!({"accepted_at_seq": 2})));
    assert_eq!(world.broken(), Vec::<String>::new());
    world.evidence.answers.push(answer(202, json!({"accepted_at_seq": 3})));
    world.is_seen("2, says the log");
    world.is_seen("a key gets one answer");
    let mut world = World::good();
    world.evidence.answers.push(answer(409, json!({"type": "urn:kadr:problem:already_running"})));
    world.is_seen("the log says otherwise");
}

#[test]
fn a_projection_that_differs_is_seen() {
    let shown = |state: &str| {
        let ended = json!({"reason": "completed", "error": null});
        json!({"state": state, "run": RUN, "attempt": 1, "settings": settings(), "ended": ended, "seq": 7})
    };
    let mut world = World::good();
    world.evidence.shown.push([("clip-1".to_owned(), shown("inactive"))].into());
    assert_eq!(world.broken(), Vec::<String>::new());
    world.evidence.shown.push([("clip-1".to_owned(), shown("active"))].into());
    world.is_seen("api-1, clip-1: state is shown as active, not inactive");
}
