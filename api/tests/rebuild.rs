//! Rebuilding the tables on demand, on SQLite. (On PostgreSQL, beside running APIs: `postgres.rs`.)

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::sync::Mutex;

use common::{RunningApi, World, append, eventually_get};
use kadr_api::{Place, Progress, rebuild};
use kadr_shared::{
    domain::{Cause, CommandKind, EventData, Refusal, State},
    publish::{Stored, publish},
    subjects,
};
use serde_json::json;

#[tokio::test]
async fn what_was_changed_by_hand_is_made_good_and_nobody_else_uses_the_file_meanwhile() {
    let (world, _orchestrator) = World::start().await;
    let place = Place::in_folder(world.folder.path());
    for id in ["a", "b"] {
        world.api.create(id).await.json(201);
        world.api.command(id, "start", "start").await.json(202);
        world.api.command(id, "stop", "stop").await.json(202);
    }
    // Of each a creation, a start and a stop of three events.
    eventually_get(&world.api, "/health/ready", |health| health["projection"]["seq"] == 10).await;
    let pages = ["/v1/scenarios", "/v1/scenarios/a/events", "/v1/scenarios/b/events"];
    let before =
        [world.api.get(pages[0]).await.text, world.api.get(pages[1]).await.text, world.api.get(pages[2]).await.text];
    let error = rebuild(&place, &world.nats, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("api.sqlite3") && error.contains("stop the API"), "{error}");
    assert_eq!(world.api.get(pages[0]).await.text, before[0], "nothing was touched");

    let World { api, folder, nats, server: _server } = world;
    api.stop().await;
    let file = folder.path().join("api.sqlite3");
    let tables =
        sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(file)).await.unwrap();
    for statement in ["UPDATE scenarios SET state = '{}'", "DELETE FROM events WHERE seq = 2", "DELETE FROM commands"] {
        sqlx::query(statement).execute(&tables).await.unwrap();
    }
    tables.close().await;

    let seen = Mutex::new(Vec::new());
    let rebuilt = rebuild(&place, &nats, |progress| seen.lock().unwrap().push(progress)).await.unwrap();
    assert_eq!((rebuilt.events, rebuilt.seq), (10, 10));
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted_by_key(|progress| progress.seq), "{seen:?}");
    assert_eq!(seen.last(), Some(&Progress { seq: 10, of: 10 }));

    let api = RunningApi::start(nats, folder.path()).await;
    api.ready().await;
    for (page, before) in pages.iter().zip(before) {
        assert_eq!(api.get(page).await.text, before);
    }
    assert_eq!(api.command("a", "start", "start").await.json(202)["accepted_at_seq"], 2, "outcomes are back");
}

#[tokio::test]
async fn a_long_log_is_read_to_its_end_and_foreign_messages_are_counted_over() {
    const EVENTS: u64 = 5_000;
    let World { api, folder, nats, server: _server } = World::without_orchestrator().await;
    api.stop().await;
    let refused = EventData::CommandRefused { command: CommandKind::Stop, reason: Refusal::NotRunning };
    let mut acknowledged = Vec::new();
    for n in 0..EVENTS {
        let cause = Cause { input: Some(n + 1), id: format!("key-{n}") };
        let body = serde_json::to_vec(&refused.body(cause, "test".into()).unwrap()).unwrap();
        let subject = subjects::event(&format!("s{}", n % 37).parse().unwrap(), refused.kind());
        acknowledged.push(nats.jetstream.publish(subject, body.into()).await.unwrap());
        // The connection lets only so many wait.
        if acknowledged.len() == 100 || n + 1 == EVENTS {
            for ack in acknowledged.drain(..) {
                ack.await.unwrap();
            }
        }
    }
    let foreign = "kadr.evt.s1.no_event";
    nats.jetstream.publish(foreign, "not json".into()).await.unwrap().await.unwrap();
    let rebuilt = rebuild(&Place::in_folder(folder.path()), &nats, |_| {}).await.unwrap();
    assert_eq!((rebuilt.events, rebuilt.seq), (EVENTS, EVENTS + 1));
}

#[tokio::test]
async fn an_empty_log_makes_empty_tables_and_a_newer_event_is_not_guessed_at() {
    let World { api, folder, nats, server: _server } = World::without_orchestrator().await;
    api.stop().await;
    let place = Place::in_folder(folder.path());
    let rebuilt = rebuild(&place, &nats, |_| {}).await.unwrap();
    assert_eq!((rebuilt.events, rebuilt.seq), (0, 0));

    let gate = "gate".parse().unwrap();
    let settings = serde_json::from_value(json!({"source": {"url": "/a"}})).unwrap();
    let created = EventData::ScenarioCreated { settings, generation: 1 };
    append(&nats, &gate, State::default(), Cause { input: None, id: "test".into() }, "test", &created).await;
    let body = json!({"version": 99, "cause": {"input": null, "id": "x"}, "actor": "future", "data": {}});
    let message = async_nats::jetstream::message::PublishMessage::build().payload(body.to_string().into());
    let stored = publish(&nats.jetstream, subjects::event(&gate, "activated"), message).await.unwrap();
    assert!(matches!(stored, Stored::At(2)));
    let error = format!("{:?}", rebuild(&place, &nats, |_| {}).await.unwrap_err());
    assert!(error.contains("99"), "{error}");
    // What comes before it is there.
    let api = RunningApi::start(nats, folder.path()).await;
    assert_eq!(api.get("/v1/scenarios/gate").await.json(200)["seq"], 1);
}
