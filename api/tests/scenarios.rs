//! Scenarios over HTTP, on a real nats-server, with a stand-in for the orchestrator.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::time::Instant;

use common::{Answer, World, append, eventually_get, read_state};
use kadr_shared::{
    domain::{Cause, EventData},
    nodes::{self, Progress, RunnerBeat},
    time::Timestamp,
};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_created_scenario_is_shown_with_its_defaults() {
    let (world, _orchestrator) = World::start().await;
    let created = world.api.create("gate").await;
    assert_eq!(created.location.as_deref(), Some("/v1/scenarios/gate"));
    let created = created.json(201);
    let time = created["updated_at"].as_str().unwrap();
    assert!(time.parse::<Timestamp>().unwrap() <= Timestamp::now().after(std::time::Duration::from_secs(60)));
    let expected = json!({
        "id": "gate", "state": "inactive", "run": null, "attempt": 0,
        "health": {"status": "idle", "since": created["health"]["since"], "last_frame_at": null, "source_fps": null,
                   "analysed_fps": null, "frames": 0, "dropped": 0, "error": null},
        "settings": {"source": {"url": "file:///data/a.mp4"}, "model": "yolov8n",
                     "analysis": {"input_size": null, "confidence": 0.25, "iou": 0.7, "class_agnostic": false, "classes": []},
                     "outputs": {"video": true}, "restart": {"policy": "on_failure", "limit": 5}},
        "progress": {"frame": 0, "of": null}, "ended": null, "seq": 1, "updated_at": time
    });
    assert_eq!(created, expected);
    assert_eq!(world.api.get("/v1/scenarios/gate").await.json(200), expected, "at the first look, too");
}

#[tokio::test]
async fn given_settings_come_back_as_given() {
    let (world, _orchestrator) = World::start().await;
    let settings = json!({
        "source": {"url": "file:///data/a.mp4"}, "model": "yolov8s",
        "analysis": {"input_size": "640x384", "confidence": 0.4, "iou": 0.7, "class_agnostic": true,
                     "classes": ["car", "bus"]},
        "outputs": {"video": false}, "restart": {"policy": "never", "limit": 0}
    });
    let answer = world.api.post("/v1/scenarios?id=gate", settings.clone()).await;
    assert_eq!(answer.json(201)["settings"], settings);
    assert!(answer.text.contains(r#""confidence":0.4,"iou":0.7,"#), "without float noise: {}", answer.text);
}

#[tokio::test]
async fn an_id_is_made_up_and_a_repeat_does_not_create_another_one() {
    let (world, _orchestrator) = World::start().await;
    let body = json!({"source": {"url": "/data/a.mp4"}});
    let create = |key: &'static str| {
        Answer::of(world.api.request(Method::POST, "/v1/scenarios").header("Idempotency-Key", key).json(&body))
    };
    let (first, again, other) = (create("k1").await, create("k1").await, create("k2").await);
    assert_eq!(first.json(201), again.json(201));
    assert_ne!(first.json(201)["id"], other.json(201)["id"]);
    assert!(first.json(201)["id"].as_str().unwrap().len() < 20);
    assert_eq!(world.api.get("/v1/scenarios").await.json(200)["scenarios"].as_array().unwrap().len(), 2);
    let without = world.api.post("/v1/scenarios", body.clone()).await.json(201);
    assert_ne!(without["id"], first.json(201)["id"]);
}

#[tokio::test]
async fn the_list_is_paged_in_the_order_of_ids() {
    let (world, _orchestrator) = World::start().await;
    assert_eq!(world.api.get("/v1/scenarios").await.json(200), json!({"scenarios": [], "next": null, "seq": 0}));
    for id in ["c", "a", "b"] {
        world.api.create(id).await.json(201);
    }
    let ids = |page: &Value| -> Vec<String> {
        page["scenarios"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
    };
    let page = world.api.get("/v1/scenarios?limit=2").await.json(200);
    assert_eq!((ids(&page), &page["next"]), (vec!["a".into(), "b".into()], &json!("b")));
    let page = world.api.get("/v1/scenarios?limit=2&after=b").await.json(200);
    assert_eq!((ids(&page), &page["next"]), (vec!["c".to_owned()], &json!(null)));
    assert_eq!(world.api.get("/v1/scenarios?limit=3").await.json(200)["next"], json!(null), "no empty last page");
    world.api.delete("/v1/scenarios/a").await;
    assert_eq!(ids(&world.api.get("/v1/scenarios").await.json(200)), ["b", "c"]);
}

#[tokio::test]
async fn commands_are_accepted_or_refused_with_the_reason() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    api.create("gate").await.json(201);
    api.create("gate").await.problem(409, "already_exists");

    api.command("gate", "k0", "stop").await.problem(409, "not_running");
    assert_eq!(api.command("gate", "k1", "start").await.json(202), json!({"id": "k1", "accepted_at_seq": 4}));
    let shown = api.get("/v1/scenarios/gate").await.json(200);
    assert_eq!((&shown["state"], &shown["attempt"]), (&json!("init_startup"), &json!(1)));
    let reason = api.command("gate", "k2", "start").await.problem(409, "already_running");
    assert!(reason.contains("runs already"), "{reason}");
    api.delete("/v1/scenarios/gate").await.problem(409, "still_running");

    let without_key = api.post("/v1/scenarios/gate/commands", json!({"command": "stop"})).await.json(202);
    assert_eq!(without_key["accepted_at_seq"], 7);
    assert!(without_key["id"].as_str().unwrap().len() >= 32, "a key was made for it");
    let shown = eventually_get(api, "/v1/scenarios/gate", |s| s["state"] == "inactive").await;
    assert_eq!(shown["ended"]["reason"], "stopped");

    assert_eq!(api.delete("/v1/scenarios/gate").await.status, 204);
    api.get("/v1/scenarios/gate").await.problem(404, "not_found");
    api.delete("/v1/scenarios/gate").await.problem(404, "not_found");
    api.command("gate", "k3", "start").await.problem(404, "not_found");
    api.command("never", "k1", "start").await.problem(404, "not_found");
    assert_eq!(api.create("gate").await.json(201)["state"], "inactive", "created again, in the same log");
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_another_command_a_conflict() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    api.create("gate").await.json(201);
    let first = api.command("gate", "k1", "start").await.json(202);
    assert_eq!(api.command("gate", "k1", "start").await.json(202), first);
    api.command("gate", "k1", "stop").await.problem(409, "idempotency_conflict");
    api.command("gate", "k2", "start").await.problem(409, "already_running");
    api.command("gate", "k3", "stop").await.json(202);
    api.command("gate", "k2", "start").await.problem(409, "already_running");
    assert_eq!(api.command("gate", "k1", "start").await.json(202), first, "also after it has stopped");
    let events = api.get("/v1/scenarios/gate/events").await.json(200);
    let starts = events["events"].as_array().unwrap().iter().filter(|e| e["type"] == "start_requested").count();
    assert_eq!(starts, 1, "two starts with one key are one start");

    api.create("yard").await.json(201);
    assert_ne!(api.command("yard", "k1", "start").await.json(202), first, "a key is a scenario's own");
}

#[tokio::test]
async fn create_and_delete_are_repeatable_too() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    let create = |url: &'static str| {
        let request = api.request(Method::POST, "/v1/scenarios?id=gate").header("Idempotency-Key", "k1");
        Answer::of(request.json(&json!({"source": {"url": url}})))
    };
    let delete = || Answer::of(api.request(Method::DELETE, "/v1/scenarios/gate").header("Idempotency-Key", "k2"));
    let first = create("/a.mp4").await;
    assert_eq!(first.json(201)["id"], "gate");
    assert_eq!(create("/a.mp4").await.text, first.text);
    create("/b.mp4").await.problem(409, "idempotency_conflict");
    assert_eq!(delete().await.status, 204);
    assert_eq!(delete().await.status, 204);
    assert_eq!(create("/a.mp4").await.text, first.text, "the answer to what was asked then");
    api.get("/v1/scenarios/gate").await.problem(404, "not_found");
}

#[tokio::test]
async fn without_an_orchestrator_a_command_is_stored_and_answered_later() {
    let world = World::without_orchestrator().await;
    let api = &world.api;
    let begun = Instant::now();
    let answer = api.command("gate", "k1", "start").await;
    let took = begun.elapsed();
    assert_eq!(answer.json(202), json!({"id": "k1", "accepted_at_seq": null}));
    assert!(took.as_millis() >= 1900, "it waited: {took:?}");
    assert!(took.as_secs() < 10, "but not for ever: {took:?}");
    let create = Answer::of(
        api.request(Method::POST, "/v1/scenarios?id=yard")
            .header("Idempotency-Key", "k2")
            .json(&json!({"source": {"url": "/a"}})),
    )
    .await;
    assert_eq!(create.json(202), json!({"id": "k2", "accepted_at_seq": null}));
    assert_eq!(create.location.as_deref(), Some("/v1/scenarios/yard"));

    let _orchestrator = common::Orchestrator::start(world.nats.clone());
    eventually_get(api, "/v1/scenarios/yard", |s| s["id"] == "yard").await;
    api.command("gate", "k1", "start").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_runners_numbers_are_shown_while_they_are_of_this_attempt() {
    let (world, _orchestrator) = World::start().await;
    let (api, nats, gate) = (&world.api, &world.nats, "gate".parse().unwrap());
    api.create("gate").await.json(201);
    api.command("gate", "k1", "start").await.json(202);
    let state = read_state(nats, &gate).await;
    let (run, runner) = (state.run.as_ref().unwrap().id, "r1".parse().unwrap());
    let cause = || Cause { input: None, id: "test".into() };
    let assigned = EventData::RunnerAssigned { run, attempt: 1, runner };
    let state = append(nats, &gate, state, cause(), "test", &assigned).await;
    let fence = state.seq;
    append(nats, &gate, state, cause(), "test", &EventData::Activated { run }).await;
    eventually_get(api, "/v1/scenarios/gate", |s| s["state"] == "active").await;

    let at = Timestamp::from_millis(1_769_860_800_000);
    let beat = |frames, fence| {
        let progress = Progress {
            scenario: "gate".parse().unwrap(),
            run,
            fence,
            frames,
            of: Some(7500),
            dropped: 3,
            source_fps: Some(25.0),
            analysed_fps: Some(24.333_333),
            last_frame_at: Some(at),
            camera: None,
            trouble: None,
        };
        RunnerBeat { runner: "r1".parse().unwrap(), capacity: 2, free: 1, scenarios: vec![progress] }
    };
    // An old attempt's beat is not shown: when the right one's is, the wrong one has been seen before it.
    nodes::renew_runner(nats, &beat(9999, fence - 1)).await.unwrap();
    let shown = kadr_shared::testkit::eventually("the runner's numbers", || async {
        nodes::renew_runner(nats, &beat(1200, fence)).await.unwrap();
        let shown = api.get("/v1/scenarios/gate").await.json(200);
        assert_ne!(shown["progress"]["frame"], 9999);
        (shown["progress"]["frame"] == 1200).then_some(shown)
    })
    .await;
    assert_eq!(shown["progress"], json!({"frame": 1200, "of": 7500}));
    assert_eq!(
        shown["health"],
        json!({"status": "ok", "since": shown["health"]["since"], "last_frame_at": "2026-01-31T12:00:00.000Z",
               "source_fps": 25.0, "analysed_fps": 24.33, "frames": 1200, "dropped": 3, "error": null})
    );
    // Nobody renews it: the numbers of now go.
    let later = eventually_get(api, "/v1/scenarios/gate", |s| s["health"]["analysed_fps"].is_null()).await;
    assert_eq!(later["health"]["status"], "ok", "what the log says stays");
}
