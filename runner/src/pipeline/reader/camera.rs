//! Reads a camera, or whatever else comes at its own pace ([`Kind`]): at its pace, with a frame for inference only when there is
//! room for one, and again and again.
//!
//! A frame that finds no room is dropped at once and counted: the next one is newer. When the session ends, for whatever
//! reason that may pass, the camera is tried again after a pause that grows, for as long as it is wanted.

use std::{sync::Arc, time::Instant};

use kadr_shared::{
    id::{ModelName, RunId},
    telemetry::chain,
    time::Timestamp,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

use super::{Message, Read, Reader, backoff::Backoff, kind::Kind, spawn, take::Take};
use crate::{
    archive::Archive,
    live::Watchers,
    meter::{Dropped, Meter, Trouble},
    preprocess::{PreprocessError, Preprocessor, Selection},
    source::{Came, Frame, Live, Losses, SourceError},
    workers::Workers,
};

/// Frames that are not analysed and wait to be shown.
const PASSED: usize = 4;
/// What is said besides.
const WORDS: usize = 2;

/// A camera that is to be read.
pub(super) struct Camera {
    pub(super) kind: Kind,
    pub(super) selection: Selection,
    /// The number of its first frame, and when that is shown: an earlier attempt may have had others.
    pub(super) first: u64,
    pub(super) shown_from_ms: f64,
    /// Frames that may be under way at a time, if there are workers for so many.
    pub(super) inflight: usize,
    pub(super) model: ModelName,
    pub(super) workers: Arc<Workers>,
    pub(super) meter: Arc<Meter>,
    /// Who wants frames that are not analysed, too.
    pub(super) watchers: Arc<Watchers>,
    pub(super) run: RunId,
    /// Where what it sends is recorded as it comes.
    pub(super) archive: Option<Archive>,
}

impl Camera {
    /// Begins to read it. Does not wait for it.
    pub(super) fn open(self, preprocessor: Preprocessor) -> Result<Reader, String> {
        let (sender, frames) = mpsc::channel(self.inflight + PASSED + WORDS);
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let runtime = Handle::current();
        let credit = Arc::new(Semaphore::new(self.inflight));
        let places = Arc::new(Semaphore::new(PASSED));
        spawn(move || {
            let (next, shown_ms) = (self.first, self.shown_from_ms);
            let take = Take::new(self.run, shown_ms);
            Thread {
                camera: self,
                runtime,
                stop,
                frames: sender,
                credit,
                places,
                preprocessor,
                outside: false,
                take,
                next,
                began: None,
                shown_ms,
                interval_ms: 0.0,
            }
            .run();
        })?;
        Ok(Reader { info: None, frames, _stop: Some(guard) })
    }
}

struct Thread {
    camera: Camera,
    runtime: Handle,
    stop: CancellationToken,
    frames: mpsc::Sender<Message>,
    credit: Arc<Semaphore>,
    /// For frames that are not analysed.
    places: Arc<Semaphore>,
    preprocessor: Preprocessor,
    /// The last frame had nothing of the part that is to be seen.
    outside: bool,
    /// What is recorded as it comes.
    take: Take,
    /// The next frame's number. Those that are dropped have one, too.
    next: u64,
    /// When the first frame came.
    began: Option<Instant>,
    /// When the last one is shown, and how long after the one before it.
    shown_ms: f64,
    interval_ms: f64,
}

/// Nobody wants frames any more.
struct Unwanted;

impl Thread {
    fn run(mut self) {
        // Whoever is gone has no use for what is left to say.
        let _ = self.sessions();
    }

    fn sessions(&mut self) -> Result<(), Unwanted> {
        let mut backoff = Backoff::default();
        let mut down = false;
        loop {
            let mut playing = None;
            let error = match self.session(&mut down, &mut playing)? {
                SourceError::Stopped => return Ok(()),
                error if is_final(&error) => return self.say(Message::Refused(chain(&error))),
                error => chain(&error),
            };
            self.camera.meter.lost();
            self.camera.meter.trouble(Trouble::Source, Some(error.clone()));
            if !std::mem::replace(&mut down, true) {
                self.say(Message::Interrupted(error))?;
            }
            let pause = backoff.pause(playing.map(|since: Instant| since.elapsed()), fastrand::f64());
            let stopped =
                self.runtime.block_on(async { tokio::time::timeout(pause, self.stop.cancelled()).await.is_ok() });
            if stopped {
                return Ok(());
            }
        }
    }

    /// One session, and why it ended. `playing`: since its first frame.
    fn session(&mut self, down: &mut bool, playing: &mut Option<Instant>) -> Result<SourceError, Unwanted> {
        let mut source = match self.camera.kind.open(self.runtime.clone(), self.stop.clone()) {
            Ok(source) => source,
            Err(error) => return Ok(error),
        };
        self.camera.meter.connected(source.rate());
        let ended = self.play(source.as_mut(), down, playing);
        // What came behind the last frame is recorded, too, and not only when the camera is back.
        self.record(source.as_mut());
        self.camera.archive.iter_mut().for_each(Archive::flush);
        ended
    }

    fn play(
        &mut self,
        source: &mut dyn Live,
        down: &mut bool,
        playing: &mut Option<Instant>,
    ) -> Result<SourceError, Unwanted> {
        let mut from_ms = None;
        self.take.begin();
        loop {
            let came = source.receive(self.wants_frames());
            self.count(source.losses());
            let (pts_ms, frame) = match came {
                Ok(Came::Frame(frame)) => (frame.pts_ms, Some(frame)),
                Ok(Came::Passed { pts_ms }) => (pts_ms, None),
                Ok(Came::Nothing) => {
                    self.record(source);
                    continue;
                }
                Err(error) => return Ok(error),
            };
            if std::mem::take(down) {
                self.camera.meter.trouble(Trouble::Source, None);
                self.say(Message::Resumed)?;
            }
            playing.get_or_insert_with(Instant::now);
            let began = *self.began.get_or_insert_with(Instant::now);
            let from_ms = *from_ms.get_or_insert_with(|| began.elapsed().as_secs_f64() * 1000.0);
            let number = self.next;
            self.next += 1;
            source.numbered(number);
            // Where a session's own count ran ahead of the clock, the next one's frames wait for it.
            let shown_ms = self.shown_ms.max(self.camera.shown_from_ms + from_ms + pts_ms);
            (self.interval_ms, self.shown_ms) = (shown_ms - self.shown_ms, shown_ms);
            self.take.record(source, self.camera.archive.as_mut(), self.camera.shown_from_ms + from_ms);
            self.camera.meter.seen();
            if let Some(frame) = frame {
                // One time for all that is told of it.
                let captured_at = Some(frame.captured_at.unwrap_or_else(Timestamp::now));
                self.offer(Frame { number, pts_ms: shown_ms, captured_at, ..frame })?;
            }
        }
    }

    /// Records what came without a frame.
    fn record(&mut self, source: &mut dyn Live) {
        let since = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64() * 1000.0);
        self.take.record(source, self.camera.archive.as_mut(), self.camera.shown_from_ms + since);
    }

    /// Whether somebody looks on, or one of the next frames is analysed.
    fn wants_frames(&self) -> bool {
        self.camera.watchers.any() || self.camera.selection.soon(self.next, self.shown_ms, self.interval_ms)
    }

    /// What the source has left out by itself has its numbers, too.
    fn count(&mut self, Losses { busy, unreadable }: Losses) {
        self.next += busy + unreadable;
        for (count, why) in [(busy, Dropped::Busy), (unreadable, Dropped::Unreadable)] {
            (0..count).for_each(|_| {
                self.camera.meter.seen();
                self.camera.meter.dropped(why);
            });
        }
    }

    fn offer(&mut self, frame: Frame) -> Result<(), Unwanted> {
        if !self.camera.selection.takes(&frame) {
            self.pass(frame);
            return Ok(());
        }
        let Some(credit) = self.credit() else {
            self.camera.meter.dropped(Dropped::Busy);
            self.pass(frame);
            return Ok(());
        };
        match self.preprocessor.prepare(&frame.picture) {
            Ok(seen) => {
                if std::mem::take(&mut self.outside) {
                    self.camera.meter.trouble(Trouble::Source, None);
                }
                let read = Read { frame, seen: Some(seen), credit: Some(credit) };
                self.say(Message::Frame(Box::new(read)))
            }
            // The next one may have another size.
            Err(error @ PreprocessError::Outside(_)) => {
                self.outside = true;
                self.camera.meter.trouble(Trouble::Source, Some(chain(&error)));
                self.camera.meter.dropped(Dropped::Unreadable);
                self.pass(frame);
                Ok(())
            }
            Err(error) => self.say(Message::Refused(chain(&error))),
        }
    }

    /// Room for a frame that is analysed. As many as are analysed at the same time and one that waits: with more of them each
    /// would be older when its turn comes, and no more would be analysed.
    fn credit(&self) -> Option<OwnedSemaphorePermit> {
        let under_way = self.camera.inflight - self.credit.available_permits();
        let wanted = self.camera.workers.at_once(&self.camera.model).max(1).saturating_add(1);
        (under_way < wanted).then(|| self.credit.clone().try_acquire_owned().ok()).flatten()
    }

    /// A frame that is not analysed goes to those who look on, if there is room.
    fn pass(&self, frame: Frame) {
        // They have places of their own, so that what has to be said finds one.
        if self.camera.watchers.any()
            && let Ok(place) = self.places.clone().try_acquire_owned()
        {
            // It is one of many, and nobody waits for it.
            let _ = self.frames.try_send(Message::Passed { frame: Box::new(frame), _place: place });
        }
    }

    fn say(&self, message: Message) -> Result<(), Unwanted> {
        self.frames.blocking_send(message).map_err(|_| Unwanted)
    }
}

/// What another session would find just so.
fn is_final(error: &SourceError) -> bool {
    use SourceError::{CameraCodec, NoStream, TooLarge, Unsupported};
    matches!(error, CameraCodec { .. } | NoStream { .. } | Unsupported { .. } | TooLarge { .. })
}
