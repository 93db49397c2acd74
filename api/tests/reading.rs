//! Reading one's own write, and the past: `at_least`, `at`, the history.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::time::Instant;

use common::{RunningApi, World, append, eventually_get, read_state};
use kadr_shared::{
    domain::{Cause, EventData},
    id::ScenarioId,
    nats::Nats,
    testkit::eventually,
    time::Timestamp,
};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A moment that is certainly behind the last event's stamp and before the next one's.
async fn pause(nats: &Nats, id: &str) -> String {
    let scenario: ScenarioId = id.parse().unwrap();
    let last = read_state(nats, &scenario).await.updated_at;
    eventually("the clock goes on", || async {
        (Timestamp::now() > last.after(std::time::Duration::from_millis(20))).then_some(())
    })
    .await;
    last.after(std::time::Duration::from_millis(10)).to_string()
}

#[tokio::test]
async fn a_caller_reads_its_own_write_from_another_api() {
    let (world, _orchestrator) = World::start().await;
    let folder = TempDir::with_prefix("kadr-api-").unwrap();
    let other = RunningApi::start(world.nats.clone(), folder.path()).await;
    world.api.create("gate").await.json(201);
    for n in 0..20 {
        let (command, state) = if n % 2 == 0 { ("start", "init_startup") } else { ("stop", "inactive") };
        let accepted = world.api.command("gate", &format!("k{n}"), command).await.json(202);
        let seq = accepted["accepted_at_seq"].as_u64().unwrap();
        // A stop's event is followed by two more of itself: what it led to is at least on its way.
        let shown = other.get(&format!("/v1/scenarios/gate?at_least={seq}")).await.json(200);
        assert!(shown["seq"].as_u64().unwrap() >= seq);
        assert!(command == "stop" || shown["state"] == state, "{shown}");
        let list = other.get(&format!("/v1/scenarios?at_least={seq}")).await.json(200);
        assert!(list["seq"].as_u64().unwrap() >= seq);
        let events = other.get(&format!("/v1/scenarios/gate/events?at_least={seq}&from={seq}")).await.json(200);
        assert_eq!(events["events"][0]["seq"], seq);
        assert!(events["seq"].as_u64().unwrap() >= seq);
        let history = other.get(&format!("/v1/scenarios/gate/history?at_least={seq}&from={seq}")).await.json(200);
        assert_eq!(history["transitions"][0]["seq"], seq);
    }
}

#[tokio::test]
async fn a_sequence_that_is_not_there_is_told_at_once_and_tables_that_are_behind_in_time() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    api.create("gate").await.json(201);
    let begun = Instant::now();
    for path in ["/v1/scenarios/gate?at_least=2", "/v1/scenarios?at_least=2", "/v1/scenarios/gate/events?at_least=2"] {
        let detail = api.get(path).await.problem(400, "not_yet");
        assert!(detail.contains("last sequence is 1"), "{detail}");
    }
    assert!(begun.elapsed().as_secs() < 5, "at once: {:?}", begun.elapsed());
    for bad in ["at_least=x", "at_least=-1", "at=yesterday", "at=2026-01-31", "at=-1", "at="] {
        let detail = api.get(&format!("/v1/scenarios/gate?{bad}")).await.problem(400, "bad_request");
        assert!(detail.starts_with("at"), "{detail}");
    }

    // Its tables are locked by somebody else: the log goes on and they do not.
    api.ready().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.folder.path().join("api.sqlite3"));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let lock = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let gate = "gate".parse().unwrap();
    let state = read_state(&world.nats, &gate).await;
    let cause = Cause { input: None, id: "test".into() };
    let settings = serde_json::from_value(json!({"source": {"url": "/b"}})).unwrap();
    append(&world.nats, &gate, state, cause, "test", &EventData::ScenarioReconfigured { settings }).await;
    for path in ["/v1/scenarios/gate?at_least=2", "/v1/scenarios/gate?at=2"] {
        let detail = api.get(path).await.problem(503, "behind");
        assert!(detail.contains("at sequence 1") && detail.contains("try again"), "{detail}");
    }
    assert_eq!(api.get("/v1/scenarios/gate").await.json(200)["seq"], 1, "what is known is still served");
    lock.rollback().await.unwrap();
    pool.close().await;
    let shown = eventually_get(api, "/v1/scenarios/gate?at_least=2", |s| s["seq"] == 2).await;
    assert_eq!(shown["settings"]["source"]["url"], "file:///b");
}

#[tokio::test]
async fn a_scenario_is_shown_as_it_was() {
    let (world, _orchestrator) = World::start().await;
    let (api, nats) = (&world.api, &world.nats);
    let before = Timestamp::from_millis(Timestamp::now().as_millis() - 60_000);
    let created = api.create("gate").await.json(201);
    let after_creation = pause(nats, "gate").await;
    let started = api.command("gate", "k1", "start").await.json(202)["accepted_at_seq"].as_u64().unwrap();
    let after_start = pause(nats, "gate").await;
    api.command("gate", "k2", "stop").await.json(202);
    eventually_get(api, "/v1/scenarios/gate", |s| s["state"] == "inactive").await;
    assert_eq!(api.delete("/v1/scenarios/gate").await.status, 204);
    let after_deletion = pause(nats, "gate").await;

    let at = async |at: &str| api.get(&format!("/v1/scenarios/gate?at={at}")).await;
    for moment in ["1", &after_creation] {
        assert_eq!(at(moment).await.json(200), created, "{moment}");
    }
    for moment in [&started.to_string(), &after_start] {
        let shown = at(moment).await.json(200);
        assert_eq!((&shown["state"], &shown["seq"]), (&json!("init_startup"), &json!(started)), "{moment}");
        assert_eq!(shown["health"]["status"], "starting");
    }
    // With an offset, however its plus is written.
    for plus in ["+", "%2B"] {
        let moment = after_creation.replace('Z', &format!("{plus}00:00"));
        assert_eq!(at(&moment).await.json(200), created, "{moment}");
    }
    for moment in ["0", &before.to_string()] {
        let detail = at(moment).await.problem(404, "not_found");
        assert!(detail.contains("not exist then") && detail.contains("not been created"), "{detail}");
    }
    let last = api.get("/v1/scenarios/gate/events").await.json(200)["events"].as_array().unwrap().len();
    for moment in [&last.to_string(), &after_deletion] {
        let detail = at(moment).await.problem(404, "not_found");
        assert!(detail.contains("not exist then") && detail.contains("deleted"), "{detail}");
    }
    let future = Timestamp::now().after(std::time::Duration::from_secs(3600));
    assert!(at(&future.to_string()).await.problem(400, "not_yet").contains("future"));
    at("1000").await.problem(400, "not_yet");
    api.get("/v1/scenarios/never?at=1").await.problem(404, "not_found");

    // Created again, in the same log: the first life is still there, and the second one too.
    api.create("gate").await.json(201);
    assert_eq!(at("1").await.json(200), created);
    assert_eq!(at(&after_start).await.json(200)["state"], "init_startup");
    at(&after_deletion).await.problem(404, "not_found");
    assert_eq!(at(&(last + 1).to_string()).await.json(200)["state"], "inactive");
}

#[tokio::test]
async fn the_history_tells_transitions_with_cause_and_duration() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    api.get("/v1/scenarios/gate/history").await.problem(404, "not_found");
    api.create("gate").await.json(201);
    api.command("gate", "refused", "stop").await.problem(409, "not_running");
    api.settings(Method::PUT, "/v1/scenarios/gate", "k0", "/b").await.json(200);
    pause(&world.nats, "gate").await;
    api.command("gate", "k1", "start").await.json(202);
    let history = api.get("/v1/scenarios/gate/history").await;
    assert!(history.text.contains(r#"{"seq":4,"at":""#), "in a fixed order: {}", history.text);
    let history = history.json(200);
    let start = &history["transitions"][1];
    let event = &api.get("/v1/scenarios/gate/events?from=4").await.json(200)["events"][0];
    assert_eq!(
        *start,
        json!({"seq": 4, "at": event["time"], "from": "inactive", "to": "init_startup",
               "duration_ms": start["duration_ms"], "type": "start_requested", "cause": {"input": 4, "id": "k1"},
               "actor": "api", "reason": null, "error": null})
    );
    assert!(start["duration_ms"].as_u64().unwrap() >= 20, "inactive since its creation: {start}");
    assert_eq!(history["transitions"].as_array().unwrap().len(), 2, "no refusals, no settings: {history}");
    assert_eq!(history["transitions"][0]["from"], json!(null));
    assert_eq!(history["transitions"][0]["duration_ms"], json!(null));
    assert_eq!(history["present"]["state"], "init_startup");
    assert_eq!(history["present"]["since"], event["time"]);
    assert_eq!((&history["next"], &history["seq"]), (&json!(null), &json!(4)));

    api.command("gate", "k2", "stop").await.json(202);
    eventually_get(api, "/v1/scenarios/gate", |s| s["state"] == "inactive").await;
    assert_eq!(api.delete("/v1/scenarios/gate").await.status, 204);
    let all = api.get("/v1/scenarios/gate/history").await.json(200);
    let names: Vec<_> = all["transitions"].as_array().unwrap().iter().map(|t| t["to"].as_str()).collect();
    let life = ["inactive", "init_startup", "init_shutdown", "in_shutdown_processing", "inactive"].map(Some).to_vec();
    assert_eq!(names, [life, vec![None]].concat(), "the history of a deleted one stays");
    assert_eq!(all["transitions"][4]["reason"], "stopped");
    assert_eq!(all["present"]["state"], json!(null));

    let (mut joined, mut from) = (Vec::new(), json!(1));
    while !from.is_null() {
        let page = api.get(&format!("/v1/scenarios/gate/history?limit=4&from={from}")).await.json(200);
        assert_eq!(page["present"].is_null(), !page["next"].is_null());
        joined.extend(page["transitions"].as_array().unwrap().clone());
        from = page["next"].clone();
    }
    assert_eq!(Value::Array(joined), all["transitions"]);
    for bad in ["limit=0", "limit=1001", "from=x", "at_least=x"] {
        api.get(&format!("/v1/scenarios/gate/history?{bad}")).await.problem(400, "bad_request");
    }
}
