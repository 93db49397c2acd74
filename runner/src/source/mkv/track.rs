//! How a Matroska file's first video track is coded (RFC 9559, sections 5.1.4 and 6).

use super::ebml::{child, children, unsigned};
use crate::source::{SourceError, error::REMUX};

/// Identifiers of elements.
mod id {
    pub(super) const TRACK_ENTRY: u32 = 0xae;
    pub(super) const NUMBER: u32 = 0xd7;
    pub(super) const TYPE: u32 = 0x83;
    pub(super) const CODEC: u32 = 0x86;
    pub(super) const CODEC_PRIVATE: u32 = 0x63a2;
    pub(super) const DEFAULT_DURATION: u32 = 0x23_e383;
    pub(super) const VIDEO: u32 = 0xe0;
    pub(super) const COLOUR: u32 = 0x55b0;
    pub(super) const MATRIX: u32 = 0x55b1;
    pub(super) const RANGE: u32 = 0x55b9;
    pub(super) const ENCODINGS: u32 = 0x6d80;
    pub(super) const ENCODING: u32 = 0x6240;
    pub(super) const ENCODING_TYPE: u32 = 0x5033;
    pub(super) const COMPRESSION: u32 = 0x5034;
    pub(super) const ALGORITHM: u32 = 0x4254;
    pub(super) const SETTINGS: u32 = 0x4255;
}

/// A track's type that says video.
const VIDEO: u64 = 1;
/// An encoding's type that says encrypted.
const ENCRYPTED: u64 = 1;
/// The compression that leaves out the bytes that all frames begin with.
const STRIPPED: u64 = 3;

/// The chosen track.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Track {
    /// As blocks name it.
    pub(super) number: u64,
    /// The bytes of the length before each NAL unit.
    pub(super) length_size: usize,
    /// SPS, then PPS.
    pub(super) parameter_sets: Vec<Vec<u8>>,
    /// The container's word on colour: matrix_coefficients and whether the range is full.
    pub(super) colour: Option<(u8, bool)>,
    /// From frame to frame, in nanoseconds, if it is always the same.
    pub(super) frame_nanos: Option<u64>,
    /// What each frame begins with and its block leaves out.
    pub(super) stripped: Vec<u8>,
}

impl Track {
    /// The first video track of `tracks`, the content of such an element.
    pub(super) fn first_video(tracks: &[u8]) -> Result<Self, SourceError> {
        let number_in = |content, id| child(content, id).and_then(unsigned);
        let entry = children(tracks)
            .filter(|(id, _)| *id == id::TRACK_ENTRY)
            .map(|(_, entry)| entry)
            .find(|entry| number_in(entry, id::TYPE) == Some(VIDEO))
            .ok_or(SourceError::NoVideoTrack)?;
        let stripped = stripped(entry)?;
        let codec = child(entry, id::CODEC).unwrap_or_default();
        // Strings may be padded.
        let end = codec.iter().position(|&byte| byte == 0).unwrap_or(codec.len());
        let codec = codec.get(..end).unwrap_or_default();
        if codec != b"V_MPEG4/ISO/AVC" {
            return Err(SourceError::Codec { found: name(codec) });
        }
        let malformed = |what: &str| SourceError::Malformed { what: what.into(), position: None };
        let private = child(entry, id::CODEC_PRIVATE).unwrap_or_default();
        let (length_size, parameter_sets) =
            configuration(private).ok_or_else(|| malformed("its H.264 has no configuration that can be read"))?;
        let colour = child(entry, id::VIDEO).and_then(|video| child(video, id::COLOUR)).map(|colour| {
            let matrix = number_in(colour, id::MATRIX).and_then(|matrix| u8::try_from(matrix).ok());
            /// The value that says nothing (ITU-T H.264, table E-5).
            const UNSPECIFIED: u8 = 2;
            const FULL: u64 = 2;
            (matrix.unwrap_or(UNSPECIFIED), number_in(colour, id::RANGE) == Some(FULL))
        });
        Ok(Self {
            number: number_in(entry, id::NUMBER).ok_or_else(|| malformed("its video track has no number"))?,
            length_size,
            parameter_sets,
            colour,
            frame_nanos: number_in(entry, id::DEFAULT_DURATION).filter(|&nanos| nanos > 0),
            stripped,
        })
    }
}

/// The bytes that were taken off each frame. Anything else that was done to frames is refused.
fn stripped(entry: &[u8]) -> Result<Vec<u8>, SourceError> {
    let encodings = child(entry, id::ENCODINGS).map(|all| children(all).filter(|(id, _)| *id == id::ENCODING));
    let mut encodings = encodings.into_iter().flatten().map(|(_, encoding)| encoding);
    let Some(encoding) = encodings.next() else { return Ok(Vec::new()) };
    if child(encoding, id::ENCODING_TYPE).and_then(unsigned) == Some(ENCRYPTED) {
        return Err(SourceError::Encrypted);
    }
    let compression = child(encoding, id::COMPRESSION).unwrap_or_default();
    if encodings.next().is_some() || child(compression, id::ALGORITHM).and_then(unsigned) != Some(STRIPPED) {
        return Err(SourceError::Packed { convert: REMUX });
    }
    Ok(child(compression, id::SETTINGS).unwrap_or_default().to_vec())
}

/// Reads an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3): the bytes of lengths, and the parameter sets.
fn configuration(record: &[u8]) -> Option<(usize, Vec<Vec<u8>>)> {
    let (head, mut rest) = record.split_at_checked(5)?;
    let [1, _, _, _, lengths] = head else { return None };
    let mut sets = Vec::new();
    for mask in [0x1f, 0xff] {
        let (count, behind) = rest.split_first()?;
        rest = behind;
        for _ in 0..count & mask {
            let (length, behind) = rest.split_first_chunk()?;
            let (set, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            sets.push(set.to_vec());
            rest = behind;
        }
    }
    Some((usize::from(lengths & 3) + 1, sets))
}

fn name(codec: &[u8]) -> String {
    let name = match codec {
        b"V_MPEGH/ISO/HEVC" => "H.265 (HEVC)",
        b"V_MPEGI/ISO/VVC" => "H.266 (VVC)",
        b"V_VP8" => "VP8",
        b"V_VP9" => "VP9",
        b"V_AV1" => "AV1",
        b"V_MPEG1" | b"V_MPEG2" => "MPEG-1 or MPEG-2",
        b"V_MPEG4/ISO/SP" | b"V_MPEG4/ISO/ASP" | b"V_MPEG4/ISO/AP" => "MPEG-4 Part 2",
        b"V_MJPEG" => "Motion JPEG",
        b"V_PRORES" => "ProRes",
        b"V_THEORA" => "Theora",
        other => {
            let other = other.get(..40).unwrap_or(other);
            return format!("of the codec {:?}", other.escape_ascii().to_string());
        }
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(id: u32, content: &[u8]) -> Vec<u8> {
        let id: Vec<u8> = id.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
        let size = 0x4000 | u16::try_from(content.len()).unwrap();
        [&id[..], &size.to_be_bytes(), content].concat()
    }

    fn entry(more: &[Vec<u8>]) -> Vec<u8> {
        let private = b"\x01\x64\x00\x0a\xff\xe1\x00\x02\x67\x64\x01\x00\x01\x68";
        let fixed =
            [element(0xd7, &[3]), element(0x83, &[1]), element(0x86, b"V_MPEG4/ISO/AVC\0"), element(0x63a2, private)];
        element(0xae, &[fixed.concat(), more.concat()].concat())
    }

    #[test]
    fn the_first_video_track_is_taken() {
        let sound = element(0xae, &[element(0xd7, &[1]), element(0x83, &[2])].concat());
        let track = Track::first_video(&[sound.clone(), entry(&[])].concat()).unwrap();
        assert_eq!((track.number, track.length_size), (3, 4));
        assert_eq!(track.parameter_sets, [vec![0x67, 0x64], vec![0x68]]);
        assert!(matches!(Track::first_video(&sound), Err(SourceError::NoVideoTrack)));
    }

    #[test]
    fn what_was_done_to_frames_is_undone_or_refused() {
        let encoding = |parts: &[Vec<u8>]| element(0x6d80, &element(0x6240, &parts.concat()));
        let stripping = element(0x5034, &[element(0x4254, &[3]), element(0x4255, &[0, 0])].concat());
        let track = Track::first_video(&entry(&[encoding(&[stripping])])).unwrap();
        assert_eq!(track.stripped, [0, 0]);
        let zlib = encoding(&[element(0x5034, &element(0x4254, &[0]))]);
        assert!(matches!(Track::first_video(&entry(&[zlib])), Err(SourceError::Packed { .. })));
        let secret = encoding(&[element(0x5033, &[1])]);
        assert!(matches!(Track::first_video(&entry(&[secret])), Err(SourceError::Encrypted)));
    }

    #[test]
    fn a_configuration_that_is_cut_is_none() {
        let whole = b"\x01\x64\x00\x0a\xff\xe1\x00\x02\x67\x64\x01\x00\x01\x68";
        assert!(configuration(whole).is_some());
        assert!((0..whole.len()).all(|length| configuration(&whole[..length]).is_none()));
    }
}
