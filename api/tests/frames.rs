//! `POST /v1/scenarios/{id}/frames`: what is taken, what is refused, and what the runner is handed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::{Answer, World, append, eventually_get, read_state};
use futures::StreamExt;
use kadr_shared::{
    domain::{Cause, EventData},
    id::ScenarioId,
    message::image::{CAPTURED_AT, ImageReply},
    nats::Nats,
    subjects,
};
use reqwest::Method;
use serde_json::json;

const JPEG: &[u8] = b"\xff\xd8\xff\xe0 as far as an API looks";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n as well";

fn gate() -> ScenarioId {
    "gate".parse().unwrap()
}

async fn send(world: &World, kind: &str, body: &[u8]) -> Answer {
    let request = world.api.request(Method::POST, "/v1/scenarios/gate/frames");
    Answer::of(request.header("Content-Type", kind).header(CAPTURED_AT, "2026-01-31T12:00:00.250Z").body(body.to_vec()))
        .await
}

/// Creates the scenario, starts it, and gives it to a runner.
async fn run(world: &World) {
    world.api.post("/v1/scenarios?id=gate", json!({"source": {"url": "push:"}})).await.json(201);
    assign(world).await;
}

async fn assign(world: &World) {
    world.api.post("/v1/scenarios/gate/commands", json!({"command": "start"})).await.json(202);
    let state = read_state(&world.nats, &gate()).await;
    let run = state.run.as_ref().unwrap().id;
    let data = EventData::RunnerAssigned { run, attempt: 1, runner: "r1".parse().unwrap() };
    let cause = Cause { input: None, id: "test".into() };
    append(&world.nats, &gate(), state, cause, "test", &data).await;
    eventually_get(&world.api, "/v1/scenarios/gate", |s| s["state"] == "in_startup_processing").await;
}

/// Answers what comes for the scenario with these, one after another.
async fn runner(nats: &Nats, answers: Vec<ImageReply>) -> tokio::task::JoinHandle<Vec<async_nats::Message>> {
    let mut images = nats.client.subscribe(subjects::pushed(&gate())).await.unwrap();
    nats.client.flush().await.unwrap();
    let client = nats.client.clone();
    tokio::spawn(async move {
        let mut seen = Vec::new();
        for answer in answers {
            let image = images.next().await.unwrap();
            let body = serde_json::to_vec(&answer).unwrap().into();
            client.publish(image.reply.clone().unwrap(), body).await.unwrap();
            seen.push(image);
        }
        seen
    })
}

#[tokio::test]
async fn an_image_is_handed_on_and_its_number_comes_back() {
    let (world, _orchestrator) = World::start().await;
    run(&world).await;
    let answers = vec![
        ImageReply::Taken { frame: 7 },
        ImageReply::Taken { frame: 8 },
        ImageReply::Unreadable { error: "the image is damaged".into() },
        ImageReply::Busy,
    ];
    let runner = runner(&world.nats, answers).await;
    assert_eq!(send(&world, "image/jpeg", JPEG).await.json(202), json!({"frame": 7}));
    assert_eq!(send(&world, "image/png", PNG).await.json(202), json!({"frame": 8}));
    assert!(send(&world, "image/png", PNG).await.problem(422, "invalid_body").contains("damaged"));
    assert!(send(&world, "image/png", PNG).await.problem(503, "unavailable").contains("faster"));
    let seen = runner.await.unwrap();
    assert_eq!((&seen[0].payload[..], &seen[1].payload[..]), (JPEG, PNG));
    assert_eq!(seen[0].headers.as_ref().unwrap().get(CAPTURED_AT).unwrap().as_str(), "2026-01-31T12:00:00.250Z");
}

#[tokio::test]
async fn what_is_no_image_or_too_large_is_refused() {
    let (world, _orchestrator) = World::start().await;
    run(&world).await;
    send(&world, "image/gif", JPEG).await.problem(415, "unsupported_media_type");
    send(&world, "application/json", b"{}").await.problem(415, "unsupported_media_type");
    assert!(send(&world, "image/png", JPEG).await.problem(422, "invalid_body").contains("no PNG"));
    assert!(send(&world, "image/jpeg", b"").await.problem(422, "invalid_body").contains("no JPEG"));
    let most = world.nats.client.server_info().max_payload;
    let large = [JPEG, &vec![0; most]].concat();
    assert!(send(&world, "image/jpeg", &large).await.problem(413, "body_too_large").contains("at most"));
    // As large as it may be: what is left of a message is enough for what is around it.
    let runner = runner(&world.nats, vec![ImageReply::Taken { frame: 0 }]).await;
    let largest = [JPEG, &vec![0; most - (4 << 10) - JPEG.len()]].concat();
    assert_eq!(send(&world, "image/jpeg", &largest).await.json(202), json!({"frame": 0}));
    runner.await.unwrap();
    let request = world.api.request(Method::POST, "/v1/scenarios/gate/frames").header("Content-Type", "image/jpeg");
    Answer::of(request.header(CAPTURED_AT, "yesterday").body(JPEG)).await.problem(400, "bad_request");
}

#[tokio::test]
async fn a_scenario_that_does_not_run_or_has_another_source_takes_none() {
    let (world, _orchestrator) = World::start().await;
    send(&world, "image/jpeg", JPEG).await.problem(404, "not_found");
    world.api.post("/v1/scenarios?id=gate", json!({"source": {"url": "push:"}})).await.json(201);
    send(&world, "image/jpeg", JPEG).await.problem(409, "not_running");
    assign(&world).await;
    assert!(send(&world, "image/jpeg", JPEG).await.problem(503, "unavailable").contains("does not listen"));
    world.api.create("yard").await.json(201);
    let request = world.api.request(Method::POST, "/v1/scenarios/yard/frames").header("Content-Type", "image/jpeg");
    Answer::of(request.body(JPEG)).await.problem(409, "wrong_source");
}
