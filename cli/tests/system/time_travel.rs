//! The past from the command line: a scenario as it was, its history, and recorded detections played again.

use futures::StreamExt;
use kadr_shared::{nats::Nats, testkit::eventually, time::Timestamp};
use serde_json::{Value, json};

use crate::support::{
    clips::{clip, plain},
    home::Home,
    process::Process,
    store::{recorded, stored},
    up::Up,
};

const FRAMES: u32 = 25;

/// Runs the scenario to its end; its log.
async fn run(up: &Up, home: &Home, id: &str) -> Vec<Value> {
    up.kadr(home, &format!("scenario start {id}")).await.success();
    eventually("the run has ended", || async {
        let log = up.kadr(home, &format!("events replay {id} --json")).await.success();
        let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (events.last()?["event"]["type"] == "deactivated").then_some(events)
    })
    .await
}

#[tokio::test]
async fn a_scenario_is_shown_as_it_was_with_how_it_came_to_be() {
    let home = Home::new();
    plain(&home, "clip.mp4", FRAMES);
    let up = Up::start(&home).await;
    up.create(&home, "gate", "clip.mp4").await;
    up.kadr(&home, "scenario configure yard --source clip.mp4 --model tiny")
        .await
        .failed(1, &["no such scenario", "create it first"]);
    let options = "--source clip.mp4 --model tiny --classes car,bus --no-video";
    let shown = up.kadr(&home, &format!("scenario configure gate {options}")).await.success();
    assert!(shown.contains("car, bus"), "{shown}");
    let again = format!("scenario configure gate {options} --key k1 --json");
    assert_eq!(up.kadr(&home, &again).await.json(), up.kadr(&home, &again).await.json());
    let events = run(&up, &home, "gate").await;

    let first = up.kadr(&home, "scenario get gate --at 1 --json").await.json();
    assert_eq!((&first["seq"], &first["settings"]["analysis"]["classes"]), (&json!(1), &json!([])));
    for line in &events {
        let (event, state) = (&line["event"], &line["state"]);
        let shown = up.kadr(&home, &format!("scenario get gate --at {} --json", event["seq"])).await.json();
        assert_eq!((&shown["state"], &shown["seq"]), (&state["phase"]["state"], &event["seq"]), "{line}");
    }
    let at = events.last().unwrap()["event"]["time"].as_str().unwrap();
    assert_eq!(up.kadr(&home, &format!("scenario get gate --at {at} --json")).await.json()["state"], "inactive");
    up.kadr(&home, "scenario get gate --at 2001-01-01T00:00:00Z").await.failed(1, &["not exist then"]);
    up.kadr(&home, "scenario get gate --at 100000").await.failed(1, &["has not happened yet"]);
    up.kadr(&home, "scenario get gate --at yesterday").await.failed(2, &["neither a sequence", "2026-01-31T12"]);

    let history = up.kadr(&home, "scenario history gate --json").await.json();
    let states: Vec<_> = history["transitions"].as_array().unwrap().iter().map(|t| t["to"].as_str().unwrap()).collect();
    let life = ["init_startup", "in_startup_processing", "active", "init_shutdown", "in_shutdown_processing"];
    assert_eq!(states, [&["inactive"], &life[..], &["inactive"]].concat());
    let table = up.kadr(&home, "scenario history gate").await.success();
    for word in ["runner_assigned", "in_shutdown_processing", "inactive for ", "lasted"] {
        assert!(table.contains(word), "{word} in {table}");
    }

    // From a time on, and up to one.
    let middle = events[events.len() / 2]["event"]["time"].as_str().unwrap();
    let (from, to) =
        (format!("events replay gate --json --from {middle}"), format!("events replay gate --json --to {middle}"));
    let (later, earlier) = (up.kadr(&home, &from).await.success(), up.kadr(&home, &to).await.success());
    let time = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"]["time"].as_str().unwrap().to_owned();
    assert!(later.lines().all(|line| time(line).as_str() >= middle) && later.lines().count() > 0, "{later}");
    assert!(earlier.lines().all(|line| time(line).as_str() <= middle) && earlier.lines().count() > 0, "{earlier}");
    assert!(later.lines().count() + earlier.lines().count() > events.len(), "{middle} itself is in both");
    up.process.stop().await.success();
}

#[tokio::test]
async fn recorded_detections_are_played_again() {
    let home = Home::new();
    clip(&home, "clip.mp4", "s=160x120:r=25", &format!("-frames:v {FRAMES} -c:v libx264 -pix_fmt yuv420p"));
    let up = Up::start(&home).await;
    up.create(&home, "gate", "clip.mp4").await;
    let replay = format!("events replay gate --to-subject replay.gate --nats {}", up.nats);
    up.kadr(&home, &replay).await.failed(1, &["no detections of gate are stored"]);
    let begun = Timestamp::now();
    run(&up, &home, "gate").await;
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    let originals = recorded(&nats, "gate").await;
    assert_eq!(originals.len(), FRAMES as usize);
    let mut heard = nats.client.subscribe("replay.>").await.unwrap();
    nats.client.flush().await.unwrap();

    let played = up.kadr(&home, &format!("{replay} --speed max --json")).await.json();
    assert_eq!((&played["played"], &played["interrupted"]), (&json!(FRAMES), &json!(false)));
    let mut sequences = Vec::new();
    for original in &originals {
        let message = heard.next().await.unwrap();
        assert_eq!(message.subject.as_str(), "replay.gate");
        assert_eq!(serde_json::from_slice::<Value>(&message.payload).unwrap(), *original);
        let headers = message.headers.unwrap();
        assert!(headers.get("Kadr-Original-Time").unwrap().as_str().parse::<Timestamp>().unwrap() >= begun);
        sequences.push(headers.get("Kadr-Original-Sequence").unwrap().as_str().parse::<u64>().unwrap());
    }
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    assert_eq!((&played["first"], &played["last"]), (&json!(sequences[0]), &json!(sequences[24])));
    assert_eq!(stored(&nats, "gate").await, originals.len(), "nothing was stored");

    // A part of it, and at its original speed.
    let part = format!("{replay} --from {} --to {}", sequences[5], sequences[7]);
    let shown = up.kadr(&home, &part).await.success();
    assert!(shown.contains("played 3 detections of gate on replay.gate"), "{shown}");
    for sequence in &sequences[5..8] {
        let message = heard.next().await.unwrap();
        assert_eq!(message.headers.unwrap().get("Kadr-Original-Sequence").unwrap().as_str(), sequence.to_string());
    }
    let shown = up.kadr(&home, &format!("{replay} --from {begun} --speed 1000")).await.success();
    assert!(shown.contains(&format!("played {FRAMES} detections")), "from a time on: {shown}");
    for _ in &originals {
        heard.next().await.unwrap();
    }
    let later = Timestamp::now().after(std::time::Duration::from_secs(3600));
    up.kadr(&home, &format!("{replay} --from {later}")).await.failed(1, &["no detections of gate are stored from"]);

    // So slow that it is interrupted on the way.
    let words: Vec<_> = replay.split(' ').collect();
    let slow = Process::start(&mut home.command(words.into_iter().chain(["--speed", "0.001"])));
    heard.next().await.unwrap();
    slow.signal("INT");
    let shown = slow.ended().await.success();
    assert!(shown.contains("played ") && shown.contains("interrupted"), "{shown}");

    for subject in ["kadr.det.gate", "$KV.KADR_NODES.leader", "replay.*"] {
        let refused = home.kadr(&format!("events replay gate --to-subject {subject} --nats {}", up.nats)).await;
        refused.failed(2, &["replay.gate"]);
    }
    home.kadr("events replay gate --to-subject replay.gate").await.failed(2, &["--nats"]);
    home.kadr("events replay gate --speed 2").await.failed(2, &["--to-subject"]);
    let nowhere = "events replay gate --to-subject replay.gate --nats nats://127.0.0.1:1";
    home.kadr(nowhere).await.failed(1, &["no NATS server answers at nats://127.0.0.1:1"]);
    up.process.stop().await.success();
}
