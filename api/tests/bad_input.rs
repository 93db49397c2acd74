//! Whatever is wrong with a request, it gets a problem of a documented type, and nothing is stored.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::{Answer, World};
use kadr_shared::subjects;
use reqwest::Method;
use serde_json::json;

/// Messages in the inbox: none must come from a bad request.
async fn asked(world: &World) -> u64 {
    world.nats.jetstream.get_stream(subjects::INBOX).await.unwrap().cached_info().state.messages
}

#[tokio::test]
async fn bad_bodies_are_named_and_stored_nowhere() {
    let world = World::without_orchestrator().await;
    let api = &world.api;
    let create = "/v1/scenarios?id=gate";
    let source = json!({"url": "/data/a.mp4"});
    for (body, name, words) in [
        (json!({"source": source, "modle": "yolov8n"}), "invalid_body", "`modle`"),
        (json!({"source": {"url": "/a", "password": "hunter2"}}), "invalid_body", "for cameras"),
        (json!({"source": {"url": "/a", "username": "me"}}), "invalid_body", "for cameras"),
        (json!({"source": {"url": "rtsp://me:hunter2@cam/1"}}), "invalid_body", "source.username"),
        // This API was given no key.
        (
            json!({"source": {"url": "rtsp://cam/1", "username": "me", "password": "hunter2"}}),
            "invalid_body",
            "secret_key_file",
        ),
        (json!({"source": "rtsp://me:hunter2@cam/1"}), "invalid_body", "expected"),
        (json!({"source": {"url": "a.mp4"}}), "invalid_body", "absolute"),
        (json!({"source": source, "analysis": {"confidence": 2}}), "invalid_body", "between 0 and 1"),
        (json!({"source": source, "analysis": {"input_size": "640x360"}}), "invalid_body", "multiples of 32"),
        (json!({}), "invalid_body", "`source`"),
        (json!([source]), "invalid_body", "object"),
        (json!(null), "invalid_body", "expected"),
        (json!({"source": source, "model": "yolov9"}), "unknown_model", "yolov8n, yolov8s"),
        (json!({"source": source, "analysis": {"classes": ["kar"]}}), "unknown_class", "car"),
    ] {
        let detail = api.post(create, body.clone()).await.problem(422, name);
        assert!(detail.contains(words), "{body}: {detail}");
        assert!(!detail.contains("hunter2"), "{detail}");
    }
    let commands = "/v1/scenarios/gate/commands";
    for body in [json!({"command": "jump"}), json!({"command": "start", "force": true}), json!({})] {
        api.post(commands, body).await.problem(422, "invalid_body");
    }
    let raw = |body: &'static str, kind: Option<&'static str>| {
        let request = api.request(Method::POST, commands).body(body);
        Answer::of(if let Some(kind) = kind { request.header("Content-Type", kind) } else { request })
    };
    raw("{", Some("application/json")).await.problem(400, "malformed_json");
    raw("", Some("application/json")).await.problem(400, "malformed_json");
    raw("{}", Some("text/plain")).await.problem(415, "unsupported_media_type");
    raw("{}", None).await.problem(415, "unsupported_media_type");
    assert_eq!(asked(&world).await, 0);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let world = World::without_orchestrator().await;
    let body = json!({"source": {"url": format!("/{}", "a".repeat(1 << 20))}});
    world.api.post("/v1/scenarios?id=gate", body).await.problem(413, "body_too_large");
}

#[tokio::test]
async fn bad_names_are_refused_shortly() {
    let world = World::without_orchestrator().await;
    let api = &world.api;
    let long = "a".repeat(10_000);
    for bad in ["a.b", "a%20b", "-a", "Gate", "a%3E", "%D0%BA%D0%B0%D0%B4%D1%80", long.as_str()] {
        let body = json!({"source": {"url": "/a"}});
        let command = json!({"command": "start"});
        for answer in [
            api.get(&format!("/v1/scenarios/{bad}")).await,
            api.delete(&format!("/v1/scenarios/{bad}")).await,
            api.get(&format!("/v1/scenarios/{bad}/events")).await,
            api.post(&format!("/v1/scenarios/{bad}/commands"), command).await,
            api.post(&format!("/v1/scenarios?id={bad}"), body).await,
            api.get(&format!("/v1/scenarios?after={bad}")).await,
        ] {
            let detail = answer.problem(400, "bad_request");
            assert!(detail.len() < 160 && !detail.contains(bad) && !detail.contains("parse"), "{detail}");
        }
    }
    for key in ["", "a b", "a.b", &"k".repeat(129)] {
        api.command("gate", key, "start").await.problem(400, "bad_request");
    }
    for query in ["limit=0", "limit=1001", "limit=many", "limit=-1"] {
        api.get(&format!("/v1/scenarios?{query}")).await.problem(400, "bad_request");
    }
    assert_eq!(asked(&world).await, 0);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let world = World::without_orchestrator().await;
    let api = &world.api;
    for path in ["/v1", "/v1/", "/v1/nothing", "/v2/scenarios", "/health", "/health/x", "/v1/scenarios/a/b", "/x"] {
        api.get(path).await.problem(404, "no_such_route");
    }
    for (method, path) in [
        (Method::PUT, "/v1/scenarios"),
        (Method::PATCH, "/v1/scenarios/gate"),
        (Method::GET, "/v1/scenarios/gate/commands"),
        (Method::POST, "/health/live"),
        (Method::POST, "/"),
    ] {
        Answer::of(api.request(method, path)).await.problem(405, "method_not_allowed");
    }
}
