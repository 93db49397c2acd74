//! The log over HTTP.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::World;
use serde_json::{Value, json};

#[tokio::test]
async fn events_are_lines_of_the_log_in_pages() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    api.create("gate").await.json(201);
    api.create("yard").await.json(201);
    for key in ["k1", "k2", "k3"] {
        api.command("gate", key, "stop").await.problem(409, "not_running");
    }
    let seqs = |page: &Value| -> Vec<u64> {
        page["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect()
    };
    let page = api.get("/v1/scenarios/gate/events").await;
    let all = page.json(200);
    assert_eq!((seqs(&all), &all["next"]), (vec![1, 3, 4, 5], &json!(null)));
    let line = &all["events"][1];
    assert_eq!(
        *line,
        json!({"seq": 3, "time": line["time"], "scenario": "gate", "type": "command_refused", "version": 1,
               "cause": {"input": 3, "id": "k1"}, "actor": "api", "data": {"command": "stop", "reason": "not_running"}})
    );
    assert!(page.text.contains(r#"{"seq":3,"time":""#), "in the order of design.md: {}", page.text);

    let page = api.get("/v1/scenarios/gate/events?limit=2").await.json(200);
    assert_eq!((seqs(&page), &page["next"]), (vec![1, 3], &json!(4)));
    let page = api.get("/v1/scenarios/gate/events?from=4&limit=2").await.json(200);
    assert_eq!((seqs(&page), &page["next"]), (vec![4, 5], &json!(null)));
    let page = api.get("/v1/scenarios/gate/events?from=18446744073709551615").await.json(200);
    assert_eq!(page, json!({"events": [], "next": null, "seq": 5}), "past the end is no error: it will come");
    api.get("/v1/scenarios/never/events").await.problem(404, "not_found");
    for bad in ["limit=0", "limit=1001", "limit=x", "from=-1", "from=1.5", "from="] {
        api.get(&format!("/v1/scenarios/gate/events?{bad}")).await.problem(400, "bad_request");
    }
    assert_eq!(api.delete("/v1/scenarios/gate").await.status, 204);
    let page = api.get("/v1/scenarios/gate/events?from=6").await.json(200);
    assert_eq!(page["events"][0]["type"], "scenario_deleted", "the log of a deleted one stays");
}
