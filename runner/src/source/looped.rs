//! A file that starts over at its end: numbers and times go on counting.
//!
//! A later attempt does not read days of rounds again to get where an earlier one was: the first round tells how long one
//! is, and whole rounds that are done with are stepped over.

use kadr_shared::telemetry::chain;
use tracing::warn;

use super::{FileSource, Frame, Source, SourceError, SourceInfo};

/// Opens the file from its beginning.
type Open = Box<dyn FnMut() -> Result<Box<dyn FileSource>, SourceError> + Send>;

/// A source over and over.
pub(super) struct Looped {
    open: Open,
    source: Box<dyn FileSource>,
    info: SourceInfo,
    /// Frames below this number are not wanted.
    from: u64,
    /// What the rounds before this one had.
    frames: u64,
    shown_ms: f64,
    /// What this one has had so far.
    round: u64,
    last_ms: f64,
}

impl Looped {
    pub(super) fn open(mut open: Open, from: u64) -> Result<Self, SourceError> {
        let source = open()?;
        let info = SourceInfo { frames: None, ..source.info().clone() };
        Ok(Self { open, source, info, from, frames: 0, shown_ms: 0.0, round: 0, last_ms: 0.0 })
    }

    /// Goes on to the next round that has a wanted frame.
    fn turn(&mut self) -> Result<(), SourceError> {
        let duration_ms = self.last_ms + 1000.0 / self.info.frame_rate.hz();
        let rounds = (self.from.saturating_sub(self.frames) / self.round.max(1)).max(1);
        self.frames += rounds * self.round;
        self.shown_ms += rounds as f64 * duration_ms;
        (self.round, self.last_ms) = (0, 0.0);
        self.source = (self.open)()?;
        Ok(())
    }
}

impl FileSource for Looped {
    fn info(&self) -> &SourceInfo {
        &self.info
    }
}

impl Source for Looped {
    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        loop {
            let end = match self.source.next_frame() {
                Ok(Some(frame)) => {
                    let (number, pts_ms) = (self.frames + frame.number, self.shown_ms + frame.pts_ms);
                    (self.round, self.last_ms) = (frame.number + 1, frame.pts_ms);
                    if number < self.from {
                        continue;
                    }
                    return Ok(Some(Frame { number, pts_ms, ..frame }));
                }
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            // Nothing would come of another round.
            if self.round == 0 {
                return end;
            }
            if let Err(error) = end {
                warn!(error = chain(&error), "a looped source ended early, and starts over");
            }
            self.turn()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use kadr_shared::{geometry::Size, message::frame::Colour};

    use super::*;
    use crate::{picture::Picture, source::FrameRate};

    /// Three frames at 10 a second, and an error if it is damaged.
    struct Three {
        info: SourceInfo,
        given: u64,
        damaged: bool,
    }

    impl FileSource for Three {
        fn info(&self) -> &SourceInfo {
            &self.info
        }
    }

    impl Source for Three {
        fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
            if self.given == 3 {
                return if self.damaged { Err(SourceError::Incomplete { decoded: 3, expected: 4 }) } else { Ok(None) };
            }
            let picture = Picture::uniform(self.info.size, Colour::default(), [0; 3]).unwrap();
            let number = self.given;
            self.given += 1;
            Ok(Some(Frame { number, pts_ms: number as f64 * 100.0, captured_at: None, picture }))
        }
    }

    fn looped(from: u64, damaged: bool) -> (Looped, std::sync::Arc<std::sync::atomic::AtomicU64>) {
        let opened = std::sync::Arc::<std::sync::atomic::AtomicU64>::default();
        let count = opened.clone();
        let info = SourceInfo {
            size: Size { width: 2, height: 2 },
            frame_rate: FrameRate::whole(10),
            timescale: NonZeroU32::MIN,
            frames: Some(3),
            colour: Colour::default(),
        };
        let open = move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(Box::new(Three { info: info.clone(), given: 0, damaged }) as Box<dyn FileSource>)
        };
        (Looped::open(Box::new(open), from).unwrap(), opened)
    }

    #[test]
    fn numbers_and_times_go_on() {
        for damaged in [false, true] {
            let (mut source, _) = looped(0, damaged);
            assert_eq!(source.info().frames, None);
            for number in 0..20 {
                let frame = source.next_frame().unwrap().unwrap();
                assert_eq!((frame.number, frame.pts_ms), (number, number as f64 * 100.0));
            }
        }
    }

    #[test]
    fn a_later_attempt_steps_over_whole_rounds() {
        for from in [1, 2, 3, 4, 7, 3_000_000, 3_000_001] {
            let (mut source, opened) = looped(from, false);
            let frame = source.next_frame().unwrap().unwrap();
            assert_eq!((frame.number, frame.pts_ms), (from, from as f64 * 100.0));
            assert!(opened.load(std::sync::atomic::Ordering::Relaxed) <= 2);
        }
    }
}
