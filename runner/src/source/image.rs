//! A still image as a video of one frame.
//!
//! Images are RGB; they become BT.601 of limited range, as untagged video is, so that everything behind the source
//! knows one kind of picture. An alpha channel is put over black. The orientation that a camera noted is applied.

use std::io::{BufReader, Read, Seek, SeekFrom};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use kadr_shared::{geometry::Size, message::frame::Colour};
use yuv::{BufferStoreMut, YuvConversionMode, YuvPlanarImageMut, YuvRange, YuvStandardMatrix, rgb_to_yuv420};

use super::{FileSource, Frame, FrameRate, Source, SourceError, SourceInfo};
use crate::picture::Picture;

const MAX_SIDE: u32 = 16_384;
const MAX_PIXELS: u64 = 64 << 20;
/// What decoding may take: 64 million pixels of 16-bit RGBA, and as much again for the decoder itself.
const MAX_ALLOCATION: u64 = 1 << 30;

/// The one frame of an image.
pub(super) struct ImageSource {
    info: SourceInfo,
    frame: Option<Frame>,
}

impl ImageSource {
    /// Decodes the image that `reader` holds; `rate` says how long it is shown.
    pub(super) fn open<R: Read + Seek>(
        reader: R,
        format: ImageFormat,
        rate: Option<FrameRate>,
    ) -> Result<Self, SourceError> {
        let picture = decode(reader, format)?;
        let frame_rate = rate.unwrap_or(FrameRate::DEFAULT);
        let info = SourceInfo {
            size: picture.size(),
            frame_rate,
            timescale: frame_rate.numerator,
            frames: Some(1),
            colour: picture.colour(),
        };
        Ok(Self { info, frame: Some(Frame { number: 0, pts_ms: 0.0, captured_at: None, picture }) })
    }
}

/// Decodes the image that `reader` holds.
pub(super) fn decode<R: Read + Seek>(mut reader: R, format: ImageFormat) -> Result<Picture, SourceError> {
    let failed = |source| SourceError::Image { source };
    reader.seek(SeekFrom::Start(0)).map_err(|source| SourceError::Read { position: 0, source })?;
    let mut reader = ImageReader::with_format(BufReader::new(reader), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOCATION);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        let limit = "images have at most 16,384 pixels a side and 64 million in all, scale it down";
        return Err(SourceError::TooLarge { size: Size { width, height }, limit });
    }
    // A note that can't be read is no reason to refuse the picture.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation);
    picture(&over_black(image))
}

impl FileSource for ImageSource {
    fn info(&self) -> &SourceInfo {
        &self.info
    }
}

impl Source for ImageSource {
    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        Ok(self.frame.take())
    }
}

fn over_black(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    let mut flat = RgbImage::new(image.width(), image.height());
    for (to, from) in flat.pixels_mut().zip(image.pixels()) {
        let [r, g, b, alpha] = from.0.map(u32::from);
        to.0 = [r, g, b].map(|v| u8::try_from((v * alpha + 127) / 255).unwrap_or(u8::MAX));
    }
    flat
}

fn picture(image: &RgbImage) -> Result<Picture, SourceError> {
    let (width, height) = image.dimensions();
    let size = Size { width, height };
    let unusable = |_| SourceError::Malformed { what: format!("its picture is {size} large"), position: None };
    let mut picture = Picture::uniform(size, Colour::default(), [0; 3]).map_err(unusable)?;
    let [y, u, v] = picture.planes_mut();
    let chroma = width.div_ceil(2);
    let mut planes = YuvPlanarImageMut {
        y_plane: BufferStoreMut::Borrowed(y.data),
        y_stride: width,
        u_plane: BufferStoreMut::Borrowed(u.data),
        u_stride: chroma,
        v_plane: BufferStoreMut::Borrowed(v.data),
        v_stride: chroma,
        width,
        height,
    };
    // Range and matrix are those of `Colour::default()`.
    let (range, matrix) = (YuvRange::Limited, YuvStandardMatrix::Bt601);
    rgb_to_yuv420(&mut planes, image.as_raw(), width * 3, range, matrix, YuvConversionMode::Balanced)
        .map_err(|e| SourceError::Malformed { what: format!("its picture can't be converted: {e}"), position: None })?;
    Ok(picture)
}
