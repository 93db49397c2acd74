//! Services as processes of their own, killed in the middle of a run: it goes on, and nothing is lost or done twice.

use kadr_shared::{
    nats::Nats,
    subjects,
    testkit::{TestServer, eventually},
};

use crate::support::{
    clips::clip,
    home::Home,
    lines::{WHOLE_RUN, types},
    process::Process,
    store::{at_least, each_frame_once, happened, log_of, stored},
    up::create,
};

const FRAMES: usize = 200;
const ID: &str = "gate";

/// A NATS server with an API; the other services are started by each test.
struct World {
    home: Home,
    api: String,
    _api: Process,
    nats: Nats,
    server: TestServer,
}

impl World {
    async fn start() -> Self {
        let (home, server) = (Home::new(), TestServer::start().await);
        let nats = server.nats().await;
        let options = ["api", "--listen", "127.0.0.1:0", "--data", "api", "--nats", server.url()];
        // It tells the port that it got.
        let process = Process::start(home.command(options).env("KADR_LOG", "info"));
        let api = format!("http://{}", process.line_after("the API listens address=").await);
        // Small pictures are made and decoded quickly; the input that they are put into takes some time.
        let options = format!("-frames:v {FRAMES} -c:v libx264 -preset ultrafast -pix_fmt yuv420p");
        clip(&home, "clip.mp4", "s=160x120:r=25", &options);
        Self { home, api, _api: process, nats, server }
    }

    /// Starts a service by itself.
    fn service(&self, name: &str) -> Process {
        let options = [name, "--nats", self.server.url(), "--data", name];
        Process::start(&mut self.home.command(options))
    }

    async fn command(&self, command: &str) {
        self.home.kadr(&format!("scenario {command} {ID} --api {}", self.api)).await.success();
    }

    async fn create_and_start(&self) {
        create(&self.home, &self.api, ID, "clip.mp4").await;
        self.command("start").await;
    }

    /// Waits for the run's end and checks that nothing is missing or there twice; gives the log's types.
    async fn completed(&self) -> Vec<String> {
        let last = happened(&self.nats, ID, "deactivated").await;
        assert_eq!(last["data"]["reason"], "completed", "{last}");
        assert_eq!(last["data"]["frames"], FRAMES);
        each_frame_once(&self.nats, ID, FRAMES).await;
        types(&log_of(&self.nats, ID).await).into_iter().map(str::to_owned).collect()
    }

    /// That the run is in its middle: what is done to it now is done in time.
    async fn in_the_middle(&self) -> usize {
        let count = at_least(&self.nats, ID, 5).await;
        assert!(count < FRAMES / 2, "{count} of {FRAMES}: the run is too quick for this test");
        count
    }

    async fn runners(&self) -> usize {
        let bucket = self.nats.jetstream.get_stream(subjects::NODES_STREAM).await.unwrap();
        let keys: Vec<_> = {
            use futures::TryStreamExt;
            bucket.info_with_subjects(subjects::RUNNERS_ALL).await.unwrap().try_collect().await.unwrap()
        };
        keys.len()
    }
}

#[tokio::test]
async fn an_orchestrator_killed_in_the_middle_of_a_run_goes_on_from_the_log() {
    let world = World::start().await;
    let orchestrator = world.service("orchestrator");
    let (_runner, _inference) = (world.service("runner"), world.service("inference"));
    world.create_and_start().await;
    world.in_the_middle().await;

    orchestrator.kill();
    let at_its_end = stored(&world.nats, ID).await;
    assert!(at_its_end < FRAMES - 20, "{at_its_end}: killed too late");
    // Nobody needs an orchestrator to analyse frames.
    at_least(&world.nats, ID, at_its_end + 10).await;
    let _orchestrator = world.service("orchestrator");
    assert_eq!(world.completed().await, WHOLE_RUN, "no transition is missing or there twice");
}

#[tokio::test]
async fn an_orchestrator_that_was_away_at_a_runs_end_ends_it_later() {
    let world = World::start().await;
    let orchestrator = world.service("orchestrator");
    let (_runner, _inference) = (world.service("runner"), world.service("inference"));
    world.create_and_start().await;
    happened(&world.nats, ID, "activated").await;
    world.in_the_middle().await;
    orchestrator.kill();
    at_least(&world.nats, ID, FRAMES).await;
    let _orchestrator = world.service("orchestrator");
    assert_eq!(world.completed().await, WHOLE_RUN);
}

#[tokio::test]
async fn an_inference_worker_killed_in_the_middle_of_a_run_is_told_and_replaced() {
    let world = World::start().await;
    let (_orchestrator, _runner) = (world.service("orchestrator"), world.service("runner"));
    let inference = world.service("inference");
    world.create_and_start().await;
    world.in_the_middle().await;

    inference.kill();
    let told = happened(&world.nats, ID, "source_interrupted").await;
    assert_eq!(told["data"]["kind"], "inference", "{told}");
    let _inference = world.service("inference");
    let mut types = world.completed().await;
    types.retain(|kind| kind != "source_interrupted" && kind != "source_resumed");
    assert_eq!(types, WHOLE_RUN);
}

#[tokio::test]
async fn a_killed_runner_is_replaced_by_another_one_that_goes_on() {
    let world = World::start().await;
    let (_orchestrator, _inference) = (world.service("orchestrator"), world.service("inference"));
    let first = world.service("runner");
    world.create_and_start().await;
    world.in_the_middle().await;

    let _second = world.service("runner");
    eventually("two runners live", || async { (world.runners().await == 2).then_some(()) }).await;
    first.kill();
    assert!(stored(&world.nats, ID).await < FRAMES - 20, "killed too late");
    let types = world.completed().await;
    let mut wanted = WHOLE_RUN[..4].to_vec();
    wanted.push("attempt_failed");
    wanted.extend(&WHOLE_RUN[1..]);
    assert_eq!(types, wanted);

    let log = log_of(&world.nats, ID).await;
    let assigned: Vec<_> = log.iter().filter(|event| event["type"] == "runner_assigned").collect();
    assert_eq!((&assigned[0]["data"]["attempt"], &assigned[1]["data"]["attempt"]), (&1.into(), &2.into()));
    assert_eq!(assigned[0]["data"]["run"], assigned[1]["data"]["run"], "another attempt of the same run");
    assert_ne!(assigned[0]["data"]["runner"], assigned[1]["data"]["runner"]);
}

#[tokio::test]
async fn without_any_runner_a_start_can_be_stopped() {
    let world = World::start().await;
    let _orchestrator = world.service("orchestrator");
    world.create_and_start().await;
    happened(&world.nats, ID, "start_requested").await;
    let asked = std::time::Instant::now();
    world.command("stop").await;
    let last = happened(&world.nats, ID, "deactivated").await;
    assert!(asked.elapsed().as_secs() < 5, "{:?}", asked.elapsed());
    assert_eq!(last["data"]["reason"], "stopped", "{last}");
    assert_eq!(
        types(&log_of(&world.nats, ID).await),
        ["scenario_created", "start_requested", "stop_requested", "shutdown_acknowledged", "deactivated"]
    );
}
