//! Services as processes of their own, killed in the middle of a run: it goes on, and nothing is lost or done twice.

use crate::support::{
    lines::types,
    store::{at_least, happened, log_of, stored},
    world::{ID, World},
};

const FRAMES: usize = 200;

#[tokio::test]
async fn an_orchestrator_killed_in_the_middle_of_a_run_goes_on_from_the_log() {
    let world = World::start(FRAMES).await;
    let services = world.running().await;

    services.orchestrator.kill();
    let at_its_end = stored(&world.nats, ID).await;
    assert!(at_its_end < FRAMES - 20, "{at_its_end}: killed too late");
    // Nobody needs an orchestrator to analyse frames.
    at_least(&world.nats, ID, at_its_end + 10).await;
    let _orchestrator = world.service("orchestrator");
    world.completed(ID).await;
}

#[tokio::test]
async fn an_orchestrator_that_was_away_at_a_runs_end_ends_it_later() {
    let world = World::start(FRAMES).await;
    let services = world.running().await;
    services.orchestrator.kill();
    at_least(&world.nats, ID, FRAMES).await;
    let _orchestrator = world.service("orchestrator");
    world.completed(ID).await;
}

#[tokio::test]
async fn an_inference_worker_killed_in_the_middle_of_a_run_is_told_and_replaced() {
    let world = World::start(FRAMES).await;
    let services = world.running().await;

    services.inference.kill();
    let told = happened(&world.nats, ID, "source_interrupted").await;
    assert_eq!(told["data"]["kind"], "inference", "{told}");
    let _inference = world.service("inference");
    world.completed(ID).await;
}

#[tokio::test]
async fn a_killed_runner_is_replaced_by_another_one_that_goes_on() {
    let world = World::start(FRAMES).await;
    let services = world.running().await;

    let _second = world.service("runner");
    world.runners(2).await;
    services.runner.kill();
    assert!(stored(&world.nats, ID).await < FRAMES - 20, "killed too late");
    assert_eq!(world.completed(ID).await[0], "attempt_failed");

    let log = log_of(&world.nats, ID).await;
    let assigned: Vec<_> = log.iter().filter(|event| event["type"] == "runner_assigned").collect();
    assert_eq!((&assigned[0]["data"]["attempt"], &assigned[1]["data"]["attempt"]), (&1.into(), &2.into()));
    assert_eq!(assigned[0]["data"]["run"], assigned[1]["data"]["run"], "another attempt of the same run");
    assert_ne!(assigned[0]["data"]["runner"], assigned[1]["data"]["runner"]);
}

#[tokio::test]
async fn without_any_runner_a_start_can_be_stopped() {
    let world = World::start(FRAMES).await;
    let _orchestrator = world.service("orchestrator");
    world.create_and_start(ID).await;
    happened(&world.nats, ID, "start_requested").await;
    let asked = std::time::Instant::now();
    world.command("stop", ID).await;
    let last = happened(&world.nats, ID, "deactivated").await;
    assert!(asked.elapsed().as_secs() < 5, "{:?}", asked.elapsed());
    assert_eq!(last["data"]["reason"], "stopped", "{last}");
    assert_eq!(
        types(&log_of(&world.nats, ID).await),
        ["scenario_created", "start_requested", "stop_requested", "shutdown_acknowledged", "deactivated"]
    );
}
