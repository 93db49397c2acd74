//! A log that is written by hand, answers that are made up, and runners that are killed without a word.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use futures::{StreamExt, TryStreamExt};
use kadr_runner::{Config, Limits};
use kadr_shared::{
    domain::{Cause, EventData, Fact, FactEnvelope},
    id::{RunId, RunnerId, ScenarioId},
    log,
    message::{
        detection::{Detection, FrameDetections, ModelStamp, RawOutcome, RawResult, Timing},
        frame::FrameHeader,
    },
    nats::Nats,
    nodes::RunnerBeat,
    publish::Stored,
    secret::SecretKey,
    settings::Settings,
    subjects::{self, FrameClass},
    tail::Tail,
    testkit::{PATIENCE, TestServer, eventually},
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

pub(crate) struct World {
    pub(crate) nats: Nats,
    pub(crate) folder: TempDir,
    /// That runners read secrets with.
    pub(crate) secret_key: Option<SecretKey>,
    server: TestServer,
    inbox: Tail,
}

impl World {
    pub(crate) async fn start() -> Self {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        let inbox = Tail::new(nats.jetstream.clone(), subjects::INBOX, subjects::INBOX_ALL, 1);
        Self { nats, folder: tempfile::tempdir().unwrap(), secret_key: None, server, inbox }
    }

    /// A runner that can be killed without a word: it has threads of its own.
    pub(crate) fn runner(&self, capacity: usize) -> Runner {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (url, stop) = (self.server.url().to_owned(), CancellationToken::new());
        let secret_key = self.secret_key.clone();
        let data = self.folder.path().to_owned();
        let config = Config { capacity, limits: Limits::default(), secret_key, ..Config::new(data) };
        let shutdown = stop.clone();
        let task = runtime.spawn(async move {
            let control = Nats::connect(&url, "control").await.unwrap();
            let frames = Nats::connect(&url, "frames").await.unwrap();
            kadr_runner::run(config, control, frames, shutdown).await.unwrap();
        });
        Runner { runtime: Some(runtime), task, stop }
    }

    /// Appends an event; gives its sequence.
    pub(crate) async fn append(&self, scenario: &ScenarioId, data: EventData) -> u64 {
        let stream = self.nats.jetstream.get_stream(subjects::EVENTS).await.unwrap();
        let last = stream.get_last_raw_message_by_subject(&subjects::events_of(scenario)).await;
        let cause = Cause { input: None, id: "test".into() };
        let last = last.map_or(0, |message| message.sequence);
        match log::append(&self.nats, scenario, last, cause, "test".into(), &data).await.unwrap() {
            Stored::At(seq) => seq,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn start_scenario(&self, scenario: &ScenarioId, run: RunId, attempt: u32, source: &Path) -> u64 {
        self.start_with(scenario, run, attempt, source, MODEL).await
    }

    pub(crate) async fn start_with(
        &self,
        scenario: &ScenarioId,
        run: RunId,
        attempt: u32,
        source: &Path,
        model: &str,
    ) -> u64 {
        self.start_settings(scenario, run, attempt, settings(source, model)).await
    }

    pub(crate) async fn start_settings(
        &self,
        scenario: &ScenarioId,
        run: RunId,
        attempt: u32,
        settings: Settings,
    ) -> u64 {
        let settings = Box::new(settings);
        self.append(scenario, EventData::StartRequested { run, attempt, settings }).await
    }

    /// With more to say of the source than its path, and a video if one is wanted.
    pub(crate) async fn start_source(&self, run: RunId, attempt: u32, source: serde_json::Value) -> u64 {
        let body = serde_json::json!({
            "source": source, "model": MODEL, "analysis": {"input_size": "64x64"},
        });
        let settings = Box::new(serde_json::from_value(body).unwrap());
        self.append(&gate(), EventData::StartRequested { run, attempt, settings }).await
    }

    pub(crate) async fn assign(&self, scenario: &ScenarioId, run: RunId, runner: RunnerId) -> u64 {
        self.append(scenario, EventData::RunnerAssigned { run, attempt: 1, runner }).await
    }

    /// The next fact of the inbox.
    pub(crate) async fn fact(&mut self) -> (ScenarioId, FactEnvelope) {
        let entry = timeout(PATIENCE, self.inbox.next()).await.expect("a fact in time");
        let scenario = subjects::scenario_in(&entry.message.subject).unwrap();
        (scenario, serde_json::from_slice(&entry.message.payload).unwrap())
    }

    /// The next claim of this start, whatever else is told before it; who claims.
    pub(crate) async fn next_claim(&mut self, start: u64) -> RunnerId {
        loop {
            // Facts of a killed one may still be on their way.
            let (_, envelope) = self.fact().await;
            if envelope.fact == (Fact::Claimed { start }) {
                return envelope.runner;
            }
        }
    }

    /// The end of an attempt.
    pub(crate) async fn ended(&mut self, fence: u64) {
        loop {
            let (_, envelope) = self.fact().await;
            match envelope.fact {
                Fact::Ended { fence: of, .. } if of == fence => return,
                Fact::Failed { fence: of, .. } => assert_ne!(of, fence, "{envelope:?}"),
                _ => {}
            }
        }
    }

    /// The next claim, which must be of this start; who claims.
    pub(crate) async fn claimed(&mut self, start: u64) -> RunnerId {
        let (_, envelope) = self.fact().await;
        assert_eq!(envelope.fact, Fact::Claimed { start });
        envelope.runner
    }

    /// Waits until so many runners show signs of life.
    pub(crate) async fn runners(&self, count: usize) -> Vec<RunnerBeat> {
        let beats = || async {
            let bucket = self.nats.jetstream.get_stream(subjects::NODES_STREAM).await.unwrap();
            let keys = bucket.info_with_subjects(subjects::RUNNERS_ALL).await.unwrap();
            let keys: Vec<(String, usize)> = keys.try_collect().await.unwrap();
            let mut beats = Vec::new();
            for (key, _) in keys {
                let message = bucket.get_last_raw_message_by_subject(&key).await.ok()?;
                beats.extend(serde_json::from_slice::<RunnerBeat>(&message.payload).ok());
            }
            (beats.len() == count).then_some(beats)
        };
        eventually(&format!("{count} runners"), beats).await
    }

    /// What is stored of a scenario, in order.
    pub(crate) async fn results(&self, scenario: &ScenarioId) -> Vec<FrameDetections> {
        let stream = self.nats.jetstream.get_stream(subjects::DETECTIONS).await.unwrap();
        let subject = subjects::detections(scenario);
        let counts = stream.info_with_subjects(&subject).await.unwrap();
        let counts: Vec<(String, usize)> = counts.try_collect().await.unwrap();
        let mut tail = Tail::new(self.nats.jetstream.clone(), subjects::DETECTIONS, subject, 1);
        let mut results = Vec::new();
        for _ in 0..counts.iter().map(|(_, count)| count).sum() {
            results.push(serde_json::from_slice(&tail.next().await.message.payload).unwrap());
        }
        results
    }

    /// Answers frames until it is dropped; remembers which.
    pub(crate) async fn inference(&self) -> Inference {
        self.inference_of(FrameClass::Batch).await
    }

    pub(crate) async fn inference_of(&self, class: FrameClass) -> Inference {
        let config = pull::Config {
            durable_name: Some("test".into()),
            filter_subject: subjects::frames_of(&MODEL.parse().unwrap(), class),
            ack_policy: AckPolicy::Explicit,
            ..pull::Config::default()
        };
        let jetstream = &self.nats.jetstream;
        let consumer: PullConsumer = jetstream.create_consumer_on_stream(config, subjects::FRAMES).await.unwrap();
        let (nats, seen) = (self.nats.clone(), Arc::<Mutex<Vec<Seen>>>::default());
        let noted = seen.clone();
        let task = tokio::spawn(async move {
            let mut frames = consumer.stream().max_messages_per_batch(4).messages().await.unwrap();
            while let Some(frame) = frames.next().await {
                let frame = frame.unwrap();
                let header = FrameHeader::parse(frame.headers.as_ref().unwrap(), &frame.payload).unwrap();
                let subject = subjects::results(&header.scenario, header.run);
                let body = serde_json::to_vec(&answer(&header)).unwrap();
                noted.lock().unwrap().push((header, frame.payload.to_vec()));
                nats.client.publish(subject, body.into()).await.unwrap();
                frame.ack().await.unwrap();
            }
        });
        Inference { seen, task }
    }
}

pub(crate) const MODEL: &str = "tiny";

pub(crate) fn settings(source: &Path, model: &str) -> Settings {
    let body = serde_json::json!({
        "source": {"url": source}, "model": model, "analysis": {"input_size": "64x64"}, "outputs": {"video": false},
    });
    serde_json::from_value(body).unwrap()
}

/// Something to find in each frame, by its number.
fn answer(header: &FrameHeader) -> RawResult {
    let detection =
        Detection { class: 0, label: "car".into(), confidence: 0.5, bbox: [header.frame as f32, 0.0, 9.0, 9.0] };
    let model = ModelStamp { name: MODEL.parse().unwrap(), sha256: "0".repeat(64), precision: "f32".into() };
    let timing_ms = Timing { queue: 0.0, inference: 0.0 };
    RawResult {
        scenario: header.scenario.clone(),
        run: header.run,
        fence: header.fence,
        frame: header.frame,
        outcome: RawOutcome::Analysed { model, detections: vec![detection], timing_ms },
    }
}

/// A frame as inference receives it.
pub(crate) type Seen = (FrameHeader, Vec<u8>);

pub(crate) struct Inference {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Inference {
    /// The numbers of the frames that came under a fence.
    pub(crate) fn frames_of(&self, fence: u64) -> Vec<u64> {
        self.bodies_of(fence).into_iter().map(|(header, _)| header.frame).collect()
    }

    /// The frames that came under a fence.
    pub(crate) fn bodies_of(&self, fence: u64) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|(header, _)| header.fence == fence).cloned().collect()
    }
}

impl Drop for Inference {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) struct Runner {
    runtime: Option<Runtime>,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Runner {
    pub(crate) fn kill(self) {}

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        timeout(PATIENCE, &mut self.task).await.expect("an end in time").unwrap();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Its connections go with its threads.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A clip of so many small frames.
pub(crate) fn clip(folder: &Path, frames: u64) -> PathBuf {
    let path = folder.join("clip.mp4");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=64x64:r=25"]);
    command.args(["-frames:v", &frames.to_string(), "-c:v", "libx264", "-bf", "2", "-pix_fmt", "yuv420p"]).arg(&path);
    assert!(command.status().expect("ffmpeg is installed").success());
    path
}

pub(crate) fn gate() -> ScenarioId {
    "gate".parse().unwrap()
}
