//! The orchestrator on a real nats-server: commands and facts go in, the log comes out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::time::Duration;

use async_nats::jetstream::{consumer::pull, stream::DiscardPolicy};
use futures::{StreamExt, TryStreamExt};
use kadr_orchestrator::{Config, run};
use kadr_shared::{
    domain::{Command, CommandEnvelope, EventData, Fact, Refusal},
    id::{RunId, RunnerId, ScenarioId},
    inbox, log,
    nats::Nats,
    nodes::{self, RunnerBeat},
    streams::{self, NODE_RENEWAL},
    subjects,
    tail::Tail,
    testkit::{PATIENCE, TestServer, eventually},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct World {
    server: TestServer,
    nats: Nats,
    log: Tail,
}

impl World {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        let log = log::tail(&nats, 1);
        Self { server, nats, log }
    }

    async fn orchestrator(&self, name: &str) -> (CancellationToken, JoinHandle<()>) {
        let shutdown = CancellationToken::new();
        let nats = Nats::connect(self.server.url(), name).await.unwrap();
        let (config, token) = (Config { name: name.into() }, shutdown.clone());
        (shutdown, tokio::spawn(async move { run(config, nats, token).await.unwrap() }))
    }

    async fn command(&self, key: &str, command: Command) {
        let envelope = CommandEnvelope { id: key.parse().unwrap(), actor: "test".into(), command };
        inbox::send_command(&self.nats, &gate(), &envelope).await.unwrap();
    }

    async fn fact(&self, run: RunId, fact: Fact) {
        inbox::send_fact(&self.nats, &gate(), run, &runner(), 0, fact).await.unwrap();
    }

    /// The next event of the log, which must come in time.
    async fn next(&mut self) -> (u64, String, EventData) {
        let entry = tokio::time::timeout(PATIENCE, self.log.next()).await.expect("an event in time");
        let event = log::read(&entry).unwrap();
        (event.seq, event.cause.id.clone(), event.parse().unwrap())
    }

    async fn kinds(&mut self, count: usize) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        for _ in 0..count {
            kinds.push(self.next().await.2.kind());
        }
        kinds
    }
}

fn gate() -> ScenarioId {
    "gate".parse().unwrap()
}

fn runner() -> RunnerId {
    "r1".parse().unwrap()
}

fn create() -> Command {
    Command::Create { settings: serde_json::from_str(r#"{"source": {"url": "/data/a.mp4"}}"#).unwrap() }
}

/// A runner's signs of life, and nothing else of it.
fn beat(nats: Nats) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut renewal = tokio::time::interval(NODE_RENEWAL);
        loop {
            renewal.tick().await;
            let beat = RunnerBeat { runner: runner(), capacity: 1, free: 1, scenarios: Vec::new() };
            nodes::renew_runner(&nats, &beat).await.unwrap();
        }
    })
}

#[tokio::test]
async fn a_run_goes_through_its_states_and_every_command_is_answered() {
    let mut world = World::new().await;
    let _orchestrator = world.orchestrator("o1").await;
    let life = beat(world.nats.clone());
    world.command("k1", create()).await;
    world.command("k2", Command::Start).await;
    world.command("k3", Command::Start).await;
    assert_eq!(world.next().await.1, "k1");
    let (start, _, EventData::StartRequested { run, .. }) = world.next().await else { panic!("a start") };
    let (_, cause, refused) = world.next().await;
    assert_eq!(cause, "k3");
    assert!(matches!(refused, EventData::CommandRefused { reason: Refusal::AlreadyRunning, .. }));

    world.fact(run, Fact::Claimed { start }).await;
    let (fence, _, assigned) = world.next().await;
    assert!(matches!(assigned, EventData::RunnerAssigned { runner: r, .. } if r == runner()));
    world.fact(run, Fact::Streaming { fence }).await;
    world.fact(run, Fact::Ended { fence, frames: 9, of: Some(9), error: None }).await;
    assert_eq!(world.kinds(2).await, ["activated", "source_ended"]);
    world.fact(run, Fact::Stopping { fence }).await;
    world.fact(run, Fact::Released { fence, frames: 9 }).await;
    assert_eq!(world.kinds(2).await, ["shutdown_acknowledged", "deactivated"]);
    life.abort();
}

#[tokio::test]
async fn a_stop_that_nobody_is_there_to_hear_ends_the_run() {
    let mut world = World::new().await;
    let _orchestrator = world.orchestrator("o1").await;
    world.command("k1", create()).await;
    world.command("k2", Command::Start).await;
    world.command("k3", Command::Stop).await;
    world.command("k4", Command::Delete).await;
    assert_eq!(
        world.kinds(6).await,
        [
            "scenario_created",
            "start_requested",
            "stop_requested",
            "shutdown_acknowledged",
            "deactivated",
            "scenario_deleted"
        ]
    );
}

#[tokio::test]
async fn a_runner_that_shows_no_life_is_given_up_and_its_late_facts_are_void() {
    let mut world = World::new().await;
    let _orchestrator = world.orchestrator("o1").await;
    world.command("k1", create()).await;
    world.command("k2", Command::Start).await;
    world.next().await;
    let (start, _, EventData::StartRequested { run, .. }) = world.next().await else { panic!("a start") };
    world.fact(run, Fact::Claimed { start }).await;
    let (fence, ..) = world.next().await;
    // No beat follows: lost, and after a pause the next attempt begins.
    assert_eq!(world.kinds(2).await, ["attempt_failed", "start_requested"]);
    world.fact(run, Fact::Streaming { fence }).await;
    world.command("k3", Command::Stop).await;
    assert_eq!(world.kinds(3).await, ["stop_requested", "shutdown_acknowledged", "deactivated"]);
}

#[tokio::test]
async fn a_silent_runner_does_not_keep_a_scenario_from_stopping() {
    let mut world = World::new().await;
    let _orchestrator = world.orchestrator("o1").await;
    let life = beat(world.nats.clone());
    world.command("k1", create()).await;
    world.command("k2", Command::Start).await;
    world.next().await;
    let (start, _, EventData::StartRequested { run, .. }) = world.next().await else { panic!("a start") };
    world.fact(run, Fact::Claimed { start }).await;
    world.next().await;
    world.command("k3", Command::Stop).await;
    // It lives but never lets go.
    assert_eq!(world.kinds(3).await, ["stop_requested", "shutdown_acknowledged", "deactivated"]);
    life.abort();
}

#[tokio::test]
async fn the_next_orchestrator_goes_on_where_the_last_one_died() {
    let mut world = World::new().await;
    let (_, first) = world.orchestrator("o1").await;
    world.command("k1", create()).await;
    world.command("k2", Command::Start).await;
    assert_eq!(world.kinds(2).await, ["scenario_created", "start_requested"]);
    // Dropped where it stands: the leader's key is not released.
    first.abort();
    world.command("k3", Command::Stop).await;
    world.command("k4", Command::Start).await;
    let _second = world.orchestrator("o2").await;
    assert_eq!(
        world.kinds(4).await,
        ["stop_requested", "shutdown_acknowledged", "deactivated", "start_requested"],
        "in order, nothing twice"
    );
}

#[tokio::test]
async fn it_gives_its_leadership_up_when_it_is_stopped() {
    let world = World::new().await;
    let (shutdown, task) = world.orchestrator("o1").await;
    world.command("k1", create()).await;
    let mut world = world;
    world.next().await;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), task).await.expect("it ends").unwrap();
    assert_eq!(nodes::read_leader(&world.nats).await.unwrap().holder, None);
}

#[tokio::test]
async fn a_start_that_was_taken_but_never_claimed_is_offered_again() {
    let mut world = World::new().await;
    let _orchestrator = world.orchestrator("o1").await;
    world.command("k1", create()).await;
    world.command("k2", Command::Start).await;
    world.next().await;
    let (first, _, EventData::StartRequested { run, .. }) = world.next().await else { panic!("a start") };
    // A runner that takes it out of the queue and dies before it has claimed it.
    let stream = world.nats.jetstream.get_stream(subjects::EVENTS).await.unwrap();
    let config = pull::Config {
        durable_name: Some(subjects::STARTS_CONSUMER.into()),
        filter_subject: subjects::STARTS.into(),
        ..Default::default()
    };
    let queue = stream.create_consumer(config).await.unwrap();
    let mut starts = queue.stream().messages().await.unwrap();
    starts.next().await.unwrap().unwrap().ack().await.unwrap();

    let (second, cause, again) = world.next().await;
    assert!(second > first && cause == "start_lost", "{cause}");
    assert!(matches!(again, EventData::StartRequested { run: r, attempt: 1, .. } if r == run), "{again:?}");
    // The claim of the first, should it still come, is void; that of the second counts.
    world.fact(run, Fact::Claimed { start: first }).await;
    world.fact(run, Fact::Claimed { start: second }).await;
    assert_eq!(world.kinds(1).await, ["runner_assigned"]);
}

#[tokio::test]
async fn a_log_that_takes_nothing_is_told_and_what_was_asked_is_done_later() {
    let mut world = World::new().await;
    let _orchestrator = world.orchestrator("o1").await;
    world.command("k1", create()).await;
    world.next().await;
    let mut config = world.nats.jetstream.get_stream(subjects::EVENTS).await.unwrap().cached_info().config.clone();
    config.discard = DiscardPolicy::New;
    config.max_messages = 1;
    world.nats.jetstream.update_stream(&config).await.unwrap();
    world.command("k2", Command::Start).await;
    world.command("k3", Command::Stop).await;
    eventually("the leader tells of it", || async {
        nodes::read_leader(&world.nats).await?.holder?.trouble.filter(|text| text.contains("maximum messages"))
    })
    .await;
    config.max_messages = -1;
    world.nats.jetstream.update_stream(&config).await.unwrap();
    assert_eq!(
        world.kinds(4).await,
        ["start_requested", "stop_requested", "shutdown_acknowledged", "deactivated"],
        "in order, each once"
    );
    eventually("all is well again", || async {
        nodes::read_leader(&world.nats).await?.holder?.trouble.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn deleting_takes_the_detections_and_leaves_the_log_which_goes_on() {
    let mut world = World::new().await;
    let _orchestrator = world.orchestrator("o1").await;
    world.command("k1", create()).await;
    world.next().await;
    for subject in ["kadr.det.gate", "kadr.det.yard"] {
        world.nats.jetstream.publish(subject, "x".into()).await.unwrap().await.unwrap();
    }
    let detections = world.nats.jetstream.get_stream(subjects::DETECTIONS).await.unwrap();
    for name in ["webhook-gate", "webhook-yard"] {
        let config = pull::Config { durable_name: Some(name.into()), ..pull::Config::default() };
        detections.create_consumer(config).await.unwrap();
    }
    world.command("k2", Command::Delete).await;
    world.command("k3", create()).await;
    assert_eq!(world.kinds(1).await, ["scenario_deleted"]);
    let (_, _, again) = world.next().await;
    assert!(matches!(again, EventData::ScenarioCreated { generation: 2, .. }), "{again:?}");
    let consumers: Vec<String> = detections.consumer_names().try_collect().await.unwrap();
    assert_eq!(consumers, ["webhook-yard"], "nobody is told of what is gone");
    let left: Vec<(String, usize)> = detections.info_with_subjects(">").await.unwrap().try_collect().await.unwrap();
    assert_eq!(left, [("kadr.det.yard".to_owned(), 1)], "only its own are gone");
    let log = world.nats.jetstream.get_stream(subjects::EVENTS).await.unwrap();
    assert_eq!(log.cached_info().state.messages, 3, "nothing is taken out of the log");
}

#[tokio::test]
async fn a_log_that_was_replaced_is_not_written_to() {
    let mut world = World::new().await;
    let nats = Nats::connect(world.server.url(), "o1").await.unwrap();
    let shutdown = CancellationToken::new();
    let orchestrator = tokio::spawn(run(Config { name: "o1".into() }, nats, shutdown));
    world.command("k1", create()).await;
    world.next().await;
    world.nats.jetstream.delete_stream(subjects::EVENTS).await.unwrap();
    streams::ensure(&world.nats).await.unwrap();
    world.command("k2", Command::Start).await;
    let error = tokio::time::timeout(PATIENCE, orchestrator).await.expect("it ends").unwrap().unwrap_err();
    assert!(error.to_string().contains("replaced"), "{error}");
    assert_eq!(world.nats.jetstream.get_stream(subjects::EVENTS).await.unwrap().cached_info().state.messages, 0);
}
