//! Quarter turns: a telephone that is held upright records lying pictures and notes in the file how to turn them.
//!
//! Players turn them, so that a source does too: boxes are in the pixels that people see.

use kadr_shared::geometry::Size;

use crate::picture::{Picture, PictureError, Plane};

/// How a picture is turned to be shown, clockwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Turn {
    #[default]
    None,
    Right,
    Half,
    Left,
}

/// Rows and columns that are turned together: both sides of a block stay in the processor's first cache.
const BLOCK: usize = 32;

impl Turn {
    /// Reads a track header's matrix (ISO/IEC 14496-12, 8.3.2). What is no quarter turn is left as it is.
    pub(super) fn of_matrix(matrix: &[i32; 9]) -> Self {
        let [a, b, _, c, d, ..] = matrix.map(i32::signum);
        match (a, b, c, d) {
            (0, 1, -1, 0) => Self::Right,
            (-1, 0, 0, -1) => Self::Half,
            (0, -1, 1, 0) => Self::Left,
            _ => Self::None,
        }
    }

    /// The size of a turned picture.
    pub(super) const fn size(self, Size { width, height }: Size) -> Size {
        match self {
            Self::None | Self::Half => Size { width, height },
            Self::Right | Self::Left => Size { width: height, height: width },
        }
    }

    /// The picture as it is shown.
    pub(super) fn apply(self, picture: Picture) -> Result<Picture, PictureError> {
        if self == Self::None {
            return Ok(picture);
        }
        let mut data = Vec::with_capacity(picture.bytes().len());
        for plane in picture.planes() {
            self.plane(plane, &mut data);
        }
        Picture::new(self.size(picture.size()), picture.colour(), data)
    }

    /// Appends the turned plane to `data`.
    fn plane(self, Plane { width, height, data: from }: Plane<'_>, data: &mut Vec<u8>) {
        let start = data.len();
        if matches!(self, Self::None | Self::Half) {
            data.extend(from.iter().rev());
            return;
        }
        data.resize(start + from.len(), 0);
        let to = data.get_mut(start..).unwrap_or_default();
        for top in (0..height).step_by(BLOCK) {
            for left in (0..width).step_by(BLOCK) {
                for y in top..(top + BLOCK).min(height) {
                    for x in left..(left + BLOCK).min(width) {
                        let (row, column) = if self == Self::Right { (x, height - 1 - y) } else { (width - 1 - x, y) };
                        if let (Some(to), Some(from)) = (to.get_mut(row * height + column), from.get(y * width + x)) {
                            *to = *from;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::message::frame::Colour;

    use super::*;

    const ONE: i32 = 1 << 16;

    #[test]
    fn matrices_are_quarter_turns_or_nothing() {
        let of = |a, b, c, d| Turn::of_matrix(&[a, b, 0, c, d, 0, 0, 0, 1 << 30]);
        assert_eq!(of(ONE, 0, 0, ONE), Turn::None);
        assert_eq!(of(0, ONE, -ONE, 0), Turn::Right);
        assert_eq!(of(-ONE, 0, 0, -ONE), Turn::Half);
        assert_eq!(of(0, -ONE, ONE, 0), Turn::Left);
        assert_eq!(of(-ONE, 0, 0, ONE), Turn::None, "a mirror is no turn");
    }

    #[test]
    fn every_pixel_finds_its_place() {
        // 1 2 3 4
        // 5 6 7 8
        let size = Size { width: 4, height: 2 };
        let picture = Picture::new(size, Colour::default(), vec![1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 20, 21]).unwrap();
        let turned = |turn: Turn| turn.apply(picture.clone()).unwrap();
        assert_eq!(turned(Turn::Right).bytes(), [5, 1, 6, 2, 7, 3, 8, 4, 10, 11, 20, 21]);
        assert_eq!(turned(Turn::Left).bytes(), [4, 8, 3, 7, 2, 6, 1, 5, 11, 10, 21, 20]);
        assert_eq!(turned(Turn::Half).bytes(), [8, 7, 6, 5, 4, 3, 2, 1, 11, 10, 21, 20]);
        assert_eq!(turned(Turn::Right).size(), Size { width: 2, height: 4 });
        let wide = Picture::uniform(Size { width: 100, height: 70 }, Colour::default(), [1, 2, 3]).unwrap();
        let back = Turn::Left.apply(Turn::Right.apply(wide.clone()).unwrap()).unwrap();
        assert_eq!(back, wide);
    }
}
