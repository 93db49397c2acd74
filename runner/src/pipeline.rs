//! From a source's frames to stored results: sending with credit, collecting, ordering, storing, drawing.
//!
//! At most `inflight` frames are without a result; then a file waits, and a camera's next frames are dropped. Results come
//! in any order and are stored in the frames' order. A file's frame whose result does not come in time is looked for, and
//! sent again under its number if it is lost; a camera's is given up, since newer ones are wanted more.

mod job;
mod pace;
mod pending;
mod queue;
mod reader;
mod sink;
mod stop;
mod store;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use kadr_shared::{
    domain::InterruptionKind,
    message::{
        detection::{Detection, FrameDetections, RawOutcome, RawResult},
        frame::FrameHeader,
    },
    nats::Nats,
    settings::{Between, Recorded},
    subjects::{self, FrameClass},
    time::Timestamp,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

pub use self::job::Limits;
pub(crate) use self::{
    job::{Job, Outcome, Report},
    stop::Stops,
};
use self::{
    pace::Pace,
    pending::{PATIENCE, Pending},
    queue::{Put, Queue},
    reader::{Message, Read, Reader},
    sink::Sink,
    stop::Stop,
    store::{Replay, Store},
};
use crate::{
    live::{About, Live, between},
    meter::{Dropped, Meter, Trouble},
    source::Frame,
};

/// Without any result, and without a sign of life of a worker, for this long, and nobody is taken to analyse.
const SILENCE: Duration = Duration::from_secs(2);
/// So many time-outs without any result, and nobody is taken to analyse, whatever workers say of themselves.
const SILENCES: u32 = 2;
/// How often it is looked whether somebody analyses.
const LOOK: Duration = Duration::from_millis(500);
/// A frame that could not be queued is tried again after this time.
const QUEUE_RETRY: Duration = Duration::from_millis(100);

/// The end of a recording is waited for so long.
const RECORDED: Duration = Duration::from_millis(1500);
/// Frames that are not analysed and wait to be drawn.
const SKIPPED_BYTES: usize = 64 << 20;

/// Runs a job to its end, or until it is stopped; what is stored by then stays.
pub(crate) async fn run(
    job: Job,
    nats: Nats,
    meter: Arc<Meter>,
    reports: mpsc::Sender<Report>,
    stops: Stops,
) -> Outcome {
    let tasks = TaskTracker::new();
    let opened = tokio::select! {
        () = stops.any() => return Outcome::Cancelled,
        opened = Pipeline::open(job, nats, meter, reports, stops.clone(), &tasks) => opened,
    };
    let mut pipeline = match opened {
        Ok(pipeline) => pipeline,
        Err(reason) => return reason.into(),
    };
    let end = pipeline.work().await;
    let outcome = conclude(pipeline, end, &stops).await;
    // What was recorded is stored before the scenario is let go: it may be deleted next.
    tasks.close();
    if timeout(RECORDED, tasks.wait()).await.is_err() {
        warn!("the end of a recording is still being stored");
    }
    outcome
}

async fn conclude(pipeline: Pipeline, end: Result<Option<String>, Stop>, stops: &Stops) -> Outcome {
    let (frames, of) = (pipeline.store.frames().max(pipeline.passed), pipeline.of);
    match end {
        // There is nothing to show, and this is why.
        Ok(Some(error)) if frames == 0 => Outcome::Failed { error, retry: false },
        Ok(error) => match pipeline.sink.finish().await {
            Ok(()) => Outcome::Ended { frames, of, error },
            Err(error) => Outcome::Failed { error, retry: false },
        },
        Err(Stop::Asked) if stops.close.is_cancelled() && frames > 0 => {
            if let Err(error) = pipeline.sink.finish().await {
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
    store: Store,
    /// The results of an earlier attempt, and how many of them there are.
    replay: Option<Replay>,
    stored_before: u64,
    sink: Sink,
    video: Live,
    pending: BTreeMap<u64, Pending>,
    /// A file's frames that are not analysed, and wait for those before them.
    skipped: VecDeque<Frame>,
    /// When the last frame with a result is shown, and what was found in it.
    last: (f64, Vec<Detection>),
    /// One more than the number of the last frame that was drawn.
    passed: u64,
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
        tasks: &TaskTracker,
    ) -> Result<Self, Stop> {
        let store = Store::open(nats.clone(), job.scenario.clone(), job.run, job.fence).await?;
        let stored_before = store.frames();
        let live = job.settings.source.url.is_live();
        let class = if live { FrameClass::Live } else { FrameClass::Batch };
        let (overlay, record) = (job.settings.outputs.overlay, job.settings.outputs.record);
        let record = record.filter(|record| record.what == Recorded::Annotated);
        let about = About { scenario: job.scenario.clone(), run: job.run, overlay, live, record, tasks: tasks.clone() };
        let video = Live::open(nats.clone(), about, meter.clone());
        let reader = reader::open(&job, &nats, &store, &meter, video.watchers(), tasks).await?;
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
            store,
            stored_before,
            sink,
            video,
            pending: BTreeMap::new(),
            skipped: VecDeque::new(),
            last: (0.0, Vec::new()),
            passed: 0,
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
            self.store_ready().await?;
            if let Some(error) = end.take() {
                if self.pending.is_empty() {
                    while let Some(frame) = self.skipped.pop_front() {
                        self.show_skipped(frame).await?;
                    }
                    return Ok(error);
                }
                end = Some(error);
            }
            match self.step(end.is_none()).await {
                Step::Read(Some(Message::Frame(read))) => self.take(*read).await?,
                Step::Read(Some(Message::Passed(frame))) => self.video.enter(&frame, false),
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
        let room = self.pending.len() < self.job.limits.inflight && !self.too_many_skipped();
        let credit = reading && (self.live || room);
        // A result that is there needs no time-out, also when it waits for an earlier one.
        let due = self.pending.values().filter(|p| p.result.is_none()).map(|p| p.due).min();
        let due = due.map(|due| if self.interrupted.inference { due } else { due.min(self.look) });
        if !self.stops.none() {
            return Step::Stop;
        }
        tokio::select! {
            () = self.stops.any() => Step::Stop,
            Ok(()) = self.connections.changed() => Step::Reconnected,
            message = self.results.next() => Step::Result(message),
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
            self.video.enter(&frame, found.is_some());
            return match found {
                Some(detections) => self.show_result(frame, detections).await,
                None => self.show_skipped(frame).await,
            };
        }
        self.video.enter(&frame, seen.is_some());
        let Some((seen, body)) = seen else {
            self.skipped.push_back(frame);
            return self.pass_skipped().await;
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
        self.send(&[number]).await
    }

    /// Puts frames into the queue; what can't be put there now is due again soon.
    async fn send(&mut self, numbers: &[u64]) -> Result<(), Stop> {
        let frames = numbers.iter().filter_map(|number| self.pending.get_key_value(number));
        let queue = &self.queue;
        let puts = frames
            .map(|(number, pending)| async move { (*number, queue.put(&pending.header, pending.body.clone()).await) });
        for (number, put) in self.stops.unless(join_all(puts)).await? {
            let Some(pending) = self.pending.get_mut(&number) else { continue };
            let now = Instant::now();
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
        Ok(())
    }

    /// Looks after frames that got no result in time, and tells when nobody seems to analyse.
    async fn do_what_is_due(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        self.give_up(|p| p.expires.is_some_and(|expires| expires <= now));
        let is_due = |p: &Pending| p.result.is_none() && p.due <= now;
        let mut again: Vec<_> = self.pending.iter().filter(|(_, p)| is_due(p)).map(|(number, _)| *number).collect();
        let sent = self.pending.values().any(|p| is_due(p) && p.sent.is_some());
        if !self.live && sent && !self.some_are_lost().await? {
            // They wait behind others, or are in hand: one look more, later.
            for pending in self.pending.values_mut().filter(|p| is_due(p)) {
                if pending.sent.is_some_and(|sent| now.duration_since(sent) < self.job.limits.frame_timeout) {
                    pending.looks += 1;
                    pending.due = now + self.pace.patience(pending.looks);
                }
            }
            again.retain(|number| self.pending.get(number).is_some_and(&is_due));
        }
        let repeated = again.iter().filter(|number| self.pending.get(number).is_some_and(|p| p.sent.is_some())).count();
        if repeated > 0 {
            warn!(scenario = %self.job.scenario, frames = repeated, "no result in time: sending again");
        }
        self.send(&again).await?;
        self.tell_silence().await
    }

    /// Lets a camera's frames go that have no result.
    fn give_up(&mut self, which: impl Fn(&Pending) -> bool) {
        let before = self.pending.len();
        let video = &self.video;
        self.pending.retain(|number, p| {
            let kept = p.result.is_some() || !which(p);
            if !kept {
                video.lost(*number);
            }
            kept
        });
        let given_up = before - self.pending.len();
        self.unanswered |= given_up > 0;
        (0..given_up).for_each(|_| self.meter.dropped(Dropped::Late));
    }

    /// Whether fewer frames are in the queue than have no result: then their results or they themselves are lost.
    async fn some_are_lost(&mut self) -> Result<bool, Stop> {
        let wanted = self.pending.values().filter(|p| p.result.is_none() && p.sent.is_some()).count();
        let waiting = self.stops.unless(self.queue.waiting()).await?;
        // No queue, no frames. If it only can't be seen now, putting them there fails as well, and is tried again.
        Ok(waiting.is_none_or(|waiting| waiting < wanted))
    }

    async fn tell_silence(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        if self.interrupted.inference || now < self.look {
            return Ok(());
        }
        self.look = now + LOOK;
        let quiet = now.duration_since(self.quiet_since);
        let model = &self.job.settings.model;
        let nobody = quiet >= SILENCE && self.job.workers.silence(model) >= SILENCE;
        if nobody || quiet >= self.job.limits.frame_timeout * SILENCES {
            self.interrupted.inference = true;
            let error = format!("no inference for {model}");
            return self.tell(Report::Interrupted { kind: InterruptionKind::Inference, error }).await;
        }
        Ok(())
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
            outcome if pending.result.is_none() => {
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

    /// Stores what is next in order, as far as results are there.
    async fn store_ready(&mut self) -> Result<(), Stop> {
        while let Some(entry) = self.pending.first_entry() {
            if entry.get().result.is_none() {
                break;
            }
            let Pending { frame, header, seen, result, .. } = entry.remove();
            let (model, mut detections, timing_ms) = match result {
                Some(RawOutcome::Analysed { model, detections, timing_ms }) => (model, detections, timing_ms),
                Some(RawOutcome::Refused { error }) => return Err(Stop::for_good(error)),
                Some(RawOutcome::Late { .. }) | None => break,
            };
            seen.place(&mut detections);
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
            self.store.append(&result, &self.stops, &self.meter).await?;
            self.meter.stored(self.store.frames());
            self.show_result(frame, result.detections).await?;
        }
        self.pass_skipped().await
    }

    /// A frame whose result is stored: the first one is told of, all are drawn; and before it those that were not analysed.
    async fn show_result(&mut self, frame: Frame, detections: Vec<Detection>) -> Result<(), Stop> {
        while let Some(skipped) = self.skipped.pop_front_if(|skipped| skipped.number < frame.number) {
            let drawn = match self.job.settings.outputs.overlay.between {
                Between::Hold => self.last.1.clone(),
                Between::Interpolate => {
                    let (from, to) = (self.last.0, frame.pts_ms);
                    between(&self.last.1, &detections, ((skipped.pts_ms - from) / (to - from)) as f32)
                }
            };
            self.pass_on(skipped, drawn).await?;
        }
        if !std::mem::replace(&mut self.streaming, true) {
            self.tell(Report::Streaming).await?;
        }
        self.video.found(frame.number, frame.pts_ms, &detections);
        self.last = (frame.pts_ms, detections.clone());
        self.pass_on(frame, detections).await
    }

    /// A frame that was not analysed.
    async fn show_skipped(&mut self, frame: Frame) -> Result<(), Stop> {
        let held = self.last.1.clone();
        self.pass_on(frame, held).await
    }

    /// Draws frames that were not analysed as far as they wait for nothing, or as there are too many of them.
    async fn pass_skipped(&mut self) -> Result<(), Stop> {
        let waits = self.job.settings.outputs.overlay.between == Between::Interpolate;
        while let Some(first) = self.skipped.front() {
            let behind = self.pending.first_key_value().is_some_and(|(number, _)| *number < first.number);
            if behind || waits && !self.too_many_skipped() {
                break;
            }
            let Some(frame) = self.skipped.pop_front() else { break };
            self.show_skipped(frame).await?;
        }
        Ok(())
    }

    fn too_many_skipped(&self) -> bool {
        let bytes = self.skipped.front().map_or(0, |frame| frame.picture.bytes().len());
        self.skipped.len() * bytes > SKIPPED_BYTES
    }

    async fn pass_on(&mut self, frame: Frame, detections: Vec<Detection>) -> Result<(), Stop> {
        self.passed = frame.number + 1;
        if self.stops.unless(self.sink.push(frame, detections)).await? {
            return Ok(());
        }
        let error = std::mem::replace(&mut self.sink, Sink::None).finish().await;
        Err(Stop::for_good(error.err().unwrap_or_else(|| "the video's writer ended early".to_owned())))
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
