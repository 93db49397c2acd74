//! The written shape of each type of event, with its version: the log is kept for ever, so a shape that changes needs the
//! next version and a step in `domain/upcast.rs`, and then a line here.
#![allow(clippy::unwrap_used, reason = "a test's helpers: what fails here fails the test")]

use kadr_shared::domain::{Cause, EventData};
use serde_json::{Value, json};

const RUN: &str = "00000000-0000-0000-0000-000000000001";

fn settings() -> Value {
    json!({
        "source": {"url": "file:///data/a.mp4"}, "model": "yolov8n",
        "analysis": {"input_size": "640x384", "confidence": 0.25, "iou": 0.7, "class_agnostic": false, "classes": ["car"]},
        "outputs": {"video": true}, "restart": {"policy": "on_failure", "limit": 5}
    })
}

fn shapes() -> Vec<(&'static str, u32, Value)> {
    vec![
        ("scenario_created", 2, json!({"settings": settings(), "generation": 1})),
        ("scenario_reconfigured", 2, json!({"settings": settings()})),
        ("scenario_deleted", 1, json!({})),
        ("command_refused", 1, json!({"command": "start", "reason": "already_running"})),
        ("start_requested", 2, json!({"run": RUN, "attempt": 1, "settings": settings()})),
        ("runner_assigned", 1, json!({"run": RUN, "attempt": 1, "runner": "runner-1"})),
        ("activated", 1, json!({"run": RUN})),
        ("source_interrupted", 1, json!({"run": RUN, "kind": "inference", "error": "e"})),
        ("source_resumed", 1, json!({"run": RUN})),
        ("source_ended", 1, json!({"run": RUN, "frames": 3, "of": 4, "error": null})),
        ("attempt_failed", 2, json!({"run": RUN, "attempt": 1, "error": "e", "failures": 1, "pause_ms": 500})),
        ("runner_left", 1, json!({"run": RUN, "attempt": 1})),
        ("run_failed", 1, json!({"run": RUN, "error": "e"})),
        ("stop_requested", 1, json!({"run": RUN})),
        ("shutdown_acknowledged", 1, json!({"run": RUN, "gone": false})),
        ("deactivated", 1, json!({"run": RUN, "reason": "completed", "frames": 3, "error": null})),
    ]
}

#[test]
fn each_type_is_written_in_the_shape_of_its_version() {
    for (kind, version, data) in shapes() {
        let tagged = json!({"type": kind, "data": data});
        let parsed: EventData = serde_json::from_value(tagged).unwrap();
        let body = parsed.body(Cause { input: None, id: "k".into() }, "orchestrator".into()).unwrap();
        assert_eq!((body.version, &body.data), (version, &data), "{kind}");
    }
}
