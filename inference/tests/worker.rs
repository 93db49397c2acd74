//! The worker on a real NATS server, with a tiny network that the test writes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers: what fails here fails the test"
)]

use std::{num::NonZeroUsize, time::Duration};

use async_nats::{HeaderMap, Subscriber};
use futures::{FutureExt, StreamExt};
use kadr_inference::{Config, Store, detector::Options, testkit, worker::WorkerError};
use kadr_shared::{
    catalog::Catalog,
    id::{ModelName, RunId, ScenarioId},
    message::{
        detection::{RawOutcome, RawResult},
        frame::{Colour, FrameHeader, i420_len},
        worker::{Frames, Sign, WeightsState},
    },
    nats::Nats,
    settings::Ratio,
    streams,
    subjects::{self, FrameClass},
    testkit::{PATIENCE, TestServer, eventually},
    time::Timestamp,
};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// A server, a worker on it, and what came of a scenario's run.
struct Bench {
    server: TestServer,
    nats: Nats,
    model: ModelName,
    folder: TempDir,
    results: Subscriber,
    worker: JoinHandle<Result<(), WorkerError>>,
    shutdown: CancellationToken,
}

const RUN: RunId = RunId::from_u128(7);

fn gate() -> ScenarioId {
    "gate".parse().unwrap()
}

fn header(frame: u64) -> FrameHeader {
    FrameHeader {
        scenario: gate(),
        run: RUN,
        fence: 5,
        frame,
        pts_ms: 0.0,
        captured_at: Timestamp::now(),
        source: "320x192".parse().unwrap(),
        input: "160x96".parse().unwrap(),
        colour: Colour::default(),
        confidence: Ratio::new(0.1).unwrap(),
        iou: Ratio::new(0.7).unwrap(),
        class_agnostic: false,
        classes: Vec::new(),
        patience: None,
    }
}

/// Noise: something to find for a network of noise.
fn body(header: &FrameHeader) -> Vec<u8> {
    (0..i420_len(header.input)).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

impl Bench {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        let folder = tempfile::tempdir().unwrap();
        let model = testkit::write_tiny_model(folder.path(), 1);
        let results = nats.client.subscribe(subjects::results(&gate(), RUN)).await.unwrap();
        nats.client.flush().await.unwrap();
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn(kadr_inference::run(
            config(folder.path()),
            Nats::connect(server.url(), "worker").await.unwrap(),
            shutdown.clone(),
        ));
        Self { server, nats, model, folder, results, worker, shutdown }
    }

    async fn send(&self, headers: HeaderMap, body: Vec<u8>, class: FrameClass) {
        let subject = subjects::frame(&self.model, class, &gate());
        let stored = self.nats.jetstream.publish_with_headers(subject, headers, body.into()).await.unwrap();
        stored.await.unwrap();
    }

    async fn send_frame(&self, header: &FrameHeader, class: FrameClass) {
        self.send(header.to_headers(), body(header), class).await;
    }

    /// The next sign of life of which this holds.
    async fn sign(&self, wanted: impl Fn(&Sign) -> bool) -> Sign {
        let mut signs = self.nats.client.subscribe(subjects::workers(&self.model)).await.unwrap();
        let found = async {
            loop {
                let sign = signs.next().await.expect("a sign of life");
                let sign = serde_json::from_slice(&sign.payload).unwrap();
                if wanted(&sign) {
                    return sign;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("a sign of life in time")
    }

    async fn result(&mut self) -> RawResult {
        let message = timeout(PATIENCE, self.results.next()).await.expect("a result in time").expect("a result");
        serde_json::from_slice(&message.payload).unwrap()
    }

    async fn refusal(&mut self) -> String {
        match self.result().await.outcome {
            RawOutcome::Refused { error } => error,
            other => panic!("a refusal is wanted: {other:?}"),
        }
    }

    /// Waits until the server keeps no frame: all are acknowledged or terminated.
    async fn all_acknowledged(&self) {
        eventually("no frame is left", || async {
            let mut stream = self.nats.jetstream.get_stream(subjects::FRAMES).await.ok()?;
            (stream.info().await.ok()?.state.messages == 0).then_some(())
        })
        .await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.worker).await.expect("an end in time").unwrap().unwrap();
    }
}

fn config(folder: &std::path::Path) -> Config {
    let mut config = Config::new(Catalog::find(&[folder]).unwrap(), Store::new([folder]), Options::default());
    config.lanes = NonZeroUsize::new(2).unwrap();
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_analysed_answered_and_acknowledged() {
    let mut bench = Bench::start().await;
    for frame in 0..6 {
        let class = if frame % 2 == 0 { FrameClass::Live } else { FrameClass::Batch };
        bench.send_frame(&header(frame), class).await;
    }
    let mut frames = Vec::new();
    for _ in 0..6 {
        let result = bench.result().await;
        assert_eq!((&result.scenario, result.run, result.fence), (&gate(), RUN, 5));
        let RawOutcome::Analysed { model, detections, timing_ms } = result.outcome else {
            panic!("frame {} was not analysed: {:?}", result.frame, result.outcome);
        };
        assert_eq!((model.name.as_str(), model.precision.as_str(), model.sha256.len()), ("tiny", "f32", 64));
        assert!(timing_ms.queue >= 0.0 && timing_ms.inference > 0.0);
        assert!(!detections.is_empty());
        for d in &detections {
            let [x1, y1, x2, y2] = d.bbox;
            assert!(0.0 <= x1 && x1 < x2 && x2 <= 320.0 && 0.0 <= y1 && y1 < y2 && y2 <= 192.0, "{d:?}");
            assert!(d.confidence > 0.1 && testkit::LABELS[d.class] == d.label, "{d:?}");
        }
        frames.push(result.frame);
    }
    frames.sort_unstable();
    assert_eq!(frames, [0, 1, 2, 3, 4, 5]);
    bench.all_acknowledged().await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_frame_is_refused_and_never_delivered_again() {
    let mut bench = Bench::start().await;
    bench.send(header(3).to_headers(), vec![0; 10], FrameClass::Live).await;
    let error = bench.refusal().await;
    assert!(error.contains("10 bytes"), "{error}");
    // Of this one it can't be told whose it is.
    bench.send(HeaderMap::new(), vec![0; 10], FrameClass::Live).await;
    bench.all_acknowledged().await;
    // The worker is still there.
    bench.send_frame(&header(4), FrameClass::Live).await;
    assert_eq!(bench.result().await.frame, 4);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_class_is_refused_by_name() {
    let mut bench = Bench::start().await;
    let header = FrameHeader { classes: vec!["kar".into()], ..header(0) };
    bench.send_frame(&header, FrameClass::Batch).await;
    let error = bench.refusal().await;
    assert!(error.contains("\"kar\"") && error.contains("person, car, bus"), "{error}");
    bench.all_acknowledged().await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_a_model_without_weights_are_refused_with_the_reason() {
    let mut bench = Bench::start().await;
    std::fs::write(bench.folder.path().join("tiny.safetensors"), "damaged").unwrap();
    bench.send_frame(&header(0), FrameClass::Live).await;
    let error = bench.refusal().await;
    assert!(error.contains("tiny.safetensors") && error.contains("has 7 bytes"), "{error}");
    bench.all_acknowledged().await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_goes_on_when_the_stream_and_its_consumers_are_gone() {
    let mut bench = Bench::start().await;
    bench.send_frame(&header(0), FrameClass::Live).await;
    assert_eq!(bench.result().await.frame, 0);
    bench.nats.jetstream.delete_stream(subjects::FRAMES).await.unwrap();
    eventually("the worker has made the stream and the consumer again", || async {
        let stream = bench.nats.jetstream.get_stream(subjects::FRAMES).await.ok()?;
        let name = subjects::frames_consumer(&bench.model, FrameClass::Live);
        stream.consumer_info(name).await.ok()
    })
    .await;
    bench.send_frame(&header(1), FrameClass::Live).await;
    assert_eq!(bench.result().await.frame, 1);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_an_idle_worker_and_one_that_never_reached_its_stream() {
    let bench = Bench::start().await;
    let started = tokio::time::Instant::now();
    let lonely = Nats::connect(bench.server.url(), "lonely").await.unwrap();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    timeout(PATIENCE, kadr_inference::run(config(bench.folder.path()), lonely, shutdown)).await.unwrap().unwrap();
    bench.stop().await;
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_not_in_the_catalogue_is_an_error_at_the_start() {
    let bench = Bench::start().await;
    let mut config = config(bench.folder.path());
    config.models = vec!["unheard-of".parse().unwrap()];
    let error = kadr_inference::run(config, bench.nats.clone(), CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, WorkerError::Model(_)));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_past_its_time_is_not_analysed_but_answered_and_counted() {
    let mut bench = Bench::start().await;
    bench.send_frame(&FrameHeader { patience: Some(Duration::ZERO), ..header(0) }, FrameClass::Live).await;
    let RawOutcome::Late { after_ms } = bench.result().await.outcome else { panic!("it should be late") };
    assert!(after_ms > 0.0);
    bench.send_frame(&FrameHeader { patience: Some(PATIENCE), ..header(1) }, FrameClass::Live).await;
    assert!(matches!(bench.result().await.outcome, RawOutcome::Analysed { .. }));
    bench.send_frame(&FrameHeader { classes: vec!["kar".into()], ..header(2) }, FrameClass::Live).await;
    assert!(matches!(bench.result().await.outcome, RawOutcome::Refused { .. }));
    bench.all_acknowledged().await;
    bench.sign(|sign| sign.frames == Frames { analysed: 1, refused: 1, late: 1 }).await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_was_asked_for_is_warm_at_the_first_sign_and_others_are_opened_with_their_first_frame() {
    let mut bench = Bench::start().await;
    assert_eq!(bench.sign(|_| true).await.weights, WeightsState::Unopened);
    bench.send_frame(&header(0), FrameClass::Batch).await;
    bench.result().await;
    bench.sign(|sign| matches!(sign.weights, WeightsState::Ready { .. })).await;
    let sign = bench.sign(|_| true).await;

    let nats = Nats::connect(bench.server.url(), "asked").await.unwrap();
    let config = Config { models: vec![bench.model.clone()], ..config(bench.folder.path()) };
    let mut signs = bench.nats.client.subscribe(subjects::workers(&bench.model)).await.unwrap();
    bench.nats.client.flush().await.unwrap();
    let shutdown = CancellationToken::new();
    let asked = tokio::spawn(kadr_inference::run(config, nats, shutdown.clone()));
    let first = async {
        loop {
            let next: Sign = serde_json::from_slice(&signs.next().await.unwrap().payload).unwrap();
            if next.worker != sign.worker {
                return next;
            }
        }
    };
    let first = timeout(PATIENCE, first).await.expect("the other worker's sign in time");
    let WeightsState::Ready { model, path } = first.weights else { panic!("not warm: {first:?}") };
    assert_eq!((model.name, model.precision.as_str(), model.sha256.len()), (bench.model.clone(), "f32", 64));
    assert_eq!(path, Options::default().cpu.name());
    shutdown.cancel();
    timeout(PATIENCE, asked).await.unwrap().unwrap().unwrap();
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_frames_are_asked_for_ahead_and_cameras_as_they_are_needed() {
    let bench = Bench::start().await;
    let mut asked = [FrameClass::Live, FrameClass::Batch].map(|_| None);
    for (class, asked) in [FrameClass::Live, FrameClass::Batch].into_iter().zip(&mut asked) {
        let consumer = subjects::frames_consumer(&bench.model, class);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{consumer}", subjects::FRAMES);
        let mut pulls = bench.nats.client.subscribe(subject).await.unwrap();
        bench.nats.client.flush().await.unwrap();
        // It has asked before we listened, and asks again when half of that has come.
        for frame in 0..8 {
            bench.send_frame(&header(frame), class).await;
        }
        let pull = timeout(PATIENCE, pulls.next()).await.expect("a pull in time").unwrap();
        let pull: serde_json::Value = serde_json::from_slice(&pull.payload).unwrap();
        *asked = pull.get("batch").and_then(serde_json::Value::as_u64);
    }
    assert_eq!(asked, [Some(1), Some(16)]);
    bench.stop().await;
}

/// A scenario that sends more than its share whenever there is room, and one that sends a frame at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_scenario_does_not_starve_another_one() {
    let bench = Bench::start().await;
    let busy: ScenarioId = "busy".parse().unwrap();
    // In the order in which the worker sent them.
    let mut results = bench.nats.client.subscribe(format!("kadr.res.*.{RUN}")).await.unwrap();
    bench.nats.client.flush().await.unwrap();
    let ending = CancellationToken::new();
    let flood = tokio::spawn({
        let (jetstream, model, ending) = (bench.nats.jetstream.clone(), bench.model.clone(), ending.clone());
        async move {
            let subject = subjects::frame(&model, FrameClass::Batch, &busy);
            let (mut refused, header) = (0, FrameHeader { scenario: busy, ..header(0) });
            while !ending.is_cancelled() {
                let sent = jetstream.publish_with_headers(subject.clone(), header.to_headers(), body(&header).into());
                refused += usize::from(sent.await.unwrap().await.is_err());
            }
            refused
        }
    });
    timeout(PATIENCE, results.next()).await.expect("the busy one is served").unwrap();
    for frame in 0..10 {
        bench.send_frame(&header(frame), FrameClass::Batch).await;
        let is_ours = |message: async_nats::Message| {
            serde_json::from_slice::<RawResult>(&message.payload).unwrap().scenario == gate()
        };
        // What was sent until the frame was stored does not count.
        let mut answered = false;
        while let Some(Some(message)) = results.next().now_or_never() {
            answered |= is_ours(message);
        }
        let mut before = 0;
        while !answered {
            answered = is_ours(timeout(PATIENCE, results.next()).await.expect("a result in time").unwrap());
            before += i64::from(!answered);
        }
        // What the busy one may have in the queue, and what was on its way.
        assert!(before <= streams::FRAMES_PER_SUBJECT + 16, "{before} frames of the busy one came before it");
    }
    ending.cancel();
    assert!(flood.await.unwrap() > 0, "the busy one never had more than its share");
    bench.stop().await;
}
