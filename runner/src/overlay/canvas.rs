//! Filling and blending on the planes of a picture, clipped to it.

use kadr_shared::geometry::Size;

use super::{palette::Ink, text::Mask};
use crate::picture::{Picture, PlaneMut};

/// Pixels from `left` and `top` up to, but without, `right` and `bottom`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) right: u32,
    pub(super) bottom: u32,
}

impl Rect {
    pub(super) const fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// The smallest rectangle around this one whose edges are even or the picture's.
    pub(super) fn even(self, size: Size) -> Self {
        Self {
            left: self.left.min(size.width) / 2 * 2,
            top: self.top.min(size.height) / 2 * 2,
            right: self.right.saturating_add(self.right % 2).min(size.width),
            bottom: self.bottom.saturating_add(self.bottom % 2).min(size.height),
        }
    }
}

/// A picture being drawn on.
pub(super) struct Canvas<'a> {
    planes: [PlaneMut<'a>; 3],
}

impl<'a> Canvas<'a> {
    pub(super) fn new(picture: &'a mut Picture) -> Self {
        Self { planes: picture.planes_mut() }
    }

    /// The edges of `rect`, `line` pixels wide on its inside; `line` is even.
    pub(super) fn outline(&mut self, rect: Rect, line: u32, ink: Ink) {
        let Rect { left, top, right, bottom } = rect;
        let far = |low: u32, high: u32| (high.saturating_sub(line) / 2 * 2).max(low);
        self.fill(Rect { bottom: top + line, ..rect }, ink);
        self.fill(Rect { top: far(top, bottom), ..rect }, ink);
        self.fill(Rect { right: left + line, ..rect }, ink);
        self.fill(Rect { left: far(left, right), ..rect }, ink);
    }

    /// Fills `rect`, whose edges are even or the picture's.
    pub(super) fn fill(&mut self, rect: Rect, ink: Ink) {
        let [y, u, v] = &mut self.planes;
        for (plane, value, step) in [(y, ink.y, 1), (u, ink.u, 2), (v, ink.v, 2)] {
            let (left, right) = ((rect.left / step) as usize, rect.right.div_ceil(step) as usize);
            let (top, bottom) = ((rect.top / step) as usize, rect.bottom.div_ceil(step) as usize);
            let (left, right) = (left.min(plane.width), right.min(plane.width));
            for row in plane.data.chunks_exact_mut(plane.width).take(bottom).skip(top) {
                if let Some(span) = row.get_mut(left..right) {
                    span.fill(value);
                }
            }
        }
    }

    /// Lays `ink` over the picture as densely as `mask` says, its upper left corner at (`left`, `top`), within `clip`.
    pub(super) fn blend(&mut self, left: u32, top: u32, clip: Rect, mask: &Mask, ink: Ink) {
        let [y, u, v] = &mut self.planes;
        for row in 0..mask.height {
            for column in 0..mask.width {
                let (x, at_y) = (left + column, top + row);
                if x < clip.right && at_y < clip.bottom {
                    mix(y, x, at_y, ink.y, u32::from(mask.at(column, row)));
                }
            }
        }
        // A chroma sample is as much covered as the four pixels that share it are on average.
        let covered = |x: u32, y: u32| {
            let at = |dx: u32, dy: u32| match ((2 * x + dx).checked_sub(left), (2 * y + dy).checked_sub(top)) {
                (Some(column), Some(row)) => u32::from(mask.at(column, row)),
                _ => 0,
            };
            (at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1)) / 4
        };
        for cy in top / 2..(top + mask.height).min(clip.bottom).div_ceil(2) {
            for cx in left / 2..(left + mask.width).min(clip.right).div_ceil(2) {
                let density = covered(cx, cy);
                mix(u, cx, cy, ink.u, density);
                mix(v, cx, cy, ink.v, density);
            }
        }
    }
}

/// Moves a sample towards `value` by `density` of 255; nothing outside the plane.
fn mix(plane: &mut PlaneMut<'_>, x: u32, y: u32, value: u8, density: u32) {
    let (x, y) = (x as usize, y as usize);
    if x < plane.width
        && let Some(sample) = plane.data.get_mut(y * plane.width + x)
    {
        let mixed = (u32::from(*sample) * (255 - density) + u32::from(value) * density + 127) / 255;
        *sample = u8::try_from(mixed).unwrap_or(u8::MAX);
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::message::frame::Colour;

    use super::*;

    const INK: Ink = Ink { y: 200, u: 10, v: 20 };

    #[test]
    fn fills_reach_the_edges_of_odd_pictures_and_no_further() {
        let size = Size { width: 5, height: 5 };
        let mut picture = Picture::uniform(size, Colour::default(), [0, 0, 0]).unwrap();
        Canvas::new(&mut picture).fill(Rect { left: 2, top: 4, right: 99, bottom: 99 }.even(size), INK);
        let [y, u, _] = picture.planes();
        assert_eq!(y.data[20..], [0, 0, 200, 200, 200]);
        assert_eq!(y.data[..20], [0; 20]);
        assert_eq!(u.data, [0, 0, 0, 0, 0, 0, 0, 10, 10]);
    }

    #[test]
    fn a_box_narrower_than_its_lines_is_filled() {
        let size = Size { width: 8, height: 8 };
        let mut picture = Picture::uniform(size, Colour::default(), [0, 0, 0]).unwrap();
        Canvas::new(&mut picture).outline(Rect { left: 2, top: 2, right: 4, bottom: 4 }, 2, INK);
        assert_eq!(picture.planes()[0].data.iter().filter(|&&v| v == 200).count(), 4);
    }

    #[test]
    fn masks_mix() {
        let size = Size { width: 4, height: 4 };
        let mut picture = Picture::uniform(size, Colour::default(), [100, 100, 100]).unwrap();
        let mask = Mask { width: 2, height: 1, coverage: vec![255, 0] };
        let clip = Rect { left: 0, top: 0, right: 4, bottom: 4 };
        Canvas::new(&mut picture).blend(0, 0, clip, &mask, Ink { y: 200, u: 200, v: 0 });
        let [y, u, v] = picture.planes();
        assert_eq!((y.data[0], y.data[1], u.data[0], v.data[0], u.data[1]), (200, 100, 125, 75, 100));
    }
}
