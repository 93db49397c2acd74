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

use std::io::{Read, Seek};

use self::{
    samples::{Sample, Samples, Step},
    track::Description,
};
use super::{
    FrameRate, SourceError, SourceInfo,
    coded::{Demux, Fed, SAMPLE_LIMIT, Video},
    h264::Decoder,
    input::Input,
};

/// An MP4's first video track.
pub(super) struct Mp4<R> {
    input: Input<R>,
    samples: Samples,
    descriptions: Vec<Description>,
    /// The one the decoder was last set up with.
    current: usize,
    /// The last sample read.
    sample: Vec<u8>,
    expected: u64,
}

/// Opens an MP4.
pub(super) fn open<R: Read + Seek + Send>(reader: R) -> Result<Video<Mp4<R>>, SourceError> {
    let mut input = Input::new(reader)?;
    let track = track::first_video(&mut input)?;
    let survey = track.samples.survey(&mut input)?;
    if survey.frames == 0 {
        return Err(SourceError::NoFrames);
    }
    let stream = track.stream(&mut input)?;
    let frame_rate = FrameRate::mean(survey.frames, survey.ticks, track.timescale).unwrap_or(FrameRate::DEFAULT);
    let info = SourceInfo {
        size: track.turn.size(stream.size),
        frame_rate,
        timescale: track.timescale,
        frames: Some(survey.frames),
        colour: stream.colour,
    };
    let parameter_sets = track.descriptions.first().map(Description::parameter_sets).transpose()?;
    let parameter_sets = parameter_sets.unwrap_or_default().to_vec();
    let demux = Mp4 {
        input,
        samples: track.samples,
        descriptions: track.descriptions,
        current: 0,
        sample: Vec::new(),
        expected: survey.frames,
    };
    Video::new(demux, stream, info, track.turn, &parameter_sets)
}

impl<R: Read + Seek> Mp4<R> {
    /// Gives the decoder the parameter sets of description number `index`.
    fn set_up(&mut self, index: usize, decoder: &mut Decoder) -> Result<(), SourceError> {
        let description = self.descriptions.get(index).ok_or_else(|| SourceError::Malformed {
            what: format!("a frame refers to sample description {} of {}", index + 1, self.descriptions.len()),
            position: None,
        })?;
        for set in description.parameter_sets()? {
            decoder.parameter_set(set)?;
        }
        self.current = index;
        Ok(())
    }

    fn decode(&mut self, sample: Sample, decoder: &mut Decoder) -> Result<Fed, SourceError> {
        if sample.description != self.current {
            self.set_up(sample.description, decoder)?;
        }
        let Some(Description::H264 { length_size, .. }) = self.descriptions.get(self.current) else {
            return Ok(Fed::Other);
        };
        if sample.size > SAMPLE_LIMIT {
            let what = format!("a frame is said to have {} bytes", sample.size);
            return Err(SourceError::Malformed { what, position: Some(sample.offset) });
        }
        self.input.read(sample.offset, sample.end(), &mut self.sample)?;
        let taken = decoder.decode(&self.sample, *length_size)?;
        Ok(if taken { Fed::Picture(sample.pts) } else { Fed::Other })
    }
}

impl<R: Read + Seek + Send> Demux for Mp4<R> {
    fn feed(&mut self, decoder: &mut Decoder) -> Result<Fed, SourceError> {
        match self.samples.next(&mut self.input)? {
            Step::Sample(sample) => self.decode(sample, decoder),
            Step::End => Ok(Fed::End),
            Step::Cut => Err(SourceError::Truncated { decoded: 0, expected: self.expected }),
        }
    }

    fn expected(&self) -> u64 {
        self.expected
    }
}
