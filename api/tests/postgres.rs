//! The API on PostgreSQL, which several share and which may be away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use common::{Answer, Orchestrator, RunningApi, append, config, eventually_get};
use kadr_api::{Config, Place, rebuild};
use kadr_shared::{
    domain::{Cause, EventData, State},
    nats::Nats,
    publish::{Stored, publish},
    streams, subjects,
    testkit::{TestPostgres, TestServer, eventually},
};
use serde_json::{Value, json};

/// A NATS server and a PostgreSQL.
struct Ground {
    nats: Nats,
    postgres: TestPostgres,
    _server: TestServer,
}

impl Ground {
    async fn new() -> Self {
        let server = TestServer::start().await;
        Self { nats: server.nats().await, postgres: TestPostgres::start().await, _server: server }
    }

    fn place(&self) -> Place {
        self.postgres.url("postgres").parse().unwrap()
    }

    async fn api(&self) -> RunningApi {
        RunningApi::on(self.nats.clone(), Config { database: self.place(), ..config(Path::new("unused")) }).await
    }
}

/// Waits until it says that it is not ready, with these words.
async fn told(api: &RunningApi, words: &str) -> Answer {
    eventually(words, || async {
        let answer = api.get("/health/ready").await;
        (answer.status == 503 && answer.text.contains(words)).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn apis_share_the_tables_and_each_event_is_in_them_once() {
    let ground = Ground::new().await;
    let (one, two) = tokio::join!(ground.api(), ground.api());
    let _orchestrator = Orchestrator::start(ground.nats.clone());
    one.create("gate").await.json(201);
    for n in 0..20 {
        let (a, b) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
        a.command("gate", &format!("start-{n}"), "start").await.json(202);
        b.command("gate", &format!("stop-{n}"), "stop").await.json(202);
    }
    // Created, twenty starts, and twenty stops of three events. Each knows where the tables are.
    let last = 81;
    for api in [&one, &two] {
        eventually_get(api, "/health/ready", |health| health["projection"]["seq"] == last).await;
    }
    let page = "/v1/scenarios/gate/events?limit=1000";
    let events = one.get(page).await.json(200);
    let seqs: Vec<_> = events["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=last).collect::<Vec<u64>>());
    assert_eq!(two.get(page).await.text, one.get(page).await.text);
    // A repeat gets its answer from whichever is asked.
    assert_eq!(two.command("gate", "start-0", "start").await.json(202)["accepted_at_seq"], 2);

    // The ones that stay go on, and one that comes finds all of it.
    one.stop().await;
    two.command("gate", "again", "start").await.json(202);
    let three = ground.api().await;
    three.ready().await;
    assert_eq!(three.get("/v1/scenarios/gate").await.json(200)["seq"], last + 1);
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_told_and_taken_up_when_it_comes() {
    let mut ground = Ground::new().await;
    ground.postgres.stop().await;
    let _orchestrator = Orchestrator::start(ground.nats.clone());
    let api = ground.api().await;
    let answer = told(&api, "can't open postgres://kadr@").await;
    assert!(answer.text.contains("it tries again"), "{}", answer.text);
    api.get("/v1/scenarios").await.problem(503, "unavailable");
    assert_eq!(api.get("/health/live").await.status, 200);
    ground.postgres.begin().await;
    api.ready().await;
    assert_eq!(api.get("/v1/scenarios").await.json(200), json!({"scenarios": [], "next": null}));
}

#[tokio::test]
async fn a_server_that_goes_away_loses_nothing() {
    let mut ground = Ground::new().await;
    let api = ground.api().await;
    let orchestrator = Orchestrator::start(ground.nats.clone());
    api.create("gate").await.json(201);
    api.ready().await;
    ground.postgres.stop().await;
    // It is stored, and its outcome can't be seen.
    api.command("gate", "k1", "start").await.problem(503, "unavailable");
    told(&api, "interrupted").await;
    ground.postgres.begin().await;
    api.ready().await;
    eventually_get(&api, "/v1/scenarios/gate", |s| s["state"] == "init_startup").await;
    assert_eq!(api.command("gate", "k1", "start").await.json(202)["accepted_at_seq"], 2);

    // Idle connections that have ended meanwhile are no reason to fail. A server that was killed may have lost its last
    // commits, which did not wait for the disk: the log has them.
    drop(orchestrator);
    ground.postgres.stop().await;
    ground.postgres.begin().await;
    let first = api.get("/v1/scenarios/gate").await;
    assert_ne!(first.status, 503, "{}", first.text);
    eventually_get(&api, "/v1/scenarios/gate", |s| s["seq"] == 2 && s["state"] == "init_startup").await;
}

#[tokio::test]
async fn a_server_that_hangs_is_waited_for_in_bounded_time() {
    let ground = Ground::new().await;
    let api = ground.api().await;
    let _orchestrator = Orchestrator::start(ground.nats.clone());
    api.create("gate").await.json(201);
    api.ready().await;
    ground.postgres.signal("STOP");
    let begun = Instant::now();
    // More than it has connections.
    let path = "/v1/scenarios/gate";
    let answers =
        tokio::join!(api.get(path), api.get(path), api.get(path), api.get(path), api.get(path), api.get(path));
    let took = begun.elapsed();
    let answers = [answers.0, answers.1, answers.2, answers.3, answers.4, answers.5];
    for answer in &answers {
        assert_eq!(answer.status, 503, "{}", answer.text);
    }
    assert!(took < Duration::from_secs(30), "{took:?}");
    ground.postgres.signal("CONT");
    api.ready().await;
    assert_eq!(api.get(path).await.json(200)["state"], "inactive");
}

#[tokio::test]
async fn a_wrong_password_is_told_and_no_password_is_shown() {
    let ground = Ground::new().await;
    let place: Place = ground.postgres.url_with("not%20the%20word", "postgres").parse().unwrap();
    let api = RunningApi::on(ground.nats.clone(), Config { database: place.clone(), ..config(Path::new("x")) }).await;
    let answer = told(&api, "password authentication failed").await;
    let error = rebuild(&place, &ground.nats, |_| {}).await.unwrap_err();
    let shown = format!("{} {error} {error:?} {:?}", answer.text, config(Path::new("x")));
    assert!(!shown.contains("not the word") && !shown.contains("not%20the"), "{shown}");

    let other: Place = ground.postgres.url("nowhere").parse().unwrap();
    let error = rebuild(&other, &ground.nats, |_| {}).await.unwrap_err();
    let shown = format!("{error:?}");
    assert!(shown.contains("nowhere") && shown.contains("does not exist"), "{shown}");
    assert!(!shown.contains(ground.postgres.password()), "{shown}");
}

#[tokio::test]
async fn an_event_of_the_future_stops_the_projection() {
    let ground = Ground::new().await;
    let api = ground.api().await;
    let _orchestrator = Orchestrator::start(ground.nats.clone());
    api.create("gate").await.json(201);
    let body = json!({"version": 99, "cause": {"input": null, "id": "x"}, "actor": "future", "data": {}});
    let message = async_nats::jetstream::message::PublishMessage::build().payload(body.to_string().into());
    let subject = subjects::event(&"gate".parse().unwrap(), "activated");
    let Stored::At(seq) = publish(&ground.nats.jetstream, subject, message).await.unwrap() else {
        panic!("not stored")
    };

    let answer = told(&api, "has stopped").await.json(503);
    let status = answer["status"].as_str().unwrap();
    assert!(status.contains("version 99") && status.contains("newer kadr"), "{status}");
    assert_eq!(answer["projection"], json!({"seq": seq - 1, "of": seq}), "it was not skipped");
    assert_eq!(api.get("/v1/scenarios/gate").await.json(200)["seq"], seq - 1, "what is known is still served");
    let error = rebuild(&ground.place(), &ground.nats, |_| {}).await.unwrap_err();
    assert!(format!("{error:?}").contains("99"), "a rebuild does not guess either: {error:?}");
}

#[tokio::test]
async fn a_recreated_log_is_followed_by_all_of_them() {
    let ground = Ground::new().await;
    let (one, two) = (ground.api().await, ground.api().await);
    let created = |url: &str| {
        let settings = serde_json::from_value(json!({"source": {"url": url}})).unwrap();
        EventData::ScenarioCreated { settings, generation: 1 }
    };
    let cause = || Cause { input: None, id: "test".into() };
    let (old, new) = ("old".parse().unwrap(), "new".parse().unwrap());
    append(&ground.nats, &old, State::default(), cause(), "test", &created("/a")).await;
    for api in [&one, &two] {
        eventually_get(api, "/v1/scenarios/old", |s| s["id"] == "old").await;
    }
    ground.nats.jetstream.delete_stream(subjects::EVENTS).await.unwrap();
    streams::ensure(&ground.nats).await.unwrap();
    append(&ground.nats, &new, State::default(), cause(), "test", &created("/b")).await;
    for api in [&one, &two] {
        let list = eventually_get(api, "/v1/scenarios", |l| l["scenarios"][0]["id"] == "new").await;
        assert_eq!(list["scenarios"].as_array().unwrap().len(), 1, "the old log's scenarios are gone");
        eventually("it is where the new log is", || async {
            let body: Value = serde_json::from_str(&api.get("/health/ready").await.text).unwrap();
            (body["projection"] == json!({"seq": 1, "of": 1})).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_rebuild_beside_running_apis_ends_where_they_were() {
    let ground = Ground::new().await;
    let (one, two) = (ground.api().await, ground.api().await);
    let _orchestrator = Orchestrator::start(ground.nats.clone());
    for id in ["a", "b"] {
        one.create(id).await.json(201);
        for n in 0..10 {
            one.command(id, &format!("start-{n}"), "start").await.json(202);
            two.command(id, &format!("stop-{n}"), "stop").await.json(202);
        }
    }
    eventually_get(&one, "/health/ready", |health| health["projection"]["seq"] == 82).await;
    let pages = ["/v1/scenarios", "/v1/scenarios/a/events?limit=1000", "/v1/scenarios/b/events?limit=1000"];
    let before = [one.get(pages[0]).await.text, one.get(pages[1]).await.text, one.get(pages[2]).await.text];
    let rebuilt = rebuild(&ground.place(), &ground.nats, |_| {}).await.unwrap();
    assert_eq!(rebuilt.seq, 82);
    for api in [&one, &two] {
        for (page, before) in pages.iter().zip(&before) {
            assert_eq!(&api.get(page).await.text, before);
        }
        api.command("a", "start-0", "start").await.json(202);
    }
    // They go on from there.
    assert_eq!(two.command("a", "again", "start").await.json(202)["accepted_at_seq"], 83);
    assert_eq!(one.ready().await.json(200)["projection"], json!({"seq": 83, "of": 83}));
    two.ready().await;
}
