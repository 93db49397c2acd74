//! H.264 decoding: NAL units in, whole pictures in presentation order out, by openh264.
//!
//! Two traps are avoided here. The decoder must not be flushed before the end, or streams with B-frames fall apart;
//! and it gets one NAL unit a call. It never sees a sequence parameter set that [`sps`] has not approved, so that its
//! memory is bounded by a size that was checked. When a picture is shown is not known here.

pub(super) mod sps;

use std::collections::VecDeque;

use kadr_shared::geometry::Size;
use openh264::{
    decoder::{DecodeOptions, DecodedYUV, Flush},
    formats::YUVSource,
};

use self::sps::Stream;
use super::SourceError;
use crate::picture::Picture;

/// Types of NAL unit (ITU-T H.264, table 7-1).
const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// Decodes one stream.
pub(super) struct Decoder {
    inner: openh264::decoder::Decoder,
    stream: Stream,
    ready: VecDeque<Picture>,
    /// How many pictures came out, `ready` included.
    decoded: u64,
    /// A NAL unit behind its start code.
    unit: Vec<u8>,
    /// What the size changed to inside the decoder, told at the next call.
    changed: Option<Size>,
}

/// The NAL units of a sample, each behind a length of `length_size` bytes. A length beyond the sample's end gives
/// `None` and ends them.
pub(super) fn nals(sample: &[u8], length_size: usize) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = sample;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let nal = rest.split_at_checked(length_size).and_then(|(length, behind)| {
            let length = length.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
            behind.split_at_checked(length)
        });
        rest = nal.map_or(&[][..], |(_, behind)| behind);
        Some(nal.map(|(nal, _)| nal))
    })
}

fn kind(nal: &[u8]) -> Option<u8> {
    nal.first().map(|head| head & 0x1f)
}

/// Whether a NAL unit is a sequence parameter set.
pub(super) fn is_sps(nal: &[u8]) -> bool {
    kind(nal) == Some(SPS)
}

/// Whether a NAL unit is a slice of a picture.
pub(super) fn is_slice(nal: &[u8]) -> bool {
    matches!(kind(nal), Some(SLICE | IDR_SLICE))
}

/// Whether a NAL unit is a slice of a picture that needs no other one.
pub(super) fn is_idr(nal: &[u8]) -> bool {
    kind(nal) == Some(IDR_SLICE)
}

/// Whether a NAL unit is the first slice of a picture: it begins with macroblock 0, written as a single bit.
pub(super) fn begins_picture(nal: &[u8]) -> bool {
    matches!(kind(nal), Some(SLICE | IDR_SLICE)) && nal.get(1).is_some_and(|byte| byte & 0x80 != 0)
}

impl Decoder {
    pub(super) fn new(stream: Stream) -> Result<Self, SourceError> {
        let inner = openh264::decoder::Decoder::new().map_err(|source| SourceError::Decoder { source })?;
        Ok(Self { inner, stream, ready: VecDeque::new(), decoded: 0, unit: Vec::new(), changed: None })
    }

    /// Takes a parameter set. One that the decoder can't read makes the slices that need it fail, not the stream.
    pub(super) fn parameter_set(&mut self, nal: &[u8]) -> Result<(), SourceError> {
        if is_sps(nal) {
            let from = self.stream.size;
            match Stream::of(nal, None) {
                Ok(Stream { size, .. }) if size == from => {}
                Ok(Stream { size: to, .. }) => return Err(SourceError::SizeChanged { from, to, frames: self.decoded }),
                // Kept from the decoder, as nothing bounds what it would do with it.
                Err(SourceError::Malformed { .. }) => return Ok(()),
                Err(other) => return Err(other),
            }
        }
        self.feed(nal);
        Ok(())
    }

    /// Decodes a sample. Says whether all of it was taken: if not, its picture will not come.
    pub(super) fn decode(&mut self, sample: &[u8], length_size: usize) -> Result<bool, SourceError> {
        let (mut slices, mut failed) = (0, false);
        for nal in nals(sample, length_size) {
            match nal {
                Some(nal) => {
                    let taken = self.unit(nal)?;
                    slices += usize::from(taken.is_some());
                    failed |= taken == Some(false);
                }
                None => failed = true,
            }
        }
        Ok(slices > 0 && !failed)
    }

    /// Decodes a NAL unit. Of a slice, whether it was taken; none: it was something else.
    pub(super) fn unit(&mut self, nal: &[u8]) -> Result<Option<bool>, SourceError> {
        let taken = match kind(nal) {
            Some(SLICE | IDR_SLICE) => Some(self.feed(nal)),
            Some(SPS | PPS) => {
                self.parameter_set(nal)?;
                None
            }
            // Remarks, delimiters and padding; the decoder has no use for them.
            _ => None,
        };
        match self.changed {
            Some(to) => Err(SourceError::SizeChanged { from: self.stream.size, to, frames: self.decoded }),
            None => Ok(taken),
        }
    }

    /// Has the decoder give out what it holds back for reordering. Nothing may be decoded after it.
    pub(super) fn flush(&mut self) {
        // An error means that nothing more can be had; the caller counts what is missing.
        let rest = self.inner.flush_remaining().unwrap_or_default();
        let pictures: Vec<_> = rest.iter().filter_map(|yuv| picture(yuv, self.stream)).collect();
        self.decoded += pictures.len() as u64;
        self.ready.extend(pictures);
    }

    /// The next picture in presentation order that is ready.
    pub(super) fn next_picture(&mut self) -> Option<Picture> {
        self.ready.pop_front()
    }

    fn feed(&mut self, nal: &[u8]) -> bool {
        self.unit.clear();
        self.unit.extend([0, 0, 0, 1]);
        self.unit.extend(nal);
        let options = DecodeOptions::new().flush_after_decode(Flush::NoFlush);
        match self.inner.decode_with_options(&self.unit, options) {
            Ok(Some(yuv)) => {
                match picture(&yuv, self.stream) {
                    Some(picture) => {
                        self.ready.push_back(picture);
                        self.decoded += 1;
                    }
                    None => self.changed = Some(size(&yuv)),
                }
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

fn size(yuv: &DecodedYUV<'_>) -> Size {
    let (width, height) = yuv.dimensions();
    Size { width: u32::try_from(width).unwrap_or(0), height: u32::try_from(height).unwrap_or(0) }
}

/// Copies a decoded picture out of the decoder's memory; none if it is not of the stream's size.
fn picture(yuv: &DecodedYUV<'_>, stream: Stream) -> Option<Picture> {
    if size(yuv) != stream.size {
        return None;
    }
    let (width, height) = yuv.dimensions();
    let (y_stride, u_stride, v_stride) = yuv.strides();
    let mut data = Vec::with_capacity(Picture::len(stream.size)?);
    let mut copy = |plane: &[u8], stride: usize, width: usize, height: usize| {
        // The last row may end with the picture, before its padding.
        plane
            .chunks(stride.max(1))
            .take(height)
            .try_for_each(|row| row.get(..width).map(|row| data.extend_from_slice(row)))
    };
    copy(yuv.y(), y_stride, width, height)?;
    copy(yuv.u(), u_stride, width.div_ceil(2), height.div_ceil(2))?;
    copy(yuv.v(), v_stride, width.div_ceil(2), height.div_ceil(2))?;
    Picture::new(stream.size, stream.colour, data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_cut_into_units() {
        let units = |sample: &'static [u8], size| nals(sample, size).collect::<Vec<_>>();
        assert_eq!(units(&[0, 2, 7, 8, 0, 1, 9], 2), [Some(&[7, 8][..]), Some(&[9])]);
        assert_eq!(units(&[1, 5, 3, 6], 1), [Some(&[5][..]), None]);
        assert_eq!(units(&[0, 0], 4), [None]);
        assert_eq!(units(&[], 4), []);
    }
}
