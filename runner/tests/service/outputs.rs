//! What becomes of stored results: files that go on after a crash, and a webhook that is told of each, whoever is away.

use std::{collections::BTreeSet, path::Path};

use kadr_shared::{
    csv,
    domain::{EndReason, EventData},
    id::{CommandId, RunId},
    message::detection::FrameDetections,
    secret::{self, SecretKey, SecretKind, SecretName},
    settings::Settings,
    subjects,
    testkit::eventually,
};
use serde_json::{Value, json};

use crate::{
    receiver::{Answer, Receiver},
    world::{MODEL, World, clip, gate, settings},
};

const FRAMES: u64 = 24;
const RUN: RunId = RunId::from_u128(7);

fn with_outputs(source: &Path, outputs: Value) -> Settings {
    Settings { outputs: serde_json::from_value(outputs).unwrap(), ..settings(source, MODEL) }
}

fn failed(attempt: u32) -> EventData {
    EventData::AttemptFailed { run: RUN, attempt, error: "killed".into(), failures: 1, pause_ms: 0 }
}

/// Runs to the end of the source; gives the fence.
async fn run_to_the_end(world: &mut World, run: RunId, attempt: u32, settings: &Settings) -> u64 {
    let start = world.start_settings(&gate(), run, attempt, settings.clone()).await;
    let name = world.next_claim(start).await;
    let fence = world.assign(&gate(), run, name).await;
    world.ended(fence).await;
    fence
}

/// The end of a run in the log, so that its runner lets go.
async fn let_go(world: &World, run: RunId) {
    world.append(&gate(), EventData::SourceEnded { run, frames: FRAMES, of: Some(FRAMES), error: None }).await;
    world.append(&gate(), EventData::ShutdownAcknowledged { run, gone: false }).await;
    let reason = EndReason::Completed;
    world.append(&gate(), EventData::Deactivated { run, reason, frames: Some(FRAMES), error: None }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_hold_each_result_once_wherever_the_runner_was_killed() {
    for kill_at in [1, 9, FRAMES as usize] {
        let mut world = World::start().await;
        let _inference = world.inference().await;
        let source = clip(world.folder.path(), FRAMES);
        let settings = with_outputs(&source, json!({"video": false, "files": ["jsonl", "csv"]}));
        let runner = world.runner(1);
        let start = world.start_settings(&gate(), RUN, 1, settings.clone()).await;
        let name = world.next_claim(start).await;
        world.assign(&gate(), RUN, name).await;
        let stored = || async { (world.results(&gate()).await.len() >= kill_at).then_some(()) };
        eventually("results are stored", stored).await;
        runner.kill();
        world.append(&gate(), failed(1)).await;

        let runner = world.runner(1);
        run_to_the_end(&mut world, RUN, 2, &settings).await;
        let results = world.results(&gate()).await;
        assert_eq!(results.len() as u64, FRAMES);
        let file = |format: &str| {
            let path = world.folder.path().join(format!("recordings/gate/{RUN}.{format}"));
            std::fs::read_to_string(path).unwrap()
        };
        // The end of a run is told when they are complete.
        let lines: Vec<FrameDetections> =
            file("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, results, "killed at {kill_at}");
        let rows: String = results.iter().map(csv::lines).collect();
        assert_eq!(file("csv"), csv::HEADER.to_owned() + &rows, "killed at {kill_at}");
        runner.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_of_each_result_in_order_signed_and_again_until_it_takes_it() {
    let mut world = World::start().await;
    let key: SecretKey = SecretKey::generate().unwrap().parse().unwrap();
    world.secret_key = Some(key.clone());
    let name = SecretName::of(&CommandId::generate(), SecretKind::Signing);
    secret::keep(&world.nats, &key, &gate(), &name, "hunter2").await.unwrap();
    let _inference = world.inference().await;
    let receiver = Receiver::start(&[Answer::Status(503), Answer::Status(301)], Answer::Status(204)).await;
    let source = clip(world.folder.path(), FRAMES);
    let webhook = json!({"url": receiver.url, "secret": name});
    let settings = with_outputs(&source, json!({"video": false, "webhook": webhook}));
    let runner = world.runner(1);
    run_to_the_end(&mut world, RUN, 1, &settings).await;
    receiver.until("all is taken", |r| r.taken().len() as u64 >= FRAMES).await;
    let numbers: Vec<_> = receiver.taken().iter().map(|result| result.frame).collect();
    assert_eq!(numbers, (0..FRAMES).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(receiver.taken(), world.results(&gate()).await);
    let came = receiver.came();
    assert!(came.len() > 2 && !came[0].taken && !came[1].taken);
    assert!(came.iter().any(|delivery| delivery.results().len() > 1), "what has gathered goes in one");
    for delivery in &came {
        let results = delivery.results();
        assert!(results.len() <= 100);
        assert_eq!(delivery.headers["kadr-delivery"], results[0].0.to_string());
        assert_eq!(delivery.headers["content-type"], "application/json");
        assert_eq!(delivery.json()["scenario"], "gate");
        let (time, tag) = delivery.headers["kadr-signature"].split_once(",v1=").unwrap();
        let time = time.strip_prefix("t=").unwrap();
        let mut signed = format!("{time}.").into_bytes();
        signed.extend_from_slice(&delivery.body);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"hunter2");
        let tag: Vec<u8> =
            (0..tag.len()).step_by(2).map(|at| u8::from_str_radix(&tag[at..at + 2], 16).unwrap()).collect();
        ring::hmac::verify(&key, &signed, &tag).unwrap();
    }
    // Nothing comes that was taken, also after another run has begun.
    let_go(&world, RUN).await;
    let next = RunId::from_u128(8);
    run_to_the_end(&mut world, next, 1, &settings).await;
    receiver.until("the next run's are taken", |r| r.taken().len() as u64 >= 2 * FRAMES).await;
    assert_eq!(receiver.taken(), world.results(&gate()).await);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_left_another_one_delivers_although_the_run_is_over() {
    let mut world = World::start().await;
    let _inference = world.inference().await;
    let receiver = Receiver::start(&[], Answer::Status(200)).await;
    let source = clip(world.folder.path(), FRAMES);
    let webhook = json!({"url": receiver.url, "classes": ["car"], "confidence": 0.5, "rate": 5.0});
    let settings = with_outputs(&source, json!({"video": false, "webhook": webhook}));
    let runner = world.runner(1);
    run_to_the_end(&mut world, RUN, 1, &settings).await;
    let_go(&world, RUN).await;
    // 24 frames of 40 ms: the first ones of spans of 200 ms.
    let wanted = [0, 5, 10, 15, 20];
    receiver.until("the first run's are taken", |r| r.taken().len() >= wanted.len()).await;

    // The runner dies with a request in hand, when its run is over.
    receiver.answer(Answer::Silence);
    let next = RunId::from_u128(8);
    run_to_the_end(&mut world, next, 1, &settings).await;
    let_go(&world, next).await;
    receiver.until("a request is there", |r| r.came().iter().any(|delivery| !delivery.taken)).await;
    runner.kill();
    receiver.answer(Answer::Status(200));
    let _other = world.runner(1);
    receiver.until("the rest is taken", |r| r.taken().len() >= 2 * wanted.len()).await;
    let numbers: Vec<_> = receiver.taken().iter().map(|result| result.frame).collect();
    assert_eq!(numbers, [wanted, wanted].concat(), "in order, and what was taken is not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_tells_of_a_receiver_that_takes_nothing_and_settings_without_a_webhook_end_it() {
    let mut world = World::start().await;
    let _inference = world.inference().await;
    let receiver = Receiver::start(&[], Answer::Status(500)).await;
    let source = clip(world.folder.path(), FRAMES);
    let settings = with_outputs(&source, json!({"video": false, "webhook": {"url": receiver.url}}));
    let _runner = world.runner(1);
    run_to_the_end(&mut world, RUN, 1, &settings).await;
    // The run has not been let go yet.
    let told = || async {
        let beats = world.runners(1).await;
        let trouble = beats[0].scenarios.first().and_then(|progress| progress.trouble.clone());
        trouble.filter(|trouble| trouble.contains("the webhook takes no results: it answered 500"))
    };
    eventually("the trouble is told", told).await;
    let nats = world.nats.clone();
    let consumers = || async {
        let stream = nats.jetstream.get_stream(subjects::DETECTIONS).await.unwrap();
        let mut names = stream.consumer_names();
        let mut found = BTreeSet::new();
        while let Some(name) = futures::StreamExt::next(&mut names).await {
            found.insert(name.unwrap());
        }
        found
    };
    assert!(consumers().await.contains("webhook-gate"));
    let_go(&world, RUN).await;
    let without = with_outputs(&source, json!({"video": false}));
    run_to_the_end(&mut world, RunId::from_u128(8), 1, &without).await;
    eventually("it is gone", || async { (!consumers().await.contains("webhook-gate")).then_some(()) }).await;
}
