//! Services as processes of their own on one NATS: an API is there, the others are started and broken by each test.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use kadr_shared::{
    nats::Nats,
    nodes::RunnerBeat,
    subjects,
    testkit::{TestServer, eventually},
};

use super::{
    clips::clip,
    home::Home,
    lines::{WHOLE_RUN, last_attempt, types},
    process::Process,
    store::{at_least, each_frame_once, happened, log_of},
    up::create,
};

/// The scenario of most tests.
pub(crate) const ID: &str = "gate";

pub(crate) struct World {
    pub(crate) home: Home,
    pub(crate) api: String,
    pub(crate) nats: Nats,
    /// Of the test's clip.
    frames: usize,
    url: String,
    _api: Process,
    /// It ends with the world.
    _server: Option<TestServer>,
}

/// One of each service that a scenario needs.
pub(crate) struct Services {
    pub(crate) orchestrator: Process,
    pub(crate) runner: Process,
    pub(crate) inference: Process,
}

impl World {
    /// On a server of its own, with a clip of so many frames.
    pub(crate) async fn start(frames: usize) -> Self {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        let url = server.url().to_owned();
        Self { _server: Some(server), ..Self::on(&url, nats, frames).await }
    }

    /// On a NATS that the test keeps.
    pub(crate) async fn on(url: &str, nats: Nats, frames: usize) -> Self {
        let home = Home::new();
        let options = ["api", "--listen", "127.0.0.1:0", "--data", "api", "--nats", url];
        // It tells the port that it got.
        let process = Process::start(home.command(options).env("KADR_LOG", "info"));
        let api = format!("http://{}", process.line_after("the API listens address=").await);
        // Small pictures are made and decoded quickly; the input that they are put into takes some time.
        let options = format!("-frames:v {frames} -c:v libx264 -preset ultrafast -pix_fmt yuv420p");
        clip(&home, "clip.mp4", "s=160x120:r=25", &options);
        Self { home, api, _api: process, nats, frames, url: url.to_owned(), _server: None }
    }

    /// Starts a service by itself.
    pub(crate) fn service(&self, name: &str) -> Process {
        self.service_with(name, &[])
    }

    pub(crate) fn service_with(&self, name: &str, options: &[&str]) -> Process {
        let all = [name, "--nats", &self.url, "--data", name].into_iter().chain(options.iter().copied());
        Process::start(&mut self.home.command(all))
    }

    pub(crate) async fn command(&self, command: &str, id: &str) {
        self.home.kadr(&format!("scenario {command} {id} --api {}", self.api)).await.success();
    }

    pub(crate) async fn create_and_start(&self, id: &str) {
        create(&self.home, &self.api, id, "clip.mp4").await;
        self.command("start", id).await;
    }

    /// Waits for the end of a run that must complete with each frame once; tells how the attempts before the last one ended.
    pub(crate) async fn completed(&self, id: &str) -> Vec<String> {
        let last = happened(&self.nats, id, "deactivated").await;
        assert_eq!(last["data"]["reason"], "completed", "{last}");
        // A runner that is not heard at the end can't say it there; that its source has ended it has said.
        let frames = &last["data"]["frames"];
        assert!(frames.is_null() || *frames == self.frames, "{last}");
        let ended = happened(&self.nats, id, "source_ended").await;
        assert_eq!(ended["data"]["frames"], self.frames, "{ended}");
        each_frame_once(&self.nats, id, self.frames).await;
        let types = self.types(id).await;
        let types: Vec<_> = types.iter().map(String::as_str).collect();
        let (last, ends) = last_attempt(&types);
        assert_eq!(last, WHOLE_RUN, "no transition is missing or there twice: {types:?}");
        ends.into_iter().map(str::to_owned).collect()
    }

    /// The types of a scenario's log so far.
    pub(crate) async fn types(&self, id: &str) -> Vec<String> {
        types(&log_of(&self.nats, id).await).into_iter().map(str::to_owned).collect()
    }

    /// Starts one of each service and a scenario, and waits until this is in its middle.
    pub(crate) async fn running(&self) -> Services {
        let [orchestrator, runner, inference] = ["orchestrator", "runner", "inference"].map(|name| self.service(name));
        self.create_and_start(ID).await;
        self.in_the_middle(ID).await;
        Services { orchestrator, runner, inference }
    }

    /// That the run is in its middle: what is done to it now is done in time.
    pub(crate) async fn in_the_middle(&self, id: &str) -> usize {
        let count = at_least(&self.nats, id, 5).await;
        assert!(count < self.frames / 2, "{count} of {}: the run is too quick for this test", self.frames);
        count
    }

    /// What runners say of themselves.
    pub(crate) async fn beats(&self) -> BTreeMap<String, RunnerBeat> {
        let Ok(bucket) = self.nats.jetstream.get_stream(subjects::NODES_STREAM).await else { return BTreeMap::new() };
        let Ok(keys) = bucket.info_with_subjects(subjects::RUNNERS_ALL).await else { return BTreeMap::new() };
        let keys: Vec<(String, usize)> = keys.try_collect().await.unwrap_or_default();
        let mut beats = BTreeMap::new();
        for (key, _) in keys {
            if let Ok(message) = bucket.get_last_raw_message_by_subject(&key).await
                && let Ok(beat) = serde_json::from_slice::<RunnerBeat>(&message.payload)
            {
                beats.insert(beat.runner.to_string(), beat);
            }
        }
        beats
    }

    /// Waits until so many runners live.
    pub(crate) async fn runners(&self, count: usize) -> BTreeMap<String, RunnerBeat> {
        let what = format!("{count} runners live");
        eventually(&what, || async { Some(self.beats().await).filter(|beats| beats.len() == count) }).await
    }

    /// The runner that the log names for an attempt, counted from 1.
    pub(crate) async fn runner_of(&self, id: &str, attempt: usize) -> String {
        let log = log_of(&self.nats, id).await;
        let mut assigned = log.iter().filter(|event| event["type"] == "runner_assigned");
        assigned.nth(attempt - 1).unwrap()["data"]["runner"].as_str().unwrap().to_owned()
    }
}
