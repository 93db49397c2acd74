//! Draws, codes and publishes, in a thread of its own: what takes time is not the pipeline's.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use kadr_shared::{
    geometry::Size,
    message::{
        detection::Detection,
        frame::Colour,
        video::{AccessUnit, push_nal},
    },
    nats::Nats,
    subjects,
    telemetry::chain,
    time::Timestamp,
};
use tokio::{runtime::Handle, time::timeout};
use tracing::{debug, warn};

use super::{
    About, Numbers, PATIENCE,
    jpeg::jpeg,
    line::{Found, Line},
    watch::Watchers,
};
use crate::{
    archive::Archive,
    overlay::{Overlay, caption},
    record::encoder::Encoder,
    source::{Frame, FrameRate, SourceInfo},
};

/// Between key frames: a segment of HLS begins with each.
const KEY_EVERY_MS: f64 = 1_000.0;
/// For somebody who came new they come sooner: players of segments have some soon (browsers don't begin with less than
/// three), and one that takes the first for its look at the stream and throws it away (`ffplay -fflags nobuffer`) has another.
const FIRST_KEY_AFTER_MS: f64 = 200.0;
const FIRST_KEYS: u64 = 5;
/// The year 2026 began then.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// Without orders, to look whether somebody still looks on.
const LOOK: Duration = Duration::from_secs(1);
/// A picture that can't be handed over for so long is left out.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);

/// What the studio is told.
pub(super) enum Order {
    Frame { frame: Frame, analysed: bool, came: Instant },
    Found(Found),
    Lost { number: u64 },
}

/// What a studio is given.
pub(super) struct Setup {
    pub(super) about: About,
    pub(super) nats: Nats,
    pub(super) runtime: Handle,
    pub(super) watchers: Arc<Watchers>,
    pub(super) numbers: Arc<Numbers>,
    /// Frames among the orders.
    pub(super) frames: Arc<AtomicUsize>,
    /// What was found last.
    pub(super) before: Option<Found>,
    /// Where the video is recorded.
    pub(super) archive: Option<Archive>,
}

pub(super) struct Studio {
    about: About,
    nats: Nats,
    runtime: Handle,
    watchers: Arc<Watchers>,
    numbers: Arc<Numbers>,
    /// Frames among the orders.
    frames: Arc<AtomicUsize>,
    line: Line,
    overlay: Overlay,
    coder: Option<Coder>,
    archive: Option<Archive>,
    /// Told once, not with each picture.
    failed: bool,
}

/// An encoder for pictures of one kind.
struct Coder {
    encoder: Encoder,
    size: Size,
    colour: Colour,
    stream: u64,
    group: u64,
    /// Key frames since somebody came, and when the last one is shown.
    keys: u64,
    key_ms: f64,
    frames: u64,
}

impl Studio {
    pub(super) fn new(setup: Setup) -> Self {
        let Setup { about, nats, runtime, watchers, numbers, frames, before, archive } = setup;
        let line = Line::new(about.live.then_some(PATIENCE), about.overlay.between, before);
        let overlay = Overlay::new(about.overlay);
        Self { about, nats, runtime, watchers, numbers, frames, line, overlay, coder: None, archive, failed: false }
    }

    /// Until there are no more orders, and what waits is shown as it is; or until nobody wants anything any more.
    pub(super) fn work(mut self, orders: &Receiver<Order>) {
        loop {
            let order = match self.line.due() {
                Some(due) => match orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
                    Ok(order) => Some(order),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
                None => match orders.recv_timeout(LOOK) {
                    Ok(order) => Some(order),
                    // Where no frames come, nobody else would notice.
                    Err(RecvTimeoutError::Timeout) if self.watchers.any() => {
                        self.archive.iter_mut().for_each(Archive::rest);
                        None
                    }
                    Err(RecvTimeoutError::Timeout) => return,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            match order {
                Some(Order::Frame { frame, analysed, came }) => {
                    self.frames.fetch_sub(1, Ordering::Relaxed);
                    self.line.enter(frame, analysed, came);
                }
                Some(Order::Found(found)) => self.line.found(found),
                Some(Order::Lost { number }) => self.line.lost(number),
                None => {}
            }
            while let Some((frame, detections)) = self.line.next(Instant::now()) {
                self.show(frame, &detections);
            }
        }
        while let Some((frame, detections)) = self.line.rest() {
            self.show(frame, &detections);
        }
    }

    fn show(&mut self, mut frame: Frame, detections: &[Detection]) {
        let (video, images) = (self.watchers.video(), self.watchers.images());
        let coded = video || self.archive.is_some();
        if !coded && !images {
            return;
        }
        self.overlay.draw(&mut frame.picture, detections);
        let line = caption(&self.about.scenario, frame.captured_at, frame.pts_ms);
        self.overlay.caption(&mut frame.picture, &line);
        if coded {
            self.show_coded(&frame, video);
        } else {
            self.coder = None;
        }
        if images {
            match jpeg(&frame.picture) {
                Ok(image) => {
                    let subject = subjects::images(&self.about.scenario);
                    self.hand_over(self.nats.client.publish(subject, image.into()));
                }
                Err(error) => debug!(scenario = %self.about.scenario, error = chain(&error), "an image can't be made"),
            }
        }
    }

    /// Records it, if that is wanted, and publishes it if it is watched.
    fn show_coded(&mut self, frame: &Frame, watched: bool) {
        let unit = match self.code(frame) {
            Ok(unit) => unit,
            Err(error) => {
                self.coder = None;
                if !std::mem::replace(&mut self.failed, true) {
                    warn!(scenario = %self.about.scenario, error, "video can't be made");
                }
                return;
            }
        };
        self.failed = false;
        if watched {
            let subject = subjects::video(&self.about.scenario);
            self.hand_over(self.nats.client.publish_with_headers(subject, unit.headers(), unit.body.clone()));
        }
        if let Some(archive) = &mut self.archive {
            archive.push(unit);
        }
    }

    fn hand_over<E>(&self, publishing: impl Future<Output = Result<(), E>>) {
        // A timer needs the runtime around it.
        let handed = self.runtime.block_on(async { timeout(PUBLISH_TIMEOUT, publishing).await });
        if !matches!(handed, Ok(Ok(()))) {
            debug!(scenario = %self.about.scenario, "a picture of live video could not be sent");
        }
    }

    fn code(&mut self, frame: &Frame) -> Result<AccessUnit, String> {
        let (size, colour) = (frame.picture.size(), frame.picture.colour());
        if self.coder.as_ref().is_none_or(|coder| coder.size != size || coder.colour != colour) {
            let info =
                SourceInfo { size, frame_rate: FrameRate::DEFAULT, timescale: NonZeroU32::MIN, frames: None, colour };
            // Key frames come by the clock of the video, whatever its rate.
            let encoder = Encoder::new(&info, f64::INFINITY).map_err(|error| chain(&error))?;
            // By the clock, so that those of another runner, or of another attempt, are others and higher. No more than five key
            // frames come in a second; and some players keep a segment's number in 31 bits, which are enough until 2039.
            let now = u64::try_from(Timestamp::now().as_millis()).unwrap_or_default();
            let stream = next(&self.numbers.stream, now);
            let group = next(&self.numbers.group, now.saturating_sub(EPOCH_MS) / 200) - 1;
            self.coder = Some(Coder { encoder, size, colour, stream, group, keys: 0, key_ms: 0.0, frames: 0 });
        }
        // A new encoder begins with one anyway.
        let wanted = self.watchers.take_key();
        let Some(coder) = &mut self.coder else { return Err("there is no encoder".to_owned()) };
        let after_ms = if coder.keys <= FIRST_KEYS { FIRST_KEY_AFTER_MS } else { KEY_EVERY_MS };
        let due = coder.keys > 0 && frame.pts_ms - coder.key_ms >= after_ms;
        if wanted {
            coder.keys = 0;
        }
        if due || wanted && coder.frames > 0 {
            coder.encoder.begin_anew();
        }
        let coded = coder.encoder.encode(&frame.picture, coder.frames, frame.pts_ms).map_err(|error| chain(&error))?;
        coder.frames += 1;
        let mut body = Vec::with_capacity(coded.data.len() + 64);
        if coded.key_frame {
            push_nal(&mut body, &coded.sps);
            push_nal(&mut body, &coded.pps);
            coder.group += 1;
            (coder.keys, coder.key_ms) = (coder.keys + 1, frame.pts_ms);
            self.numbers.group.store(coder.group, Ordering::Relaxed);
        }
        body.extend_from_slice(&coded.data);
        Ok(AccessUnit {
            run: self.about.run,
            stream: coder.stream,
            group: coder.group,
            key: coded.key_frame,
            pts_ms: frame.pts_ms,
            captured_at: frame.captured_at.unwrap_or_else(Timestamp::now),
            size: coded.size,
            body: body.into(),
        })
    }
}

/// One more than the last, and at least `least`.
fn next(number: &AtomicU64, least: u64) -> u64 {
    let next = (number.load(Ordering::Relaxed) + 1).max(least);
    number.store(next, Ordering::Relaxed);
    next
}
