//! Finds the index of an MP4 and in it the first video track; reads how that track is coded.

use std::{
    io::{Read, Seek},
    num::NonZeroU32,
};

use shiguredo_mp4::{
    Decode,
    boxes::{Avc1Box, MoovBox, SampleEntry, UnknownBox},
};

use super::{
    boxes::{array, children},
    samples::{Samples, Step},
};
use crate::source::{
    SourceError,
    coded::SAMPLE_LIMIT,
    h264::{self, sps::Stream},
    input::Input,
    turn::Turn,
};

/// An index takes some 16 bytes a frame and packet of sound: this is days of video.
const MOOV_LIMIT: u64 = 128 << 20;

/// The chosen track.
pub(super) struct Track {
    pub(super) timescale: NonZeroU32,
    pub(super) turn: Turn,
    pub(super) samples: Samples,
    /// How its samples may be coded; the first is what the source is judged by.
    pub(super) descriptions: Vec<Description>,
}

/// How samples are coded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Description {
    H264 {
        /// The bytes of the length before each NAL unit.
        length_size: usize,
        /// SPS, then PPS; in-band only if empty.
        parameter_sets: Vec<Vec<u8>>,
        /// The container's word on colour: matrix_coefficients and whether the range is full.
        colour: Option<(u8, bool)>,
    },
    /// Anything else, by the name it is known by.
    Other(String),
    Encrypted,
}

/// Finds the index and the first video track in it.
pub(super) fn first_video<R: Read + Seek>(input: &mut Input<R>) -> Result<Track, SourceError> {
    let mut position = 0;
    let found = loop {
        let found = input.box_at(position)?.ok_or(SourceError::NoIndex)?;
        if &found.kind == b"moov" {
            break found;
        }
        position = found.end;
    };
    if found.end > input.len() {
        return Err(SourceError::NoIndex);
    }
    let malformed = |what| SourceError::Malformed { what, position: Some(found.start) };
    if found.end - found.start > MOOV_LIMIT {
        return Err(malformed(format!("its index (moov) is said to have {} bytes", found.end - found.start)));
    }
    let mut bytes = Vec::new();
    input.read(found.start, found.end, &mut bytes)?;
    let bytes = without_other_tracks(&bytes).ok_or(SourceError::NoVideoTrack)?;
    let (mut moov, _) =
        MoovBox::decode(&bytes).map_err(|e| malformed(format!("its index (moov) can't be read: {}", e.reason)))?;
    let track = moov.trak_boxes.pop().ok_or(SourceError::NoVideoTrack)?;
    let stbl = track.mdia_box.minf_box.stbl_box;
    let descriptions = stbl.stsd_box.entries.iter().map(Description::of).collect();
    Ok(Track {
        timescale: track.mdia_box.mdhd_box.timescale,
        turn: Turn::of_matrix(&track.tkhd_box.matrix),
        samples: Samples::new(stbl, &moov, track.tkhd_box.track_id, found.end)?,
        descriptions,
    })
}

/// A moov with nothing but its header, its first video track and what fragments need: sound tracks and remarks come in
/// more kinds than a strict decoder takes, and none of them matters here.
fn without_other_tracks(moov: &[u8]) -> Option<Vec<u8>> {
    let header = if moov.starts_with(&[0, 0, 0, 1]) { 16 } else { 8 };
    let mut kept = vec![0; 8];
    let mut video = false;
    for (kind, payload) in children(moov.get(header..)?) {
        let keep = match &kind {
            b"mvhd" | b"mvex" => true,
            b"trak" => !video && is_video(payload),
            _ => false,
        };
        if keep {
            video |= &kind == b"trak";
            kept.extend(u32::try_from(payload.len() + 8).ok()?.to_be_bytes());
            kept.extend(kind);
            kept.extend(payload);
        }
    }
    let size = u32::try_from(kept.len()).ok()?.to_be_bytes();
    kept.get_mut(..4)?.copy_from_slice(&size);
    kept.get_mut(4..8)?.copy_from_slice(b"moov");
    video.then_some(kept)
}

fn is_video(trak: &[u8]) -> bool {
    let child = |payload, wanted: &[u8; 4]| children(payload).find(|(kind, _)| kind == wanted).map(|(_, p)| p);
    child(trak, b"mdia").and_then(|mdia| child(mdia, b"hdlr")).and_then(|hdlr| array(hdlr, 8)) == Some(*b"vide")
}

impl Track {
    /// What the first description's pictures are; looks into the first sample if the parameter sets are there only.
    pub(super) fn stream<R: Read + Seek>(&self, input: &mut Input<R>) -> Result<Stream, SourceError> {
        let first = self.descriptions.first().ok_or(SourceError::NoFrames)?;
        let Description::H264 { length_size, parameter_sets, colour } = first else { return Err(first.refusal()) };
        let mut sample = Vec::new();
        let out_of_band = parameter_sets.iter().map(Vec::as_slice).find(|set| h264::is_sps(set));
        let sps = match out_of_band {
            Some(sps) => Some(sps),
            None => {
                if let Step::Sample(first) = self.samples.clone().next(input)?
                    && first.size <= SAMPLE_LIMIT
                {
                    input.read(first.offset, first.end(), &mut sample)?;
                }
                h264::nals(&sample, *length_size).flatten().find(|nal| h264::is_sps(nal))
            }
        };
        let missing =
            || SourceError::Malformed { what: "its H.264 has no sequence parameter set".into(), position: None };
        Stream::of(sps.ok_or_else(missing)?, *colour)
    }
}

impl Description {
    fn of(entry: &SampleEntry) -> Self {
        match entry {
            SampleEntry::Avc1(avc) => Self::h264(avc),
            SampleEntry::Hev1(_) | SampleEntry::Hvc1(_) => Self::Other("H.265 (HEVC)".into()),
            SampleEntry::Vp08(_) => Self::Other("VP8".into()),
            SampleEntry::Vp09(_) => Self::Other("VP9".into()),
            SampleEntry::Av01(_) => Self::Other("AV1".into()),
            SampleEntry::Unknown(other) => Self::unknown(other),
            _ => Self::Other("no video at all".into()),
        }
    }

    fn h264(avc: &Avc1Box) -> Self {
        let config = &avc.avcc_box;
        let colr = avc.unknown_boxes.iter().find(|b| b.box_type.as_bytes() == b"colr");
        Self::H264 {
            length_size: usize::from(config.length_size_minus_one.get()) + 1,
            parameter_sets: config.sps_list.iter().chain(&config.pps_list).cloned().collect(),
            // "nclx", primaries, transfer, matrix (two bytes each), then a bit for the range.
            colour: colr.and_then(|b| match b.payload.as_slice() {
                [b'n', b'c', b'l', b'x', _, _, _, _, 0, matrix, rest @ ..] => {
                    Some((*matrix, rest.first().is_some_and(|flags| flags & 0x80 != 0)))
                }
                _ => None,
            }),
        }
    }

    fn unknown(entry: &UnknownBox) -> Self {
        let name = match entry.box_type.as_bytes() {
            // The same as avc1 but that parameter sets may stand between frames.
            b"avc3" => {
                let size = u32::try_from(entry.payload.len() + 8).unwrap_or(0).to_be_bytes();
                let avc1 = [&size[..], b"avc1", &entry.payload].concat();
                return match Avc1Box::decode(&avc1) {
                    Ok((avc, _)) => Self::h264(&avc),
                    Err(_) => Self::Other("H.264 with a damaged description".into()),
                };
            }
            b"encv" => return Self::Encrypted,
            b"mp4v" => "MPEG-4 Part 2 or MPEG-2",
            b"dvh1" | b"dvhe" => "Dolby Vision (H.265)",
            b"vvc1" | b"vvi1" => "H.266 (VVC)",
            b"jpeg" | b"mjpa" | b"mjpb" => "Motion JPEG",
            b"apch" | b"apcn" | b"apcs" | b"apco" | b"ap4h" | b"ap4x" => "ProRes",
            b"s263" | b"H263" => "H.263",
            other => return Self::Other(format!("of the codec {:?}", other.escape_ascii().to_string())),
        };
        Self::Other(name.into())
    }

    /// What the decoder is given before samples of this description; an error where they can't be decoded.
    pub(super) fn parameter_sets(&self) -> Result<&[Vec<u8>], SourceError> {
        match self {
            Self::H264 { parameter_sets, .. } => Ok(parameter_sets),
            other => Err(other.refusal()),
        }
    }

    /// Why samples of this description can't be decoded.
    pub(super) fn refusal(&self) -> SourceError {
        match self {
            Self::Encrypted => SourceError::Encrypted,
            Self::Other(found) => SourceError::Codec { found: found.clone() },
            Self::H264 { .. } => SourceError::Codec { found: "H.264".into() },
        }
    }
}
