//! Stored results over HTTP: in pages, and as they come.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use common::{RunningApi, World};
use kadr_shared::{
    csv,
    message::detection::FrameDetections,
    nats::Nats,
    publish::{Stored, publish},
    subjects,
    testkit::PATIENCE,
};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

fn result(scenario: &str, frame: u64, found: &[(&str, f64)]) -> FrameDetections {
    let found = found.iter().map(|(label, confidence)| {
        json!({"class": 0, "label": label, "confidence": confidence, "box": [frame as f32, 2.0, 3.0, 4.0]})
    });
    serde_json::from_value(json!({
        "scenario": scenario, "run": "00000000-0000-0000-0000-000000000001", "frame": frame,
        "pts_ms": frame as f64 * 100.0, "captured_at": "2026-01-31T12:00:00.000Z", "width": 64, "height": 48,
        "detections": found.collect::<Vec<_>>(),
        "model": {"name": "tiny", "sha256": "0", "precision": "f32"}, "timing_ms": {"queue": 0.0, "inference": 0.0},
    }))
    .unwrap()
}

async fn store(nats: &Nats, result: &FrameDetections) -> u64 {
    let payload = serde_json::to_vec(result).unwrap();
    let message = async_nats::jetstream::message::PublishMessage::build().payload(payload.into());
    match publish(&nats.jetstream, subjects::detections(&result.scenario), message).await.unwrap() {
        Stored::At(seq) => seq,
        other => panic!("{other:?}"),
    }
}

/// Twenty frames, every other one of another scenario: a person in each, a car in every fourth.
async fn street(nats: &Nats) -> Vec<FrameDetections> {
    let mut stored = Vec::new();
    for frame in 0..20 {
        let found: &[_] = if frame % 4 == 0 { &[("person", 0.9), ("car", 0.6)] } else { &[("person", 0.4)] };
        stored.push(result("gate", frame, found));
        store(nats, stored.last().unwrap()).await;
        store(nats, &result("yard", frame, &[])).await;
    }
    stored
}

fn frames(page: &Value) -> Vec<u64> {
    page["results"].as_array().unwrap().iter().map(|r| r["frame"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn pages_hold_what_is_wanted_in_each_format_and_lead_on() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    api.create("gate").await.json(201);
    let none = api.get("/v1/scenarios/gate/detections").await.json(200);
    assert_eq!(none, json!({"results": [], "next": null}));
    let stored = street(&world.nats).await;
    let all = api.get("/v1/scenarios/gate/detections").await.json(200);
    assert_eq!((frames(&all), &all["next"]), ((0..20).collect(), &json!(null)));
    let mut first: Value = serde_json::from_str(&serde_json::to_string(&stored[0]).unwrap()).unwrap();
    first["seq"] = json!(1);
    assert_eq!(all["results"][0], first);

    for (query, wanted) in [
        ("class=car", vec![0, 4, 8, 12, 16]),
        ("class=car,%20bus&confidence=0.7", vec![]),
        ("confidence=0.9", vec![0, 4, 8, 12, 16]),
        ("rate=1", vec![0, 10]),
        ("class=car&rate=1", vec![0, 12]),
    ] {
        let mut found = Vec::new();
        let mut from = 1;
        loop {
            let path = format!("/v1/scenarios/gate/detections?{query}&limit=2&from={from}");
            let page = api.get(&path).await.json(200);
            found.extend(frames(&page));
            match page["next"].as_u64() {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!(found, wanted, "{query}");
    }

    let lines = api.get("/v1/scenarios/gate/detections?format=jsonl&limit=1000").await;
    assert_eq!(lines.content_type, "application/jsonl");
    let parsed: Vec<FrameDetections> = lines.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed, stored);
    let table = api.get("/v1/scenarios/gate/detections?format=csv&class=car").await;
    let rows: String = stored
        .iter()
        .flat_map(|r| csv::lines(r).lines().map(|l| format!("{l}\n")).collect::<Vec<_>>())
        .filter(|line| line.contains(",car,"))
        .collect();
    assert_eq!(table.text, csv::HEADER.to_owned() + &rows);
    let page = api.request(Method::GET, "/v1/scenarios/gate/detections?format=csv&limit=2").send().await.unwrap();
    assert_eq!(page.headers()["Kadr-Next"], "4");

    api.get("/v1/scenarios/never/detections").await.problem(404, "not_found");
    for bad in ["limit=0", "limit=1001", "from=x", "class=", "class=a,,b", "confidence=2", "rate=0", "format=xml"] {
        api.get(&format!("/v1/scenarios/gate/detections?{bad}")).await.problem(400, "bad_request");
    }
}

/// A reader of server-sent events.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(api: &RunningApi, query: &str, last: Option<u64>) -> Self {
        let mut request = api.request(Method::GET, &format!("/v1/scenarios/gate/detections/live?{query}"));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last.to_string());
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event's id and frame; none: the stream has ended.
    async fn next(&mut self) -> Option<(u64, u64)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                let field = |name: &str| event.lines().find_map(|l| l.strip_prefix(name).map(str::to_owned));
                if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                    assert_eq!(field("event: ").unwrap(), "detections");
                    let data: Value = serde_json::from_str(&data).unwrap();
                    assert_eq!(data["seq"].to_string(), id);
                    return Some((id.parse().unwrap(), data["frame"].as_u64().unwrap()));
                }
                continue;
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("something in time");
            self.text.push_str(std::str::from_utf8(&chunk.ok().flatten()?).unwrap());
        }
    }
}

#[tokio::test]
async fn a_live_stream_is_taken_up_again_anywhere_without_loss_or_repeat() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    api.create("gate").await.json(201);
    store(&world.nats, &result("gate", 100, &[])).await;
    let mut now = Events::open(api, "", None).await;
    let mut all = Events::open(api, "from=1", None).await;
    assert_eq!(all.next().await.unwrap().1, 100);
    street(&world.nats).await;
    for frame in 0..20 {
        assert_eq!(now.next().await.unwrap().1, frame, "from when it was asked for");
        assert_eq!(all.next().await.unwrap().1, frame);
    }

    let folder = TempDir::with_prefix("kadr-api-").unwrap();
    let other = RunningApi::start(world.nats.clone(), folder.path()).await;
    common::eventually_get(&other, "/v1/scenarios/gate", |_| true).await;
    let mut seen = Vec::new();
    let mut last = Some(1);
    // Whoever is asked, and wherever it broke off.
    for read in [1, 1, 2] {
        let api = if seen.len() % 2 == 0 { &other } else { api };
        let mut events = Events::open(api, "class=car&rate=2", last).await;
        for _ in 0..read {
            let (id, frame) = events.next().await.unwrap();
            last = Some(id);
            seen.push(frame);
        }
    }
    assert_eq!(seen, [0, 8, 12, 16]);
    other.stop().await;
}

#[tokio::test]
async fn a_live_stream_ends_with_its_api_and_bad_questions_are_refused() {
    let (world, _orchestrator) = World::start().await;
    world.api.create("gate").await.json(201);
    let folder = TempDir::with_prefix("kadr-api-").unwrap();
    let api = RunningApi::start(world.nats.clone(), folder.path()).await;
    common::eventually_get(&api, "/v1/scenarios/gate", |_| true).await;
    let mut events = Events::open(&api, "", None).await;
    api.get("/v1/scenarios/never/detections/live").await.problem(404, "not_found");
    for bad in ["from=x", "class=", "confidence=-1", "rate=fast"] {
        api.get(&format!("/v1/scenarios/gate/detections/live?{bad}")).await.problem(400, "bad_request");
    }
    let stopping = tokio::spawn(api.stop());
    assert_eq!(events.next().await, None);
    timeout(Duration::from_secs(4), stopping).await.expect("it does not hold the API up").unwrap();
}
