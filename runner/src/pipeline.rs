//! From a source's frames to stored results: sending with credit, collecting, ordering, storing, drawing.
//!
//! At most `inflight` frames are without a result; then a file waits, and a camera's next frames are dropped. Results come
//! in any order, are shown as they come, and are stored in the frames' order. A file's frame whose result does not come in time is looked for, and
//! sent again under its number if it is lost; a camera's is given up, since newer ones are wanted more.

mod filing;
mod job;
mod overdue;
mod pace;
mod pending;
mod queue;
mod reader;
mod screen;
mod sink;
mod stop;
mod store;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kadr_shared::{
    domain::InterruptionKind,
    message::{
        detection::{Detection, FrameDetections, RawOutcome, RawResult},
        frame::FrameHeader,
    },
    nats::Nats,
    settings::Recorded,
    subjects::{self, FrameClass},
    time::Timestamp,
};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

pub use self::job::Limits;
use self::{
    filing::{Filed, Filing},
    pace::Pace,
    pending::{PATIENCE, Pending},
    queue::{Put, Queue},
    reader::{Message, Read, Reader},
    screen::Screen,
    sink::Sink,
    stop::Stop,
    store::{Replay, Store, StoreError},
};
pub(crate) use self::{
    job::{Job, Outcome, Report},
    stop::Stops,
};
use crate::{
    archive::Storing,
    live::{About, Live},
    meter::{Meter, Trouble},
    source::Frame,
};

/// Without any result, and without a sign of life of a worker, for this long, and nobody is taken to analyse.
const SILENCE: Duration = Duration::from_secs(2);
/// A frame that could not be queued is tried again after this time.
const QUEUE_RETRY: Duration = Duration::from_millis(100);

/// Runs a job to its end, or until it is stopped; what is stored by then stays.
pub(crate) async fn run(
    job: Job,
    nats: Nats,
    meter: Arc<Meter>,
    reports: mpsc::Sender<Report>,
    stops: Stops,
) -> Outcome {
    let storing = Storing::default();
    let opened = tokio::select! {
        () = stops.any() => Err(Stop::Asked),
        opened = Pipeline::open(job, nats, meter, reports, stops.clone(), &storing) => opened,
    };
    let mut pipeline = match opened {
        Ok(pipeline) => pipeline,
        Err(reason) => {
            // A camera may have begun to send.
            storing.abandon();
            return reason.into();
        }
    };
    let mut end = pipeline.work().await;
    // What comes to be stored later than this could meet whoever has the scenario next.
    match pipeline.filing.settle().await {
        Some(Ok(_)) => pipeline.meter.stored(pipeline.filing.frames()),
        Some(Err(StoreError::Fenced)) => end = Err(Stop::Fenced),
        Some(Err(_)) | None => {}
    }
    let outcome = conclude(pipeline, end, &stops).await;
    match outcome {
        Outcome::Fenced => storing.abandon(),
        _ => storing.finish().await,
    }
    outcome
}

async fn conclude(pipeline: Pipeline, end: Result<Option<String>, Stop>, stops: &Stops) -> Outcome {
    let (frames, of) = (pipeline.filing.frames().max(pipeline.screen.passed()), pipeline.of);
    match end {
        // There is nothing to show, and this is why.
        Ok(Some(error)) if frames == 0 => Outcome::Failed { error, retry: false },
        Ok(error) => match pipeline.screen.finish().await {
            Ok(()) => Outcome::Ended { frames, of, error },
            Err(error) => Outcome::Failed { error, retry: false },
        },
        Err(Stop::Asked) if stops.close.is_cancelled() && frames > 0 => {
            if let Err(error) = pipeline.screen.finish().await {
                warn!(scenario = %pipeline.job.scenario, error, "the video could not be closed");
            }
            Outcome::Cancelled
        }
        Err(reason) => reason.into(),
    }
}

struct Pipeline {
    job: Job,
    /// Whether the source is a camera.
    live: bool,
    queue: Queue,
    pace: Pace,
    meter: Arc<Meter>,
    reports: mpsc::Sender<Report>,
    reader: Reader,
    of: Option<u64>,
    results: async_nats::Subscriber,
    filing: Filing,
    /// The results of an earlier attempt, and how many of them there are.
    replay: Option<Replay>,
    stored_before: u64,
    screen: Screen,
    pending: BTreeMap<u64, Pending>,
    /// Of them, those that are being put into the queue.
    puts: FuturesUnordered<BoxFuture<'static, (u64, Put)>>,
    stops: Stops,
    streaming: bool,
    /// Since when there was neither a result nor anything to wait for.
    quiet_since: Instant,
    /// When to look whether somebody analyses.
    look: Instant,
    /// A camera's frame was given up, and no result came since.
    unanswered: bool,
    interrupted: Interruptions,
    /// Another connection than before may have lost frames and results.
    connections: watch::Receiver<u64>,
}

/// What holds a run up, and is told.
#[derive(Default)]
struct Interruptions {
    source: bool,
    inference: bool,
}

/// What happened next.
enum Step {
    Read(Option<Message>),
    Result(Option<async_nats::Message>),
    Put(u64, Put),
    Stored(Result<Filed, StoreError>),
    Due,
    Reconnected,
    Stop,
}

impl Pipeline {
    async fn open(
        job: Job,
        nats: Nats,
        meter: Arc<Meter>,
        reports: mpsc::Sender<Report>,
        stops: Stops,
        storing: &Storing,
    ) -> Result<Self, Stop> {
        let store = Store::open(nats.clone(), job.scenario.clone(), job.run, job.fence).await?;
        let stored_before = store.frames();
        let live = job.settings.source.url.is_live();
        let class = if live { FrameClass::Live } else { FrameClass::Batch };
        let (overlay, record) = (job.settings.outputs.overlay, job.settings.outputs.record);
        let record = record.filter(|record| record.what == Recorded::Annotated);
        let about =
            About { scenario: job.scenario.clone(), run: job.run, overlay, live, record, storing: storing.clone() };
        let video = Live::open(nats.clone(), about, meter.clone());
        let reader = reader::open(&job, &nats, &store, &meter, video.watchers(), storing).await?;
        let sink = match &reader.info {
            Some(info) => Sink::open(job.video.clone(), job.fence, job.scenario.clone(), overlay, info)
                .await
                .map_err(Stop::for_good)?,
            None => Sink::None,
        };
        let subject = subjects::results(&job.scenario, job.run);
        let results = nats
            .client
            .subscribe(subject)
            .await
            .map_err(|error| Stop::Failed { error: format!("can't listen for results: {error}"), retry: true })?;
        Ok(Self {
            of: reader.info.as_ref().and_then(|info| info.frames),
            replay: (stored_before > 0 && !live).then(|| store.replay()),
            queue: Queue::new(nats.clone(), &job.settings.model, class, &job.scenario),
            live,
            pace: Pace::new(job.limits.frame_timeout),
            connections: nats.connections(),
            job,
            meter,
            reports,
            reader,
            results,
            filing: Filing::new(store),
            stored_before,
            screen: Screen::new(video, sink, stops.clone(), overlay.between),
            pending: BTreeMap::new(),
            puts: FuturesUnordered::new(),
            stops,
            streaming: false,
            quiet_since: Instant::now(),
            look: Instant::now() + SILENCE,
            unanswered: false,
            interrupted: Interruptions::default(),
        })
    }

    /// Until the source has ended and every frame is stored; what was missing at its end.
    async fn work(&mut self) -> Result<Option<String>, Stop> {
        let mut end = None;
        loop {
            self.begin_to_store()?;
            self.show_skipped().await?;
            if let Some(error) = end.take() {
                if self.pending.is_empty() && self.filing.is_free() {
                    self.screen.show_rest().await?;
                    return Ok(error);
                }
                end = Some(error);
            }
            match self.step(end.is_none()).await {
                Step::Read(Some(Message::Frame(read))) => self.take(*read).await?,
                Step::Read(Some(Message::Passed { frame, .. })) => self.screen.live.enter(&frame, false),
                Step::Read(Some(Message::End(error))) => end = Some(error),
                Step::Read(Some(Message::Interrupted(error))) => {
                    self.interrupted.source = true;
                    self.tell(Report::Interrupted { kind: InterruptionKind::Source, error }).await?;
                }
                Step::Read(Some(Message::Resumed)) => {
                    self.interrupted.source = false;
                    self.quiet_since = Instant::now();
                    self.tell_resumption().await?;
                }
                Step::Read(Some(Message::Refused(error))) => return Err(Stop::for_good(error)),
                Step::Read(None) => end = Some(Some("the source's reader ended unexpectedly".to_owned())),
                Step::Result(Some(message)) => self.note(&message).await?,
                Step::Result(None) => {
                    return Err(Stop::Failed { error: "results can't be received any more".into(), retry: true });
                }
                Step::Put(number, put) => self.note_put(number, put),
                Step::Stored(Ok(Filed { frame, detections })) => {
                    self.meter.stored(self.filing.frames());
                    self.show(frame, detections).await?;
                }
                Step::Stored(Err(error)) => return Err(error.into()),
                Step::Due => self.do_what_is_due().await?,
                // What is still there is found to be so by one look. A camera's are not looked for.
                Step::Reconnected if self.live => {}
                Step::Reconnected => self.pending.values_mut().for_each(|p| p.due = Instant::now()),
                Step::Stop => return Err(Stop::Asked),
            }
        }
    }

    async fn step(&mut self, reading: bool) -> Step {
        // A camera's frames come with credit, and what else it says is heard at any time.
        let room = self.pending.len() < self.job.limits.inflight && self.screen.has_room();
        let credit = reading && (self.live || room);
        // A result that is there needs no time-out, also when it waits for an earlier one.
        let due = self.pending.values().filter_map(Pending::due).min();
        let due = due.map(|due| if self.interrupted.inference { due } else { due.min(self.look) });
        if !self.stops.none() {
            return Step::Stop;
        }
        tokio::select! {
            () = self.stops.any() => Step::Stop,
            Ok(()) = self.connections.changed() => Step::Reconnected,
            message = self.results.next() => Step::Result(message),
            Some((number, put)) = self.puts.next() => Step::Put(number, put),
            stored = self.filing.filed() => Step::Stored(stored),
            message = self.reader.frames.recv(), if credit => Step::Read(message),
            () = sleep_until(due) => Step::Due,
        }
    }

    /// Takes a frame from the source: one of an earlier attempt goes straight on, another one is sent.
    async fn take(&mut self, read: Read) -> Result<(), Stop> {
        let Read { frame, seen, credit } = read;
        if let Some(replay) = &mut self.replay
            && frame.number < self.stored_before
        {
            let found = self.stops.unless(replay.of(frame.number)).await??;
            self.screen.live.enter(&frame, found.is_some());
            return match found {
                Some(detections) => {
                    self.screen.live.found(frame.number, frame.pts_ms, &detections);
                    self.show(frame, detections).await
                }
                None => self.screen.show_without(frame).await,
            };
        }
        self.screen.live.enter(&frame, seen.is_some());
        let Some((seen, body)) = seen else {
            self.screen.skip(frame);
            return Ok(());
        };
        let analysis = &self.job.settings.analysis;
        let header = FrameHeader {
            scenario: self.job.scenario.clone(),
            run: self.job.run,
            fence: self.job.fence,
            frame: frame.number,
            pts_ms: frame.pts_ms,
            captured_at: frame.captured_at.unwrap_or_else(Timestamp::now),
            source: seen.fit.source,
            input: seen.fit.input,
            colour: frame.picture.colour(),
            confidence: analysis.confidence,
            iou: analysis.iou,
            class_agnostic: analysis.class_agnostic,
            classes: analysis.classes.clone(),
            // A file waits for each of its frames, however late.
            patience: self.live.then_some(PATIENCE),
        };
        let number = frame.number;
        let now = Instant::now();
        if !self.unanswered && self.pending.values().all(|p| p.result.is_some()) {
            (self.quiet_since, self.look) = (now, now + SILENCE);
        }
        let pending = Pending::new(frame, header, seen, body, credit, self.live);
        self.pending.insert(number, pending);
        self.send(&[number]);
        Ok(())
    }

    /// Begins to put frames into the queue.
    fn send(&mut self, numbers: &[u64]) {
        for &number in numbers {
            let Some(pending) = self.pending.get_mut(&number) else { continue };
            pending.sending = true;
            let put = self.queue.put(&pending.header, pending.body.clone());
            self.puts.push(Box::pin(async move { (number, put.await) }));
        }
    }

    /// What could not be put into the queue is due again soon.
    fn note_put(&mut self, number: u64, put: Put) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        let now = Instant::now();
        pending.sending = false;
        let trouble = match put {
            Put::Queued => {
                (pending.sent, pending.looks) = (Some(now), 0);
                pending.due = pending.expires.unwrap_or_else(|| now + self.pace.patience(0));
                None
            }
            // What was sent before is among what fills it. Or the queue is about to be cleared of answered ones.
            Put::Full => {
                pending.due = now + if pending.sent.is_some() { self.pace.patience(0) } else { QUEUE_RETRY };
                None
            }
            Put::Failed(error) => {
                debug!(scenario = %self.job.scenario, frame = number, error, "can't queue a frame");
                pending.due = now + QUEUE_RETRY;
                Some(format!("can't queue frames: {error}"))
            }
        };
        self.meter.trouble(Trouble::Queueing, trouble);
    }

    /// Takes note of a worker's answer.
    async fn note(&mut self, message: &async_nats::Message) -> Result<(), Stop> {
        let raw: RawResult = match serde_json::from_slice(&message.payload) {
            Ok(raw) => raw,
            Err(error) => {
                warn!(scenario = %self.job.scenario, %error, "a result can't be read");
                return Ok(());
            }
        };
        // Of an earlier attempt's frame.
        if raw.fence != self.job.fence {
            return Ok(());
        }
        let now = Instant::now();
        self.job.workers.answered(&self.job.settings.model);
        let Some(pending) = self.pending.get_mut(&raw.frame) else { return Ok(()) };
        match raw.outcome {
            // A camera's frame that nobody wants any more.
            RawOutcome::Late { .. } if self.live => self.give_up(|p| p.frame.number == raw.frame),
            // A file's has no such time: each frame counts, and it goes once more.
            RawOutcome::Late { .. } => (pending.sent, pending.due) = (None, now),
            mut outcome if pending.result.is_none() => {
                if let RawOutcome::Analysed { detections, .. } = &mut outcome {
                    pending.seen.place(detections);
                    self.screen.live.found(raw.frame, pending.frame.pts_ms, detections);
                }
                pending.result = Some(outcome);
                if let Some(sent) = pending.sent {
                    self.pace.answered(now.duration_since(sent));
                }
            }
            _ => {}
        }
        (self.quiet_since, self.look) = (now, now + SILENCE);
        self.unanswered = false;
        if std::mem::take(&mut self.interrupted.inference) {
            self.tell_resumption().await?;
        }
        Ok(())
    }

    /// One of two things that held it up is over; that it goes on is told when both are.
    async fn tell_resumption(&mut self) -> Result<(), Stop> {
        if self.interrupted.source || self.interrupted.inference {
            return Ok(());
        }
        self.tell(Report::Resumed).await
    }

    /// Begins to store what is next in order, if its result is there.
    fn begin_to_store(&mut self) -> Result<(), Stop> {
        if !self.filing.is_free() {
            return Ok(());
        }
        let Some(entry) = self.pending.first_entry().filter(|entry| entry.get().result.is_some()) else {
            return Ok(());
        };
        let Pending { frame, header, result, .. } = entry.remove();
        let (model, detections, timing_ms) = match result {
            Some(RawOutcome::Analysed { model, detections, timing_ms }) => (model, detections, timing_ms),
            Some(RawOutcome::Refused { error }) => return Err(Stop::for_good(error)),
            Some(RawOutcome::Late { .. }) | None => return Ok(()),
        };
        let size = frame.picture.size();
        let result = FrameDetections {
            scenario: header.scenario,
            run: header.run,
            frame: frame.number,
            pts_ms: header.pts_ms,
            captured_at: header.captured_at,
            width: size.width,
            height: size.height,
            model,
            detections,
            timing_ms,
        };
        self.filing.begin(frame, result, self.stops.clone(), self.meter.clone());
        Ok(())
    }

    /// A frame whose result is stored. The first one of this attempt is told of.
    async fn show(&mut self, frame: Frame, detections: Vec<Detection>) -> Result<(), Stop> {
        if !std::mem::replace(&mut self.streaming, true) {
            self.tell(Report::Streaming).await?;
        }
        self.screen.show(frame, detections).await
    }

    /// Frames that were not analysed, as far as no earlier one lacks its result.
    async fn show_skipped(&mut self) -> Result<(), Stop> {
        let first = self.filing.number().or_else(|| self.pending.first_key_value().map(|(number, _)| *number));
        self.screen.show_skipped(first).await
    }

    async fn tell(&mut self, report: Report) -> Result<(), Stop> {
        // Its receiver lives as long as the attempt; if it is gone, so is the need to tell.
        self.stops.unless(self.reports.send(report)).await.map(|_| ())
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
