//! How one scenario fares, in numbers: written by its pipeline, read by the runner's beat.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kadr_shared::{
    id::{RunId, ScenarioId},
    nodes::{CameraProgress, Progress},
    time::Timestamp,
};

/// Rates are taken over this span.
const RATE_SPAN: Duration = Duration::from_secs(5);

/// Of one attempt.
pub(crate) struct Meter {
    scenario: ScenarioId,
    run: RunId,
    fence: u64,
    inner: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    frames: u64,
    of: Option<u64>,
    source_fps: Option<f64>,
    last_frame_at: Option<Timestamp>,
    /// When results were stored, lately.
    stored: VecDeque<Instant>,
    /// Of a camera.
    camera: Option<Camera>,
    trouble: BTreeMap<Trouble, String>,
}

/// How a camera fares.
#[derive(Default)]
struct Camera {
    /// Sessions so far.
    sessions: u64,
    connected_at: Option<Timestamp>,
    /// When frames came, lately.
    seen: VecDeque<Instant>,
    busy: u64,
    late: u64,
    unreadable: u64,
}

/// Why a camera's frame was not analysed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// As many as may be were under way.
    Busy,
    /// Its result did not come in time.
    Late,
    /// It could not be read.
    Unreadable,
}

/// What may keep a scenario from getting on; the first one is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    Source,
    Storing,
    Reporting,
    Queueing,
    Recording,
    /// A file of results.
    Writing,
    Webhook,
}

impl Meter {
    pub(crate) fn new(scenario: ScenarioId, run: RunId, fence: u64) -> Self {
        Self { scenario, run, fence, inner: Mutex::default() }
    }

    pub(crate) const fn scenario(&self) -> &ScenarioId {
        &self.scenario
    }

    pub(crate) const fn fence(&self) -> u64 {
        self.fence
    }

    /// What the source says of itself, and what an earlier attempt has stored.
    pub(crate) fn source(&self, of: Option<u64>, fps: f64, frames: u64) {
        let mut reading = self.lock();
        reading.frames = frames;
        reading.of = of;
        reading.source_fps = Some(fps);
    }

    /// The source is a camera; an earlier attempt has stored so many results.
    pub(crate) fn earlier(&self, frames: u64) {
        let mut reading = self.lock();
        reading.frames = frames;
        reading.camera = Some(Camera::default());
    }

    /// The camera plays; it may say how many frames a second will come.
    pub(crate) fn connected(&self, fps: Option<f64>) {
        let mut reading = self.lock();
        reading.source_fps = fps;
        let camera = reading.camera.get_or_insert_default();
        camera.sessions += 1;
        camera.connected_at = Some(Timestamp::now());
    }

    /// The camera is gone.
    pub(crate) fn lost(&self) {
        let mut reading = self.lock();
        reading.source_fps = None;
        let camera = reading.camera.get_or_insert_default();
        camera.connected_at = None;
        camera.seen.clear();
    }

    /// A frame came from the camera.
    pub(crate) fn seen(&self) {
        let now = Instant::now();
        let mut reading = self.lock();
        reading.last_frame_at = Some(Timestamp::now());
        let seen = &mut reading.camera.get_or_insert_default().seen;
        seen.push_back(now);
        forget_old(seen, now);
    }

    pub(crate) fn dropped(&self, why: Dropped) {
        let mut reading = self.lock();
        let camera = reading.camera.get_or_insert_default();
        match why {
            Dropped::Busy => camera.busy += 1,
            Dropped::Late => camera.late += 1,
            Dropped::Unreadable => camera.unreadable += 1,
        }
    }

    /// `frames` results of the run are stored.
    pub(crate) fn stored(&self, frames: u64) {
        let now = Instant::now();
        let mut reading = self.lock();
        reading.frames = frames;
        if reading.camera.is_none() {
            reading.last_frame_at = Some(Timestamp::now());
        }
        reading.stored.push_back(now);
        forget_old(&mut reading.stored, now);
    }

    /// What keeps it from getting on now, in words; none: that is over.
    pub(crate) fn trouble(&self, kind: Trouble, text: Option<String>) {
        let mut reading = self.lock();
        match text {
            Some(text) => reading.trouble.insert(kind, text),
            None => reading.trouble.remove(&kind),
        };
    }

    /// A panic while a number was written leaves a number: nothing to be afraid of.
    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Results of the run that are stored.
    pub(crate) fn frames(&self) -> u64 {
        self.lock().frames
    }

    pub(crate) fn progress(&self, now: Instant) -> Progress {
        let mut reading = self.lock();
        forget_old(&mut reading.stored, now);
        let camera = reading.camera.as_mut().map(|camera| {
            forget_old(&mut camera.seen, now);
            CameraProgress {
                connected_at: camera.connected_at,
                reconnects: camera.sessions.saturating_sub(1),
                busy: camera.busy,
                late: camera.late,
                unreadable: camera.unreadable,
                fps: rate(&camera.seen, now),
            }
        });
        Progress {
            scenario: self.scenario.clone(),
            run: self.run,
            fence: self.fence,
            frames: reading.frames,
            of: reading.of,
            // Files wait: nothing is dropped.
            dropped: camera.as_ref().map_or(0, |camera| camera.busy + camera.late + camera.unreadable),
            // What is measured says more than what was announced.
            source_fps: camera.as_ref().and_then(|camera| camera.fps).or(reading.source_fps),
            camera,
            analysed_fps: rate(&reading.stored, now),
            last_frame_at: reading.last_frame_at,
            trouble: reading.trouble.values().next().cloned(),
        }
    }
}

fn forget_old(stored: &mut VecDeque<Instant>, now: Instant) {
    while stored.front().is_some_and(|&at| now.duration_since(at) > RATE_SPAN) {
        stored.pop_front();
    }
}

/// Results a second over the span that is remembered; none for fewer than two.
fn rate(stored: &VecDeque<Instant>, now: Instant) -> Option<f64> {
    let span = now.duration_since(*stored.front()?).as_secs_f64();
    (stored.len() > 1 && span > 0.0).then(|| (stored.len() as f64 / span * 10.0).round() / 10.0)
}
