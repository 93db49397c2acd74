//! Commands that are refused, repeated or malformed: by `kadr scenario`, and by HTTP as no client of kadr would send it.

use serde_json::json;

use crate::support::{clips::clip, home::Home, http, up::Up};

#[tokio::test]
async fn ids_that_can_not_be_are_refused_before_anything_is_asked() {
    let home = Home::new();
    let long = "a".repeat(10_000);
    for (id, word) in [("a.b", "'.'"), ("Gate", "'G'"), ("-gate", "-"), (long.as_str(), "at most 63 characters")] {
        let words = if id == "-gate" { vec!["'-g'"] } else { vec![word] };
        home.kadr(&format!("scenario get {id}")).await.failed(2, &words);
    }
    let spaced = home.command(["scenario", "get", "a b"]).output().unwrap();
    let message = String::from_utf8(spaced.stderr).unwrap();
    assert!(spaced.status.code() == Some(2) && message.contains("' '"), "{message}");
}

#[tokio::test]
async fn without_an_api_it_is_told_where_one_was_looked_for() {
    let home = Home::new();
    for command in ["scenario list", "scenario start gate", "events replay gate"] {
        let words = ["http://127.0.0.1:1", "kadr up", "--api"];
        home.kadr(&format!("{command} --api http://127.0.0.1:1")).await.failed(1, &words);
    }
}

#[tokio::test]
async fn commands_that_do_not_fit_are_refused_with_the_reason() {
    let home = Home::new();
    let options = "-frames:v 3000 -c:v libx264 -preset ultrafast -pix_fmt yuv420p";
    clip(&home, "clip.mp4", "s=160x120:r=25", options);
    let up = Up::start(&home).await;
    let ask = async |arguments: &str| up.kadr(&home, arguments).await;
    ask("scenario start gate").await.failed(1, &["no such scenario", "create it first"]);
    up.create(&home, "gate", "clip.mp4").await;
    ask("scenario create gate --source clip.mp4 --model tiny").await.failed(1, &["exists", "another id"]);
    ask("scenario create other --source clip.mp4 --model yolov9").await.failed(1, &["yolov9", "tiny"]);
    ask("scenario create other --source clip.mp4 --model tiny --classes kar").await.failed(1, &["kar", "person"]);
    ask("scenario stop gate").await.failed(1, &["does not run"]);

    let first = ask("scenario start gate --key once --json").await.json();
    assert_eq!(first["id"], "once");
    ask("scenario start gate").await.failed(1, &["runs already"]);
    ask("scenario delete gate").await.failed(1, &["runs", "stop it first"]);
    // The same key again is no second command, and gets the first one's answer.
    assert_eq!(ask("scenario start gate --key once --json").await.json(), first);
    // With another command it is a mistake.
    ask("scenario stop gate --key once").await.failed(1, &["key"]);
    ask("scenario stop gate").await.success();
    up.process.stop().await.success();
}

#[tokio::test]
async fn requests_that_are_not_understood_are_problems_and_change_nothing() {
    let home = Home::new();
    let up = Up::start(&home).await;
    let scenarios = format!("{}/v1/scenarios", up.api);
    let source = json!({"url": "/data/clip.mp4"});
    let good = json!({"source": source, "model": "tiny"});
    let unknown = json!({"source": source, "model": "tiny", "colour": "red"});
    http::post(&format!("{scenarios}?id=gate"), None, &unknown).await.problem(422, "invalid_body");
    for id in ["a.b", "a%20b", &"a".repeat(10_000)] {
        http::post(&format!("{scenarios}?id={id}"), None, &good).await.problem(400, "bad_request");
        http::get(&format!("{scenarios}/{id}")).await.problem(400, "bad_request");
    }
    let listed = http::get(&scenarios).await;
    assert_eq!(listed.body["scenarios"], json!([]), "nothing was created");

    assert_eq!(http::post(&format!("{scenarios}?id=gate"), Some("make"), &good).await.status, 201);
    let commands = format!("{scenarios}/gate/commands");
    let forced = json!({"command": "start", "force": true});
    http::post(&commands, Some("k1"), &forced).await.problem(422, "invalid_body");
    http::post(&commands, Some("k2"), &json!({"command": "jump"})).await.problem(422, "invalid_body");
    // A stop of what never ran, twice with one key: the same answer. The key of something else: a conflict.
    let (start, stop) = (json!({"command": "start"}), json!({"command": "stop"}));
    for _ in 0..2 {
        http::post(&commands, Some("k3"), &stop).await.problem(409, "not_running");
    }
    http::post(&commands, Some("k3"), &start).await.problem(409, "idempotency_conflict");
    http::post(&commands, Some("make"), &start).await.problem(409, "idempotency_conflict");
    let log = http::get(&format!("{scenarios}/gate/events")).await.body;
    assert_eq!(log["events"].as_array().unwrap().len(), 2, "the creation and one refusal: {log}");
    up.process.stop().await.success();
}
