//! Letterboxing: a full frame scaled once, in YUV, to exactly the planes that a model takes.
//!
//! Each plane is scaled by itself into the even-aligned rectangle of a [`Letterbox`]; no conversion to RGB happens
//! on this side. Where the rectangle lies is decided by `kadr_shared::geometry`, which maps boxes back by the same.

use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedCroppedImageMut, TypedImage, TypedImageRef},
    pixels::U8,
};
use kadr_shared::{
    geometry::{Letterbox, Size},
    message::frame::{Range, i420_len},
};

use crate::picture::Picture;

/// Two taps in each direction whatever the ratio, as `cv2.resize` does it by default: the references that models are
/// judged by were scaled like this.
const ALGORITHM: ResizeAlg = ResizeAlg::Interpolation(FilterType::Bilinear);

/// The grey that Ultralytics puts around a picture, in RGB.
const PADDING: f64 = 114.0;

/// The luma of what lies around a picture; its chroma is 128.
pub(crate) fn padding(range: Range) -> u8 {
    match range {
        Range::Limited => (PADDING * 219.0 / 255.0 + 16.0).round() as u8,
        Range::Full => PADDING as u8,
    }
}

/// A picture that is not the one its letterbox was made for.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    #[error("the letterbox is for a source of {wanted}, the picture is {found}")]
    Source { wanted: Size, found: Size },
    #[error("the letterbox's rectangle does not lie within the input of {input}")]
    Rectangle { input: Size },
    #[error("the planes can't be scaled")]
    Resize(#[from] fast_image_resize::ResizeError),
}

/// Scales frame after frame; keeps its tables and buffers between them.
#[derive(Default)]
pub struct Scaler {
    resizer: Resizer,
}

impl Scaler {
    pub fn new() -> Self {
        Self::default()
    }

    /// `picture` as I420 of `fit.input`: luma, then both chroma planes, without padding between rows; grey around it.
    pub fn letterbox(&mut self, picture: &Picture, fit: &Letterbox) -> Result<Vec<u8>, ScaleError> {
        if picture.size() != fit.source {
            return Err(ScaleError::Source { wanted: fit.source, found: picture.size() });
        }
        self.letterbox_part(picture, (0, 0), fit)
    }

    /// The same of the part of `picture` that begins at `origin` (even) and is `fit.source` large.
    pub(crate) fn letterbox_part(
        &mut self,
        picture: &Picture,
        origin: (u32, u32),
        fit: &Letterbox,
    ) -> Result<Vec<u8>, ScaleError> {
        let mut out = vec![0; i420_len(fit.input)];
        let luma_len = fit.input.width() as usize * fit.input.height() as usize;
        let (luma, chroma) = out.split_at_mut(luma_len);
        let (first, second) = chroma.split_at_mut(luma_len / 4);
        let [y, u, v] = picture.planes();
        let grey = padding(picture.colour().range);
        for (from, to, shift, padding) in [(y, luma, 0, grey), (u, first, 1, 128), (v, second, 1, 128)] {
            let (width, height) = (fit.input.width() >> shift, fit.input.height() >> shift);
            let [left, top, inner_width, inner_height] = [fit.left, fit.top, fit.width, fit.height].map(|n| n >> shift);
            if (inner_width, inner_height) != (width, height) {
                to.fill(padding);
            }
            let inconsistent = ScaleError::Rectangle { input: fit.input.size() };
            let source = TypedImageRef::<U8>::from_buffer(from.width as u32, from.height as u32, from.data);
            let target = TypedImage::<U8>::from_buffer(width, height, to)
                .ok()
                .and_then(|whole| TypedCroppedImageMut::new(whole, left, top, inner_width, inner_height).ok());
            let (Ok(source), Some(mut target)) = (source, target) else { return Err(inconsistent) };
            // An odd side's last chroma sample covers a column outside the picture; that half is left out.
            let scale = f64::from(1u8 << shift);
            let [shown_width, shown_height] = [fit.source.width, fit.source.height].map(|n| f64::from(n) / scale);
            let [x, y] = [origin.0, origin.1].map(|n| f64::from(n) / scale);
            let options = ResizeOptions::new().resize_alg(ALGORITHM).crop(x, y, shown_width, shown_height);
            self.resizer.resize_typed(&source, &mut target, &options)?;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::message::frame::{Colour, Matrix};

    use super::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    fn fit(source: Size, input: &str) -> Letterbox {
        Letterbox::fit(source, input.parse().unwrap())
    }

    #[test]
    fn a_picture_lies_in_grey() {
        for (range, grey) in [(Range::Limited, 114), (Range::Full, 114)] {
            let colour = Colour { matrix: Matrix::Bt601, range };
            let picture = Picture::uniform(size(1280, 720), colour, [200, 90, 30]).unwrap();
            let planes = Scaler::new().letterbox(&picture, &fit(size(1280, 720), "640x384")).unwrap();
            let (luma, chroma) = planes.split_at(640 * 384);
            let (u, v) = chroma.split_at(320 * 192);
            let rows = |plane: &[u8], width: usize, from: usize, to: usize| plane[from * width..to * width].to_vec();
            assert!(rows(luma, 640, 0, 12).iter().all(|&p| p == grey));
            assert!(rows(luma, 640, 12, 372).iter().all(|&p| p == 200));
            assert!(rows(luma, 640, 372, 384).iter().all(|&p| p == grey));
            assert!(rows(u, 320, 0, 6).iter().chain(&rows(v, 320, 186, 192)).all(|&p| p == 128));
            assert!(rows(u, 320, 6, 186).iter().all(|&p| p == 90) && rows(v, 320, 6, 186).iter().all(|&p| p == 30));
        }
    }

    #[test]
    fn halving_takes_the_mean_of_neighbours() {
        let mut picture = Picture::uniform(size(128, 64), Colour::default(), [0, 128, 128]).unwrap();
        for (index, p) in picture.planes_mut()[0].data.iter_mut().enumerate() {
            *p = if index % 2 == 0 { 100 } else { 140 };
        }
        let planes = Scaler::new().letterbox(&picture, &fit(size(128, 64), "64x32")).unwrap();
        assert!(planes[..64 * 32].iter().all(|&p| p == 120));
    }

    #[test]
    fn every_size_fits_and_a_wrong_one_is_refused() {
        let mut scaler = Scaler::new();
        for source in [size(1, 1), size(3, 5), size(641, 271), size(17, 4000), size(4000, 17)] {
            let picture = Picture::uniform(source, Colour::default(), [80, 100, 160]).unwrap();
            let letterbox = fit(source, "320x192");
            let planes = scaler.letterbox(&picture, &letterbox).unwrap();
            let middle = (letterbox.top + letterbox.height / 2) * 320 + letterbox.left + letterbox.width / 2;
            assert_eq!((planes.len(), planes[middle as usize]), (320 * 192 * 3 / 2, 80), "{source}");
        }
        let picture = Picture::uniform(size(4, 4), Colour::default(), [0; 3]).unwrap();
        assert!(matches!(scaler.letterbox(&picture, &fit(size(8, 8), "32x32")), Err(ScaleError::Source { .. })));
    }
}
