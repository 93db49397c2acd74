//! The same key with the same body again: the same answer, from whichever API, and once in the log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::{Answer, Orchestrator, RunningApi, World, config, eventually_get};
use kadr_api::Api;
use kadr_shared::{catalog::Catalog, nats::Nats, subjects};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

/// Every kind of change, accepted and refused, in an order in which each finds what it needs.
async fn changes(api: &RunningApi) -> Vec<(u16, String)> {
    let delete = |key: &'static str| {
        Answer::of(api.request(Method::DELETE, "/v1/scenarios/gate").header("Idempotency-Key", key))
    };
    let (create, gate) = ("/v1/scenarios?id=gate", "/v1/scenarios/gate");
    let answers = [
        api.settings(Method::PUT, gate, "configure-nothing", "/a").await,
        api.settings(Method::POST, create, "create", "/a").await,
        api.settings(Method::POST, create, "create-again", "/a").await,
        api.settings(Method::PUT, gate, "configure", "/b").await,
        api.command("gate", "start", "start").await,
        api.command("gate", "start-again", "start").await,
        api.settings(Method::PUT, gate, "configure-running", "/c").await,
        delete("delete-running").await,
        api.command("gate", "stop", "stop").await,
        // The stand-in's stop takes two more events than the one that answers.
        api.command("gate", "stop-again", "stop").await,
        delete("delete").await,
        delete("delete-again").await,
        api.settings(Method::POST, create, "create-anew", "/d").await,
    ];
    answers.into_iter().map(|answer| (answer.status, answer.text)).collect()
}

const EXPECTED: [u16; 13] = [404, 201, 409, 200, 202, 409, 409, 409, 202, 409, 204, 404, 201];

async fn events(api: &RunningApi) -> usize {
    let page = api.get("/v1/scenarios/gate/events?limit=1000").await.json(200);
    page["events"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_repeat_gets_the_same_answer_from_another_api_and_after_a_restart() {
    let (world, _orchestrator) = World::start().await;
    let folder = TempDir::with_prefix("kadr-api-").unwrap();
    let other = RunningApi::start(world.nats.clone(), folder.path()).await;
    let first = changes(&world.api).await;
    assert_eq!(first.iter().map(|(status, _)| *status).collect::<Vec<_>>(), EXPECTED, "{first:?}");
    let length = events(&world.api).await;

    assert_eq!(changes(&world.api).await, first, "from the same one");
    assert_eq!(changes(&other).await, first, "from another one");
    let World { api, folder, nats, server: _server } = world;
    api.stop().await;
    let api = RunningApi::start(nats.clone(), folder.path()).await;
    assert_eq!(changes(&api).await, first, "after a restart");
    api.stop().await;
    let anew = TempDir::with_prefix("kadr-api-").unwrap();
    let api = RunningApi::start(nats, anew.path()).await;
    assert_eq!(changes(&api).await, first, "from one that has just begun to read the log");
    assert_eq!(events(&api).await, length, "nothing was done twice");
}

#[tokio::test]
async fn a_key_with_something_else_is_a_conflict_and_other_words_for_the_same_are_not() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    let (create, gate) = ("/v1/scenarios?id=gate", "/v1/scenarios/gate");
    let first = api.settings(Method::POST, create, "k1", "/a").await;
    first.json(201);
    let spelled = json!({"model": "yolov8n", "source": {"url": "file:///a"}, "outputs": {"video": true}});
    let again = Answer::of(api.request(Method::POST, create).header("Idempotency-Key", "k1").json(&spelled)).await;
    assert_eq!((again.status, again.text), (201, first.text), "compared as understood");

    api.settings(Method::POST, create, "k1", "/b").await.problem(409, "idempotency_conflict");
    api.settings(Method::PUT, gate, "k1", "/a").await.problem(409, "idempotency_conflict");
    api.command("gate", "k1", "start").await.problem(409, "idempotency_conflict");
    let delete = api.request(Method::DELETE, gate).header("Idempotency-Key", "k1");
    Answer::of(delete).await.problem(409, "idempotency_conflict");
    api.settings(Method::PUT, gate, "k2", "/b").await.json(200);
    let detail = api.settings(Method::PUT, gate, "k2", "/c").await.problem(409, "idempotency_conflict");
    assert!(detail.contains("another key"), "{detail}");
    assert_eq!(events(api).await, 2);
}

#[tokio::test]
async fn other_settings_are_taken_while_it_does_not_run() {
    let (world, _orchestrator) = World::start().await;
    let (api, gate) = (&world.api, "/v1/scenarios/gate");
    api.settings(Method::PUT, gate, "k1", "/a").await.problem(404, "not_found");
    api.create("gate").await.json(201);
    let answer = api.settings(Method::PUT, gate, "k2", "/b").await.json(200);
    assert_eq!(answer["settings"]["source"]["url"], "file:///b");
    assert_eq!(api.get(gate).await.json(200), answer);
    api.command("gate", "k3", "start").await.json(202);
    let detail = api.settings(Method::PUT, gate, "k4", "/c").await.problem(409, "still_running");
    assert!(detail.contains("stop it first"), "{detail}");
    let put = |body| Answer::of(api.request(Method::PUT, gate).json(&body));
    put(json!({})).await.problem(422, "invalid_body");
    put(json!({"source": {"url": "/a"}, "model": "yolov9"})).await.problem(422, "unknown_model");
    put(json!({"source": {"url": "/a"}, "analysis": {"classes": ["kar"]}})).await.problem(422, "unknown_class");
}

#[tokio::test]
async fn a_repeat_while_nobody_answers_gets_the_sequence_once_somebody_has() {
    let world = World::without_orchestrator().await;
    let api = &world.api;
    let unanswered = json!({"id": "k1", "accepted_at_seq": null});
    let create = || api.settings(Method::POST, "/v1/scenarios?id=gate", "k1", "/a");
    let put = || api.settings(Method::PUT, "/v1/scenarios/gate", "k2", "/b");
    let (first, repeat) = tokio::join!(create(), create());
    assert_eq!((first.json(202), repeat.json(202)), (unanswered.clone(), unanswered));
    assert_eq!(put().await.json(202), json!({"id": "k2", "accepted_at_seq": null}));
    let _orchestrator = Orchestrator::start(world.nats.clone());
    eventually_get(api, "/v1/scenarios/gate", |s| s["seq"] == 2).await;
    assert_eq!(create().await.json(201)["seq"], 1);
    assert_eq!(put().await.json(200)["settings"]["source"]["url"], "file:///b");
    assert_eq!(api.get("/v1/scenarios/gate/events").await.json(200)["events"].as_array().unwrap().len(), 2);
}

/// As a day would: the inbox has forgotten a key.
async fn forget(nats: &Nats, key: &str) {
    let stream = nats.jetstream.get_stream(subjects::INBOX).await.unwrap();
    let subject = subjects::command(&"gate".parse().unwrap(), &key.parse().unwrap());
    assert_eq!(stream.purge().filter(subject).await.unwrap().purged, 1);
}

#[tokio::test]
async fn a_key_that_was_forgotten_is_new_and_does_not_get_the_old_answer() {
    let (world, orchestrator) = World::start().await;
    let (api, nats) = (&world.api, &world.nats);
    api.create("gate").await.json(201);
    let first = api.command("gate", "k1", "start").await.json(202);
    forget(nats, "k1").await;
    api.command("gate", "k1", "start").await.problem(409, "already_running");
    api.command("gate", "k1", "start").await.problem(409, "already_running");

    drop(orchestrator);
    forget(nats, "k1").await;
    let unanswered = json!({"id": "k1", "accepted_at_seq": null});
    assert_eq!(api.command("gate", "k1", "stop").await.json(202), unanswered, "another use, not answered yet");
    assert_eq!(api.command("gate", "k1", "stop").await.json(202), unanswered, "and neither is its repeat");
    assert_ne!(first, unanswered);
}

#[tokio::test]
async fn an_api_whose_tables_are_behind_does_not_say_that_there_is_no_answer() {
    let (world, _orchestrator) = World::start().await;
    let folder = TempDir::with_prefix("kadr-api-").unwrap();
    let other = RunningApi::start(world.nats.clone(), folder.path()).await;
    world.api.create("gate").await.json(201);
    other.ready().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join("api.sqlite3"));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let lock = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let first = world.api.command("gate", "k1", "start").await.json(202);
    let detail = other.command("gate", "k1", "start").await.problem(503, "behind");
    assert!(detail.contains("try again"), "{detail}");
    lock.rollback().await.unwrap();
    pool.close().await;
    other.ready().await;
    assert_eq!(other.command("gate", "k1", "start").await.json(202), first);
}

#[tokio::test]
async fn a_repeat_is_answered_by_an_api_that_does_not_know_the_model() {
    let (world, _orchestrator) = World::start().await;
    let body = |model: &str| json!({"source": {"url": "/a"}, "model": model});
    let create = |api: &RunningApi, model: &str| {
        let request = api.request(Method::POST, "/v1/scenarios?id=gate").header("Idempotency-Key", "k1");
        Answer::of(request.json(&body(model)))
    };
    let first = create(&world.api, "yolov8s").await;
    first.json(201);

    let folder = TempDir::with_prefix("kadr-api-").unwrap();
    let manifest = folder.path().join("manifest.toml");
    let known = include_str!("../../models/manifest.toml").replace("\"yolov8s\"", "\"another\"");
    std::fs::write(&manifest, known).unwrap();
    let catalog = Catalog::read(&manifest).unwrap();
    let config = kadr_api::Config { catalog, ..config(folder.path()) };
    let api = RunningApi::of(Api::bind(config, world.nats.clone()).await.unwrap());
    let repeat = create(&api, "yolov8s").await;
    assert_eq!((repeat.status, repeat.text), (201, first.text));
    create(&api, "yolov8m").await.problem(409, "idempotency_conflict");
    let new = api.request(Method::POST, "/v1/scenarios?id=yard").header("Idempotency-Key", "k1");
    Answer::of(new.json(&body("yolov8s"))).await.problem(422, "unknown_model");
}
