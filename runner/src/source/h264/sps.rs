//! What a sequence parameter set says of a stream's pictures, and whether they can be decoded at all.
//!
//! The decoder would fail on what it can't decode without saying why; here it is named.

use std::num::NonZeroU32;

use h264_reader::nal::{
    Nal, RefNal,
    sps::{ChromaFormat, FrameMbsFlags, SeqParameterSet},
};
use kadr_shared::{
    geometry::Size,
    message::frame::{Colour, Matrix, Range},
};

use crate::source::{
    FrameRate, SourceError,
    error::{DEINTERLACE, REENCODE},
};

/// Macroblocks of 16×16 in the largest picture of any level (ITU-T H.264, table A-1, levels 5.1 and 5.2).
const MAX_MACROBLOCKS: u64 = 36_864;

/// What holds for all pictures of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) struct Stream {
    pub(in crate::source) size: Size,
    pub(in crate::source) colour: Colour,
}

impl Stream {
    /// Reads the SPS `nal`, its header byte included. `container` is what the file says of colour beside the stream:
    /// matrix_coefficients and whether the range is full; it counts where the stream is silent.
    pub(in crate::source) fn of(nal: &[u8], container: Option<(u8, bool)>) -> Result<Self, SourceError> {
        let sps = parse(nal)?;
        supported(&sps)?;
        let (width, height) =
            sps.pixel_dimensions().map_err(|e| malformed(format!("its H.264 picture has no size ({e:?})")))?;
        let size = Size { width, height };
        if width == 0 || height == 0 {
            return Err(malformed(format!("its H.264 picture is {size} large")));
        }
        let macroblocks = u64::from(sps.pic_width_in_mbs()) * u64::from(sps.pic_height_in_map_units());
        if macroblocks > MAX_MACROBLOCKS {
            let limit = "H.264 pictures have at most 36,864 macroblocks of 16x16 (4096x2304), scale the video down";
            return Err(SourceError::TooLarge { size, limit });
        }
        Ok(Self { size, colour: colour(&sps, container) })
    }
}

/// Frames a second as the SPS `nal` has them, if it says so.
pub(in crate::source) fn rate(nal: &[u8]) -> Option<FrameRate> {
    let timing = parse(nal).ok()?.vui_parameters?.timing_info?;
    // A tick is a field's time, of which a frame has two (ITU-T H.264, E.2.1).
    let ticks = u64::from(timing.num_units_in_tick) * 2;
    FrameRate::mean(1, ticks, NonZeroU32::new(timing.time_scale)?)
}

fn parse(nal: &[u8]) -> Result<SeqParameterSet, SourceError> {
    // Zero bytes may follow a NAL unit without belonging to it.
    let end = nal.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    SeqParameterSet::from_bits(RefNal::new(nal.get(..end).unwrap_or_default(), &[], true).rbsp_bits())
        .map_err(|e| malformed(format!("its H.264 parameter set can't be read ({e:?})")))
}

fn supported(sps: &SeqParameterSet) -> Result<(), SourceError> {
    let refuse = |found: String, convert| Err(SourceError::Unsupported { found, convert });
    let chroma = &sps.chroma_info;
    let depth = 8 + chroma.bit_depth_luma_minus8.max(chroma.bit_depth_chroma_minus8);
    if depth > 8 {
        return refuse(format!("{depth}-bit video"), REENCODE);
    }
    match chroma.chroma_format {
        ChromaFormat::YUV420 => {}
        ChromaFormat::Monochrome => return refuse("monochrome (4:0:0) video".into(), REENCODE),
        ChromaFormat::YUV422 => return refuse("4:2:2 video".into(), REENCODE),
        ChromaFormat::YUV444 => return refuse("4:4:4 video".into(), REENCODE),
        ChromaFormat::Invalid(other) => return refuse(format!("video of chroma format {other}"), REENCODE),
    }
    match sps.frame_mbs_flags {
        FrameMbsFlags::Frames => Ok(()),
        FrameMbsFlags::Fields { .. } => refuse("interlaced video".into(), DEINTERLACE),
    }
}

fn colour(sps: &SeqParameterSet, container: Option<(u8, bool)>) -> Colour {
    let signal = sps.vui_parameters.as_ref().and_then(|vui| vui.video_signal_type.as_ref());
    /// The value that says nothing (ITU-T H.264, table E-5).
    const UNSPECIFIED: u8 = 2;
    let matrix = signal
        .and_then(|s| s.colour_description.as_ref())
        .map(|d| d.matrix_coefficients)
        .filter(|&matrix| matrix != UNSPECIFIED)
        .or(container.map(|(matrix, _)| matrix));
    let full = signal.map(|s| s.video_full_range_flag).or(container.map(|(_, full)| full)).unwrap_or(false);
    Colour {
        // BT.2020 and the rest are rare in 8 bits; what is not BT.709 is read as untagged video is.
        matrix: if matrix == Some(1) { Matrix::Bt709 } else { Matrix::Bt601 },
        range: if full { Range::Full } else { Range::Limited },
    }
}

fn malformed(what: String) -> SourceError {
    SourceError::Malformed { what, position: None }
}
