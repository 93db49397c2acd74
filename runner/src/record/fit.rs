//! Pictures of another size than the recording's: scaled into it without distortion, in the middle, black around them.

use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedCroppedImageMut, TypedImage, TypedImageRef},
    pixels::U8,
};
use kadr_shared::{geometry::Size, message::frame::Range};

use crate::picture::Picture;

/// Scales picture after picture; keeps its tables between them.
#[derive(Default)]
pub(super) struct Fitter {
    resizer: Resizer,
}

impl Fitter {
    /// `picture` within a picture of `size`; none if a side has no pixels.
    pub(super) fn fit(&mut self, picture: &Picture, size: Size) -> Option<Picture> {
        let black = match picture.colour().range {
            Range::Limited => 16,
            Range::Full => 0,
        };
        let mut out = Picture::uniform(size, picture.colour(), [black, 128, 128]).ok()?;
        let inner = inner(picture.size(), size);
        // The halved planes line up with luma.
        let (left, top) = ((size.width - inner.width) / 4 * 2, (size.height - inner.height) / 4 * 2);
        for (shift, (from, to)) in [0, 1, 1].into_iter().zip(picture.planes().into_iter().zip(out.planes_mut())) {
            let side = |length: usize| u32::try_from(length).ok();
            let (width, height) = (side(to.width)?, side(to.height)?);
            let source = TypedImageRef::<U8>::from_buffer(side(from.width)?, side(from.height)?, from.data).ok()?;
            let whole = TypedImage::<U8>::from_buffer(width, height, to.data).ok()?;
            let [inner_width, inner_height] = [inner.width, inner.height].map(|side| side.div_ceil(1 << shift));
            let mut target =
                TypedCroppedImageMut::new(whole, left >> shift, top >> shift, inner_width, inner_height).ok()?;
            let options = ResizeOptions::new().resize_alg(ResizeAlg::Interpolation(FilterType::Bilinear));
            self.resizer.resize_typed(&source, &mut target, &options).ok()?;
        }
        Some(out)
    }
}

/// The largest size of the shape of `from` that lies within `into`; even where it does not fill a side.
fn inner(from: Size, into: Size) -> Size {
    let [width, height, most_width, most_height] = [from.width, from.height, into.width, into.height].map(u64::from);
    let even = |side: u64, most: u32| u32::try_from(side).unwrap_or(most).max(1).next_multiple_of(2).min(most);
    if width * most_height >= height * most_width {
        Size { width: into.width, height: even(height * most_width / width.max(1), into.height) }
    } else {
        Size { width: even(width * most_height / height.max(1), into.width), height: into.height }
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::message::frame::Colour;

    use super::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn the_shape_is_kept() {
        assert_eq!(inner(size(100, 50), size(640, 480)), size(640, 320));
        assert_eq!(inner(size(50, 100), size(640, 480)), size(240, 480));
        assert_eq!(inner(size(640, 480), size(320, 240)), size(320, 240));
        assert_eq!(inner(size(10_000, 1), size(64, 48)), size(64, 2));
    }

    #[test]
    fn the_picture_lies_in_the_middle_on_black() {
        let wide = Picture::uniform(size(64, 16), Colour::default(), [200, 90, 60]).unwrap();
        let fitted = Fitter::default().fit(&wide, size(32, 32)).unwrap();
        let [y, u, v] = fitted.planes();
        let column = |plane: crate::picture::Plane<'_>| {
            (0..plane.height).map(|row| plane.data[row * plane.width + 5]).collect::<Vec<_>>()
        };
        let luma = [vec![16; 12], vec![200; 8], vec![16; 12]].concat();
        assert_eq!(column(y), luma);
        assert_eq!(column(u), [vec![128; 6], vec![90; 4], vec![128; 6]].concat());
        assert_eq!(column(v), [vec![128; 6], vec![60; 4], vec![128; 6]].concat());
    }

    #[test]
    fn odd_sizes_have_room() {
        for (from, into) in [((33, 77), (101, 55)), ((1, 1), (17, 19)), ((3001, 7), (333, 77)), ((5, 4000), (64, 48))] {
            let picture = Picture::uniform(size(from.0, from.1), Colour::default(), [200, 90, 60]).unwrap();
            let fitted = Fitter::default().fit(&picture, size(into.0, into.1)).unwrap();
            assert_eq!(fitted.size(), size(into.0, into.1), "{from:?}");
        }
    }
}
