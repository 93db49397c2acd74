//! Reads a file: every frame, as fast as they are taken, or not before its own time.

use std::{path::PathBuf, time::Instant};

use kadr_shared::{
    settings::{self, Pace},
    telemetry::chain,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{Message, Read, Reader, pacer::Pacer, spawn};
use crate::{
    preprocess::{PreprocessError, Preprocessor, Selection},
    source::{self, FileSource, FrameRate, Play, SourceInfo},
};

/// Frames decoded ahead of the one that is being sent.
const AHEAD: usize = 2;

type Opened = oneshot::Sender<Result<SourceInfo, String>>;

/// A file that is to be read.
pub(super) struct File {
    path: PathBuf,
    /// Frames below this number have their results: they are not scaled, and of a looped file not given at all.
    stored: u64,
    play: Play,
    pace: Pace,
}

impl File {
    pub(super) fn new(path: PathBuf, source: &settings::Source, stored: u64) -> Self {
        let rate = source.fps.and_then(|fps| FrameRate::of(fps.get()));
        let play = Play { rate, looped_from: source.looped.then_some(stored) };
        Self { path, stored, play, pace: source.pace }
    }

    /// Opens it and begins to read; gives what is known of it, too. The error is for people.
    pub(super) async fn open(
        self,
        preprocessor: Preprocessor,
        selection: Selection,
    ) -> Result<(Reader, SourceInfo), String> {
        let (opened, info) = oneshot::channel();
        let (sender, frames) = mpsc::channel(AHEAD);
        let (runtime, looped) = (Handle::current(), self.play.looped_from.is_some());
        spawn(move || {
            if let Some(source) = self.begin(opened, &preprocessor) {
                self.read(source, preprocessor, selection, &sender, &runtime);
            }
        })?;
        match info.await {
            // What has no end has no recording.
            Ok(Ok(info)) => Ok((Reader { info: (!looped).then(|| info.clone()), frames, _stop: None }, info)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err("the source's reader ended unexpectedly".to_owned()),
        }
    }

    fn begin(&self, opened: Opened, preprocessor: &Preprocessor) -> Option<Box<dyn FileSource>> {
        let source = source::play(&self.path, self.play).map_err(|error| chain(&error)).and_then(|source| {
            // What can't be prepared at all is told before anything begins.
            preprocessor.seen(source.info().size).map_err(|error| chain(&error))?;
            Ok(source)
        });
        match source {
            Ok(source) => opened.send(Ok(source.info().clone())).is_ok().then_some(source),
            Err(error) => {
                // Whoever asked may have been cancelled: then nobody wants to know.
                let _ = opened.send(Err(error));
                None
            }
        }
    }

    fn read(
        &self,
        mut source: Box<dyn FileSource>,
        mut preprocessor: Preprocessor,
        mut selection: Selection,
        frames: &mpsc::Sender<Message>,
        runtime: &Handle,
    ) {
        let mut pacer = Pacer::default();
        loop {
            let read = |frame, seen| Message::Frame(Box::new(Read { frame, seen, credit: None }));
            let message = match source.next_frame() {
                Ok(Some(frame)) => {
                    let new = frame.number >= self.stored;
                    if new && self.pace == Pace::Own {
                        let wait = pacer.wait(frame.pts_ms, Instant::now());
                        // Ends early when nobody wants frames any more.
                        let unwanted = async { timeout(wait, frames.closed()).await.is_ok() };
                        if !wait.is_zero() && runtime.block_on(unwanted) {
                            return;
                        }
                    }
                    // Asked for each frame, since some choices follow from the frame before.
                    let wanted = selection.takes(&frame) && new;
                    match wanted.then(|| preprocessor.prepare(&frame.picture)).transpose() {
                        Ok(seen) => read(frame, seen),
                        // Of pictures in a row, some may have nothing of the part that is to be seen.
                        Err(PreprocessError::Outside(_)) => read(frame, None),
                        Err(error) => Message::End(Some(chain(&error))),
                    }
                }
                Ok(None) => Message::End(None),
                Err(error) => Message::End(Some(chain(&error))),
            };
            let last = matches!(message, Message::End(_));
            if frames.blocking_send(message).is_err() || last {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use kadr_shared::{
        geometry::Size,
        message::frame::Colour,
        settings::{Analysis, Preprocess},
    };

    use super::*;
    use crate::{
        picture::Picture,
        source::{Frame, Source, SourceError},
    };

    /// A frame every quarter of an hour.
    struct Slow {
        info: SourceInfo,
        next: u64,
    }

    impl FileSource for Slow {
        fn info(&self) -> &SourceInfo {
            &self.info
        }
    }

    impl Source for Slow {
        fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
            let number = self.next;
            self.next += 1;
            let picture = Picture::uniform(self.info.size, self.info.colour, [100, 128, 128]).unwrap();
            Ok(Some(Frame { number, pts_ms: number as f64 * 900_000.0, captured_at: None, picture }))
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_a_frames_time_ends_with_those_who_want_it() {
        let (size, colour) = (Size { width: 64, height: 64 }, Colour::default());
        let info =
            SourceInfo { size, frame_rate: FrameRate::DEFAULT, timescale: NonZeroU32::MIN, frames: None, colour };
        let file = File { path: PathBuf::new(), stored: 0, play: Play::default(), pace: Pace::Own };
        let preprocess = Preprocess::default();
        let (preprocessor, selection) =
            (Preprocessor::new(&Analysis::default(), &preprocess), Selection::new(&preprocess));
        let (sender, mut frames) = mpsc::channel(AHEAD);
        let (ended, end) = oneshot::channel::<()>();
        let runtime = Handle::current();
        std::thread::spawn(move || {
            file.read(Box::new(Slow { info, next: 0 }), preprocessor, selection, &sender, &runtime);
            drop(ended);
        });
        assert!(matches!(frames.recv().await, Some(Message::Frame(_))), "the first one is due at once");
        drop(frames);
        // It says nothing: its end is what is waited for.
        assert!(timeout(Duration::from_secs(30), end).await.is_ok(), "it waits for the next frame's time");
    }
}
