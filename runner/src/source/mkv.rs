//! H.264 in Matroska (RFC 9559), as far as it is needed to find the coded pictures of one track.
//!
//! The file is read block by block through a seeking reader, with nothing reserved that is not there: neither indexes nor
//! chapters nor attachments are looked at. (The crate `matroska-demuxer` reserves what a file claims, and runs for ever on
//! an index that points to itself.) Frames are counted by a walk over all headers. Sound and further video tracks are left
//! alone.

mod blocks;
mod ebml;
mod track;

use std::{
    io::{Read, Seek},
    num::NonZeroU32,
};

use self::{
    blocks::{Block, Blocks, Step},
    ebml::{child, unsigned},
    track::Track,
};
use super::{
    FrameRate, SourceError, SourceInfo,
    coded::{Demux, Fed, SAMPLE_LIMIT, Video},
    h264::{self, Decoder, sps::Stream},
    input::Input,
    turn::Turn,
};

/// Identifiers of elements.
const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const TRACKS: u32 = 0x1654_ae6b;
const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;

/// Descriptions of tracks that are longer hold something else.
const DESCRIPTION_LIMIT: u64 = 16 << 20;
/// Times are kept in microseconds, whatever the file's own ticks.
const TIMESCALE: NonZeroU32 = NonZeroU32::MIN.saturating_add(999_999);
/// Nanoseconds of a tick where the file does not say.
const TICK_NANOS: u64 = 1_000_000;
/// A rate that the file states and that is so close to the frames' own times is the exact one.
const SAME_RATE: f64 = 0.02;

/// A Matroska file's first video track.
pub(super) struct Mkv<R> {
    input: Input<R>,
    blocks: Blocks,
    track: Track,
    tick_nanos: u64,
    /// The last frame read.
    sample: Vec<u8>,
    expected: u64,
}

/// What stands before the frames.
struct Head {
    track: Track,
    tick_nanos: u64,
    blocks: Blocks,
}

/// Opens a Matroska file.
pub(super) fn open<R: Read + Seek + Send>(reader: R) -> Result<Video<Mkv<R>>, SourceError> {
    let mut input = Input::new(reader)?;
    let Head { track, tick_nanos, blocks } = head(&mut input)?;
    let Survey { frames, cut, first, last } = survey(blocks.clone(), &mut input)?;
    let parameter_sets = track.parameter_sets.clone();
    let expected = frames + u64::from(cut);
    let mut demux = Mkv { input, blocks, track, tick_nanos, sample: Vec::new(), expected };
    let stream = demux.stream()?;
    let span = u64::try_from(demux.micros(last).saturating_sub(demux.micros(first))).unwrap_or(0);
    let measured = FrameRate::mean(frames.saturating_sub(1), span, TIMESCALE);
    let stated = demux.track.frame_nanos.and_then(|nanos| {
        const NANOS: NonZeroU32 = NonZeroU32::MIN.saturating_add(999_999_999);
        FrameRate::mean(1, nanos, NANOS)
    });
    let frame_rate = match (measured, stated) {
        (Some(measured), Some(stated)) if (stated.hz() / measured.hz() - 1.0).abs() < SAME_RATE => stated,
        (Some(measured), _) => measured,
        (None, stated) => stated.unwrap_or(FrameRate::DEFAULT),
    };
    let info = SourceInfo {
        size: stream.size,
        frame_rate,
        timescale: TIMESCALE,
        frames: Some(expected),
        colour: stream.colour,
    };
    Video::new(demux, stream, info, Turn::None, &parameter_sets)
}

/// Reads up to the first cluster.
fn head<R: Read + Seek>(input: &mut Input<R>) -> Result<Head, SourceError> {
    let (mut position, mut end) = (0, None);
    let (mut track, mut tick_nanos) = (None, TICK_NANOS);
    loop {
        let Some(element) = input.element_at(position)? else {
            // A file that ends behind its description has no frames; one that ends before has nothing.
            return Err(if track.is_some() { SourceError::NoFrames } else { ends_early() });
        };
        match element.id {
            SEGMENT => {
                (position, end) = (element.content, element.end);
                continue;
            }
            blocks::id::CLUSTER => {
                let track: Track = track.ok_or(SourceError::NoVideoTrack)?;
                let blocks = Blocks::new(track.number, element.start, end);
                return Ok(Head { track, tick_nanos, blocks });
            }
            INFO | TRACKS => {
                let content = description(input, element)?;
                if element.id == TRACKS {
                    track = Some(Track::first_video(&content)?);
                } else {
                    let scale = child(&content, TIMESTAMP_SCALE).and_then(unsigned);
                    tick_nanos = scale.filter(|&nanos| nanos > 0).unwrap_or(TICK_NANOS);
                }
            }
            _ => {}
        }
        let malformed = "an element of it has no length";
        position = element
            .end
            .ok_or_else(|| SourceError::Malformed { what: malformed.into(), position: Some(element.start) })?;
    }
}

fn description<R: Read + Seek>(input: &mut Input<R>, element: ebml::Element) -> Result<Vec<u8>, SourceError> {
    let start = element.content;
    let end = element.end.filter(|&end| end - start <= DESCRIPTION_LIMIT).ok_or_else(|| SourceError::Malformed {
        what: "its description is too long".into(),
        position: Some(element.start),
    })?;
    if end > input.len() {
        return Err(ends_early());
    }
    let mut content = Vec::new();
    input.read(start, end, &mut content)?;
    Ok(content)
}

fn ends_early() -> SourceError {
    SourceError::Malformed { what: "it ends before its tracks are described".into(), position: None }
}

/// What the whole track holds.
#[derive(Default)]
struct Survey {
    frames: u64,
    /// The file ends before what it announces: at least one frame more.
    cut: bool,
    /// The earliest and the latest time, in ticks.
    first: i64,
    last: i64,
}

/// Counts all frames that are there. What can't be read ends the count: it is told when its turn comes.
fn survey<R: Read + Seek>(mut blocks: Blocks, input: &mut Input<R>) -> Result<Survey, SourceError> {
    let mut survey = Survey::default();
    survey.cut = loop {
        match blocks.next(input) {
            Ok(Step::Block(Block { ticks, .. })) => {
                let begun = survey.frames > 0;
                survey.first = if begun { survey.first.min(ticks) } else { ticks };
                survey.last = if begun { survey.last.max(ticks) } else { ticks };
                survey.frames += 1;
            }
            Ok(Step::Cut) => break true,
            Ok(Step::End) | Err(_) => break false,
        }
    };
    if survey.frames == 0 {
        return Err(SourceError::NoFrames);
    }
    Ok(survey)
}

impl<R: Read + Seek> Mkv<R> {
    /// What the track's pictures are; looks into the first frame if the parameter sets are there only.
    fn stream(&mut self) -> Result<Stream, SourceError> {
        let colour = self.track.colour;
        if let Some(sps) = self.track.parameter_sets.iter().find(|set| h264::is_sps(set)) {
            return Stream::of(sps, colour);
        }
        if let Step::Block(first) = self.blocks.clone().next(&mut self.input)? {
            self.read(first)?;
        }
        let sps = h264::nals(&self.sample, self.track.length_size).flatten().find(|nal| h264::is_sps(nal));
        let missing =
            || SourceError::Malformed { what: "its H.264 has no sequence parameter set".into(), position: None };
        Stream::of(sps.ok_or_else(missing)?, colour)
    }

    fn read(&mut self, block: Block) -> Result<(), SourceError> {
        let size = block.end - block.offset;
        if size > u64::from(SAMPLE_LIMIT) {
            let what = format!("a frame is said to have {size} bytes");
            return Err(SourceError::Malformed { what, position: Some(block.offset) });
        }
        self.input.read(block.offset, block.end, &mut self.sample)?;
        if !self.track.stripped.is_empty() {
            self.sample.splice(..0, self.track.stripped.iter().copied());
        }
        Ok(())
    }

    fn micros(&self, ticks: i64) -> i64 {
        let micros = i128::from(ticks) * i128::from(self.tick_nanos) / 1_000;
        i64::try_from(micros).unwrap_or(i64::MAX)
    }
}

impl<R: Read + Seek + Send> Demux for Mkv<R> {
    fn feed(&mut self, decoder: &mut Decoder) -> Result<Fed, SourceError> {
        match self.blocks.next(&mut self.input)? {
            Step::Block(block) => {
                self.read(block)?;
                let taken = decoder.decode(&self.sample, self.track.length_size)?;
                Ok(if taken { Fed::Picture(self.micros(block.ticks)) } else { Fed::Other })
            }
            Step::End => Ok(Fed::End),
            Step::Cut => Err(SourceError::Truncated { decoded: 0, expected: self.expected }),
        }
    }

    fn expected(&self) -> u64 {
        self.expected
    }
}
