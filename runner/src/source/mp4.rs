//! H.264 in MP4, progressive or fragmented.
//!
//! The file is read sample by sample through a seeking reader: neither the file nor a fragment is ever held whole.
//! Boxes inside the index are decoded by `shiguredo_mp4`; its file demuxers are not used, because they hold whole
//! fragments, lose a cut one, and refuse the absolute data offsets that ffmpeg writes by default. Sound and further
//! video tracks are left alone. Edit lists are not applied: every coded frame is a frame.

mod boxes;
mod fragment;
mod samples;
mod track;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{Read, Seek},
};

use self::{
    boxes::Input,
    samples::{Sample, Samples, Step},
    track::Description,
};
use super::{Frame, FrameRate, Source, SourceError, SourceInfo, h264::Decoder, turn::Turn};
use crate::picture::PictureError;

/// A picture of 36,864 macroblocks, the largest there is, has 14 MB uncompressed.
const SAMPLE_LIMIT: u32 = 32 << 20;

/// Frames of an MP4's first video track.
pub(super) struct Mp4Source<R> {
    input: Input<R>,
    samples: Samples,
    descriptions: Vec<Description>,
    /// The one the decoder was last set up with.
    current: usize,
    info: SourceInfo,
    decoder: Decoder,
    turn: Turn,
    /// Presentation times of what the decoder has taken and not given back; the smallest comes out next.
    shown_at: BinaryHeap<Reverse<i64>>,
    /// The last sample read.
    sample: Vec<u8>,
    expected: u64,
    decoded: u64,
    first_pts: Option<i64>,
    last_pts: i64,
    state: State,
}

enum State {
    Reading,
    /// All is read; frames may still wait in the decoder, and after them the problem is told.
    Draining(Option<SourceError>),
}

impl<R: Read + Seek> Mp4Source<R> {
    pub(super) fn open(reader: R) -> Result<Self, SourceError> {
        let mut input = Input::new(reader)?;
        let track = track::first_video(&mut input)?;
        let survey = track.samples.survey(&mut input)?;
        if survey.frames == 0 {
            return Err(SourceError::NoFrames);
        }
        let stream = track.stream(&mut input)?;
        let frame_rate = FrameRate::mean(survey.frames, survey.ticks, track.timescale).unwrap_or(FrameRate::DEFAULT);
        let mut source = Self {
            input,
            samples: track.samples,
            descriptions: track.descriptions,
            current: 0,
            info: SourceInfo {
                size: track.turn.size(stream.size),
                frame_rate,
                timescale: track.timescale,
                frames: Some(survey.frames),
                colour: stream.colour,
            },
            decoder: Decoder::new(stream)?,
            turn: track.turn,
            shown_at: BinaryHeap::new(),
            sample: Vec::new(),
            expected: survey.frames,
            decoded: 0,
            first_pts: None,
            last_pts: 0,
            state: State::Reading,
        };
        source.set_up(0)?;
        Ok(source)
    }

    /// Gives the decoder the parameter sets of description number `index`.
    fn set_up(&mut self, index: usize) -> Result<(), SourceError> {
        let description = self.descriptions.get(index).ok_or_else(|| SourceError::Malformed {
            what: format!("a frame refers to sample description {} of {}", index + 1, self.descriptions.len()),
            position: None,
        })?;
        let Description::H264 { parameter_sets, .. } = description else { return Err(description.refusal()) };
        for set in parameter_sets {
            self.decoder.parameter_set(set)?;
        }
        self.current = index;
        Ok(())
    }

    /// Reads and decodes what comes next.
    fn advance(&mut self) -> Result<(), SourceError> {
        match self.samples.next(&mut self.input)? {
            Step::Sample(sample) => self.decode(sample),
            Step::End => {
                self.finish(None);
                Ok(())
            }
            Step::Cut => Err(SourceError::Truncated { decoded: 0, expected: self.expected }),
        }
    }

    fn decode(&mut self, sample: Sample) -> Result<(), SourceError> {
        if sample.description != self.current {
            self.set_up(sample.description)?;
        }
        let Some(Description::H264 { length_size, .. }) = self.descriptions.get(self.current) else { return Ok(()) };
        if sample.size > SAMPLE_LIMIT {
            let what = format!("a frame is said to have {} bytes", sample.size);
            return Err(SourceError::Malformed { what, position: Some(sample.offset) });
        }
        self.input.read(sample.offset, sample.end(), &mut self.sample)?;
        // A frame that can't be decoded never comes out, so that its time must not be waited for.
        if self.decoder.decode(&self.sample, *length_size)? {
            self.shown_at.push(Reverse(sample.pts));
        }
        Ok(())
    }

    /// Ends reading: what the decoder holds comes out, then `problem` is told.
    fn finish(&mut self, problem: Option<SourceError>) {
        self.decoder.flush();
        self.state = State::Draining(problem);
    }

    /// What is to be told after the last frame.
    fn verdict(&self, problem: Option<SourceError>) -> Result<Option<Frame>, SourceError> {
        let (decoded, expected) = (self.decoded, self.expected);
        match problem {
            Some(SourceError::Truncated { expected, .. }) => Err(SourceError::Truncated { decoded, expected }),
            Some(problem) => Err(problem),
            None if decoded < expected => Err(SourceError::Incomplete { decoded, expected }),
            None => Ok(None),
        }
    }
}

impl<R: Read + Seek + Send> Source for Mp4Source<R> {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

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
                State::Reading => {
                    if let Err(problem) = self.advance() {
                        self.finish(Some(problem));
                    }
                }
                State::Draining(problem) => {
                    let problem = problem.take();
                    let verdict = self.verdict(problem);
                    // Told once.
                    self.expected = self.decoded;
                    return verdict;
                }
            }
        }
    }
}

/// What was decoded is not the picture it should be, which no file can bring about.
fn unusable(error: PictureError) -> SourceError {
    SourceError::Malformed { what: error.to_string(), position: None }
}
