//! Runners and inference workers that are drained, frozen or missing: their scenarios go on elsewhere, or stop in time.

use std::time::{Duration, Instant};

use kadr_shared::{message::detection::FrameDetections, subjects, tail::Tail, testkit::eventually, time::Timestamp};
use serde_json::Value;

use crate::support::{
    store::{at_least, happened, log_of, stored},
    world::{ID, World},
};

const FRAMES: usize = 120;
/// A stop must take no longer, from the command's to the end's time by the server.
const STOP: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_drained_runner_hands_its_scenario_over_and_ends_well() {
    let world = World::start(FRAMES).await;
    let services = world.running().await;
    let _second = world.service("runner");
    world.runners(2).await;

    let asked = Instant::now();
    services.runner.stop().await.success();
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    assert!(stored(&world.nats, ID).await < FRAMES, "drained too late");
    assert_eq!(world.completed(ID).await[0], "runner_left", "nobody failed");
    assert_ne!(world.runner_of(ID, 1).await, world.runner_of(ID, 2).await);
}

#[tokio::test]
async fn a_drained_runners_scenario_waits_for_a_free_slot() {
    let world = World::start(FRAMES).await;
    let (_orchestrator, inference) = (world.service("orchestrator"), world.service("inference"));
    let one = ["--capacity", "1"];
    let first = world.service_with("runner", &one);
    world.create_and_start(ID).await;
    world.in_the_middle(ID).await;
    let _second = world.service_with("runner", &one);
    world.runners(2).await;
    // Without inference the other one keeps its slot for as long as the test wants.
    inference.kill();
    world.create_and_start("yard").await;
    happened(&world.nats, "yard", "runner_assigned").await;

    first.stop().await.success();
    happened(&world.nats, ID, "runner_left").await;
    eventually("the other one says that it is full", || async {
        let beats = world.beats().await;
        (beats.len() == 1 && beats.values().all(|beat| beat.free == 0)).then_some(())
    })
    .await;
    let types = world.types(ID).await;
    assert_ne!(types.last().unwrap(), "runner_assigned", "there is no room: {types:?}");
    let _inference = world.service("inference");
    world.command("stop", "yard").await;
    assert_eq!(world.completed(ID).await[0], "runner_left");
}

#[tokio::test]
async fn a_frozen_runner_that_wakes_up_changes_nothing_and_is_there_again_under_another_name() {
    let world = World::start(FRAMES).await;
    let services = world.running().await;
    let _second = world.service("runner");
    let names = world.runners(2).await;
    let frozen = world.runner_of(ID, 1).await;

    services.runner.signal("STOP");
    let count = stored(&world.nats, ID).await;
    happened(&world.nats, ID, "attempt_failed").await;
    at_least(&world.nats, ID, count + 3).await;
    services.runner.signal("CONT");
    assert_eq!(world.completed(ID).await[0], "attempt_failed");
    assert_ne!(world.runner_of(ID, 2).await, frozen);
    let fences = fences(&world).await;
    assert!(fences.is_sorted(), "nothing of the old fence is behind the new one's: {fences:?}");
    let again = eventually("the frozen runner competes again", || async {
        Some(world.beats().await).filter(|beats| beats.len() == 2 && !beats.contains_key(&frozen))
    })
    .await;
    assert!(again.keys().any(|name| !names.contains_key(name)), "{again:?} after {names:?}");
    services.runner.stop().await.success();
}

/// The fence of each stored result, in order.
async fn fences(world: &World) -> Vec<u64> {
    let subject = subjects::detections(&ID.parse().unwrap());
    let mut tail = Tail::new(world.nats.jetstream.clone(), subjects::DETECTIONS, subject, 1);
    let mut fences = Vec::new();
    for _ in 0..FRAMES {
        let headers = tail.next().await.message.headers.clone().unwrap();
        fences.push(headers.get("Kadr-Fence").unwrap().as_str().parse().unwrap());
    }
    fences
}

#[tokio::test]
async fn without_any_inference_a_stop_takes_less_than_five_seconds() {
    let world = World::start(FRAMES).await;
    let (_orchestrator, _runner) = (world.service("orchestrator"), world.service("runner"));
    // Nobody has ever answered.
    world.create_and_start("yard").await;
    let told = happened(&world.nats, "yard", "source_interrupted").await;
    assert_eq!(told["data"]["error"], "no inference for tiny", "{told}");
    world.command("stop", "yard").await;
    stopped_in_time(&world, "yard").await;

    // Nobody answers any more.
    let inference = world.service("inference");
    world.create_and_start(ID).await;
    happened(&world.nats, ID, "activated").await;
    inference.kill();
    world.command("stop", ID).await;
    stopped_in_time(&world, ID).await;
}

async fn stopped_in_time(world: &World, id: &str) {
    happened(&world.nats, id, "deactivated").await;
    let log = log_of(&world.nats, id).await;
    let at = |kind: &str| -> Timestamp {
        let event: &Value = log.iter().find(|event| event["type"] == kind).unwrap();
        event["time"].as_str().unwrap().parse().unwrap()
    };
    let took = at("deactivated").since(at("stop_requested"));
    assert!(took < STOP, "{took:?}: {log:#?}");
    let gone = log.iter().filter(|event| event["type"] == "shutdown_acknowledged").any(|e| e["data"]["gone"] == true);
    assert!(!gone, "the runner answered: {log:#?}");
}

#[tokio::test]
async fn frames_in_a_frozen_workers_hand_go_to_another_one() {
    let world = World::start(FRAMES).await;
    let (_orchestrator, _runner) = (world.service("orchestrator"), world.service("runner"));
    let (first, second) = (world.service("inference"), world.service("inference"));
    world.create_and_start(ID).await;
    world.in_the_middle(ID).await;
    first.signal("STOP");
    world.completed(ID).await;
    let types = world.types(ID).await;
    assert!(!types.iter().any(|kind| kind == "source_interrupted"), "the other one answers: there is nothing to tell");
    let longest = longest_gap(&world).await;
    assert!(longest < Duration::from_secs(8), "a frame was given up for {longest:?}");
    first.signal("CONT");
    first.stop().await.success();
    second.stop().await.success();
}

/// The longest time between two results, by the server's clock.
async fn longest_gap(world: &World) -> Duration {
    let subject = subjects::detections(&ID.parse().unwrap());
    let mut tail = Tail::new(world.nats.jetstream.clone(), subjects::DETECTIONS, subject, 1);
    let mut times = Vec::new();
    for _ in 0..FRAMES {
        let entry = tail.next().await;
        let _: FrameDetections = serde_json::from_slice(&entry.message.payload).unwrap();
        times.push(entry.time);
    }
    times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap()
}
