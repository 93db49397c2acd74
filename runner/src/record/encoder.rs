//! H.264 encoding by openh264: one picture in, one coded picture out.
//!
//! The encoder's own defaults are for video calls: 120 kbit/s, one key frame, frames left out when it gets tight.
//! Here every frame comes out, key frames come as often as is asked for, and quality is held instead of a bit rate: some
//! 0.1 bit a pixel for traffic, much less where little moves. (Every mode of the encoder that holds a bit rate does it
//! by leaving out frames.)

use kadr_shared::{
    geometry::Size,
    message::frame::{Colour, Matrix, Range},
};
use openh264::{
    OpenH264API, Timestamp,
    encoder::{
        ColorPrimaries, Complexity, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, MatrixCoefficients,
        RateControlMode, TransferCharacteristics, UsageType, VuiConfig,
    },
    formats::YUVSource,
};

use super::RecordError;
use crate::{picture::Picture, source::SourceInfo};

/// What openh264 takes, lying or upright.
const MIN_SIDE: u32 = 16;
const LONG_SIDE: u32 = 3840;
const SHORT_SIDE: u32 = 2160;
/// Encodes pictures of one size.
pub(crate) struct Encoder {
    inner: openh264::encoder::Encoder,
    padded: Padded,
    coded: Coded,
}

/// A coded picture as MP4 wants it.
#[derive(Debug)]
pub(crate) struct Coded {
    /// NAL units, each behind its length in four bytes, without parameter sets.
    pub(crate) data: Vec<u8>,
    pub(crate) key_frame: bool,
    /// The size in the stream: the picture's, rounded up to even.
    pub(crate) size: Size,
    /// Parameter sets, wherever they come with a picture.
    pub(crate) sps: Vec<u8>,
    pub(crate) pps: Vec<u8>,
}

/// Types of NAL unit (ITU-T H.264, table 7-1).
const SPS: u8 = 7;
const PPS: u8 = 8;

impl Encoder {
    /// For pictures like a source's, with a key frame every so many seconds.
    pub(crate) fn new(source: &SourceInfo, key_seconds: f64) -> Result<Self, RecordError> {
        let size = source.size;
        let even = Size { width: size.width.next_multiple_of(2), height: size.height.next_multiple_of(2) };
        let (short, long) = (even.width.min(even.height), even.width.max(even.height));
        if !(MIN_SIDE..=SHORT_SIDE).contains(&short) || long > LONG_SIDE {
            return Err(RecordError::OutOfRange { size });
        }
        let rate = source.frame_rate.hz();
        let config = EncoderConfig::new()
            // The encoder knows rates from 1 to 60; it chooses the level by it, times are the container's.
            .max_frame_rate(FrameRate::from_hz(rate.clamp(1.0, 60.0) as f32))
            // Constant quality: a quantiser of 26.
            .rate_control_mode(RateControlMode::Off)
            .skip_frames(false)
            .usage_type(UsageType::CameraVideoRealTime)
            // A tenth less work, a fifth in key frames, for 0.1 dB (docs/performance.md).
            .complexity(Complexity::Low)
            .intra_frame_period(IntraFramePeriod::from_num_frames((rate * key_seconds).clamp(1.0, 600.0) as u32))
            // Threads would need slices; runners encode several videos at once instead.
            .num_threads(1)
            .vui(vui(source.colour));
        let inner = openh264::encoder::Encoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|source| RecordError::Start { size, source })?;
        let coded = Coded { data: Vec::new(), key_frame: false, size: even, sps: Vec::new(), pps: Vec::new() };
        Ok(Self { inner, padded: Padded { size: even, luma: Vec::new() }, coded })
    }

    /// Makes the next picture a key frame.
    pub(crate) fn begin_anew(&mut self) {
        self.inner.force_intra_frame();
    }

    /// Encodes frame number `frame`, which is shown at `pts_ms`.
    pub(crate) fn encode(&mut self, picture: &Picture, frame: u64, pts_ms: f64) -> Result<&Coded, RecordError> {
        let failed = |source| RecordError::Encode { frame, source };
        let source = self.padded.view(picture);
        let stream = self.inner.encode_at(&source, Timestamp::from_millis(pts_ms as u64)).map_err(failed)?;
        let coded = &mut self.coded;
        coded.data.clear();
        coded.key_frame = matches!(stream.frame_type(), FrameType::IDR);
        let layers = (0..stream.num_layers()).filter_map(|index| stream.layer(index));
        for layer in layers {
            for index in 0..layer.nal_count() {
                let nal = layer.nal_unit(index).map(without_start_code).unwrap_or_default();
                match nal.first().map(|head| head & 0x1f) {
                    None => {}
                    Some(SPS) => coded.sps = nal.to_vec(),
                    Some(PPS) => coded.pps = nal.to_vec(),
                    Some(_) => {
                        // A coded picture of 4 GB is beyond every level.
                        coded.data.extend(u32::try_from(nal.len()).unwrap_or(u32::MAX).to_be_bytes());
                        coded.data.extend(nal);
                    }
                }
            }
        }
        if coded.data.is_empty() {
            return Err(RecordError::Dropped { frame });
        }
        Ok(coded)
    }
}

fn without_start_code(nal: &[u8]) -> &[u8] {
    nal.iter().position(|&byte| byte != 0).and_then(|one| nal.get(one + 1..)).unwrap_or_default()
}

fn vui(colour: Colour) -> VuiConfig {
    let vui = match colour.matrix {
        Matrix::Bt709 => VuiConfig::bt709(),
        // BT.601 has two sets of primaries, and which one the source has is not known.
        Matrix::Bt601 => VuiConfig::bt601()
            .matrix_coefficients(MatrixCoefficients::Smpte170M)
            .color_primaries(ColorPrimaries::Unspecified)
            .transfer_characteristics(TransferCharacteristics::Unspecified),
    };
    vui.full_range(colour.range == Range::Full)
}

/// Pads pictures to even sides by repeating the last column and row of luma; chroma of an odd side covers them already.
struct Padded {
    size: Size,
    luma: Vec<u8>,
}

/// A picture as the encoder reads it.
struct View<'a> {
    size: Size,
    planes: [&'a [u8]; 3],
}

impl Padded {
    fn view<'a>(&'a mut self, picture: &'a Picture) -> View<'a> {
        let [y, u, v] = picture.planes();
        let luma = if picture.size() == self.size {
            y.data
        } else {
            let (width, height) = (self.size.width as usize, self.size.height as usize);
            self.luma.clear();
            for index in 0..height {
                let start = index.min(y.height - 1) * y.width;
                let row = y.data.get(start..start + y.width).unwrap_or_default();
                self.luma.extend_from_slice(row);
                self.luma.resize((index + 1) * width, row.last().copied().unwrap_or_default());
            }
            &self.luma
        };
        View { size: self.size, planes: [luma, u.data, v.data] }
    }
}

impl YUVSource for View<'_> {
    fn dimensions(&self) -> (usize, usize) {
        (self.size.width as usize, self.size.height as usize)
    }
    fn strides(&self) -> (usize, usize, usize) {
        let chroma = self.size.width as usize / 2;
        (self.size.width as usize, chroma, chroma)
    }
    fn y(&self) -> &[u8] {
        self.planes[0]
    }
    fn u(&self) -> &[u8] {
        self.planes[1]
    }
    fn v(&self) -> &[u8] {
        self.planes[2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_pictures_repeat_their_edge() {
        let size = Size { width: 3, height: 3 };
        let data = [1, 2, 3, 4, 5, 6, 7, 8, 9, 50, 51, 52, 53, 60, 61, 62, 63].to_vec();
        let picture = Picture::new(size, Colour::default(), data).unwrap();
        let mut padded = Padded { size: Size { width: 4, height: 4 }, luma: Vec::new() };
        let view = padded.view(&picture);
        assert_eq!(view.planes[0], [1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 7, 8, 9, 9]);
        assert_eq!((view.planes[1], view.planes[2]), (&[50, 51, 52, 53][..], &[60, 61, 62, 63][..]));
    }

    #[test]
    fn start_codes_are_taken_off() {
        assert_eq!(without_start_code(&[0, 0, 0, 1, 0x67, 1]), [0x67, 1]);
        assert_eq!(without_start_code(&[0, 0, 1, 0x68]), [0x68]);
        assert!(without_start_code(&[]).is_empty());
    }
}
