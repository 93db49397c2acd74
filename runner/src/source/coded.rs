//! Coded video in a file, whatever the container: samples in decoding order go in, frames in presentation order come out.
//!
//! What could be decoded is given, and then told what is missing. How a container is read is [`Demux`]'s business.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{
    FileSource, Frame, Source, SourceError, SourceInfo,
    h264::{Decoder, sps::Stream},
    turn::Turn,
};
use crate::picture::PictureError;

/// A picture of 36,864 macroblocks, the largest there is, has 14 MB uncompressed.
pub(super) const SAMPLE_LIMIT: u32 = 32 << 20;

/// A container that is being read.
pub(super) trait Demux: Send {
    /// Gives the decoder what comes next.
    fn feed(&mut self, decoder: &mut Decoder) -> Result<Fed, SourceError>;

    /// How many frames there are by the container's own list; where it has none, by what was read so far.
    fn expected(&self) -> u64;
}

/// What the decoder was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    /// A picture, which will come out; when it is shown, in ticks.
    Picture(i64),
    /// Something else, or a picture that can't be decoded: its time must not be waited for.
    Other,
    End,
}

/// Frames of a container's video.
pub(super) struct Video<D> {
    demux: D,
    info: SourceInfo,
    decoder: Decoder,
    turn: Turn,
    /// Presentation times of what the decoder has taken and not given back; the smallest comes out next.
    shown_at: BinaryHeap<Reverse<i64>>,
    decoded: u64,
    first_pts: Option<i64>,
    last_pts: i64,
    state: State,
}

enum State {
    Reading,
    /// All is read; frames may still wait in the decoder, and after them the problem is told.
    Draining(Option<SourceError>),
    Over,
}

impl<D: Demux> Video<D> {
    /// `parameter_sets` stand outside of the samples, and hold before the first one.
    pub(super) fn new(
        demux: D,
        stream: Stream,
        info: SourceInfo,
        turn: Turn,
        parameter_sets: &[Vec<u8>],
    ) -> Result<Self, SourceError> {
        let mut decoder = Decoder::new(stream)?;
        for set in parameter_sets {
            decoder.parameter_set(set)?;
        }
        Ok(Self {
            demux,
            info,
            decoder,
            turn,
            shown_at: BinaryHeap::new(),
            decoded: 0,
            first_pts: None,
            last_pts: 0,
            state: State::Reading,
        })
    }

    /// Ends reading: what the decoder holds comes out, then `problem` is told.
    fn finish(&mut self, problem: Option<SourceError>) {
        self.decoder.flush();
        self.state = State::Draining(problem);
    }

    /// What is to be told after the last frame.
    fn verdict(&self, problem: Option<SourceError>) -> Result<Option<Frame>, SourceError> {
        let (decoded, expected) = (self.decoded, self.demux.expected());
        match problem {
            Some(SourceError::Truncated { expected, .. }) => Err(SourceError::Truncated { decoded, expected }),
            Some(problem) => Err(problem),
            None if decoded < expected => Err(SourceError::Incomplete { decoded, expected }),
            None => Ok(None),
        }
    }
}

impl<D: Demux> FileSource for Video<D> {
    fn info(&self) -> &SourceInfo {
        &self.info
    }
}

impl<D: Demux> Source for Video<D> {
    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        loop {
            if let Some(picture) = self.decoder.next_picture() {
                let picture = self.turn.apply(picture).map_err(unusable)?;
                let pts = self.shown_at.pop().map_or(self.last_pts, |Reverse(pts)| pts);
                let first = *self.first_pts.get_or_insert(pts);
                // Damaged timestamps may go back; shown frames never do.
                self.last_pts = pts.max(self.last_pts).max(first);
                let ticks = self.last_pts.saturating_sub(first);
                let number = self.decoded;
                self.decoded += 1;
                let pts_ms = ticks as f64 * 1000.0 / f64::from(self.info.timescale.get());
                return Ok(Some(Frame { number, pts_ms, captured_at: None, picture }));
            }
            match &mut self.state {
                State::Reading => match self.demux.feed(&mut self.decoder) {
                    Ok(Fed::Picture(pts)) => self.shown_at.push(Reverse(pts)),
                    Ok(Fed::Other) => {}
                    Ok(Fed::End) => self.finish(None),
                    Err(problem) => self.finish(Some(problem)),
                },
                State::Draining(problem) => {
                    let problem = problem.take();
                    self.state = State::Over;
                    return self.verdict(problem);
                }
                State::Over => return Ok(None),
            }
        }
    }
}

/// What was decoded is not the picture it should be, which no file can bring about.
fn unusable(error: PictureError) -> SourceError {
    SourceError::Malformed { what: error.to_string(), position: None }
}
