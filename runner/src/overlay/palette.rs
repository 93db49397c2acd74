//! The colours of classes, and any colour as a picture's YUV.

use kadr_shared::message::frame::{Colour, Matrix, Range};

/// A colour to draw with, as RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paint([u8; 3]);

/// A colour as a picture stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ink {
    pub(super) y: u8,
    pub(super) u: u8,
    pub(super) v: u8,
}

/// Bright enough for dark scenes, saturated enough for bright ones, neighbours far apart: classes that are seen
/// together (person, bicycle, car, motorcycle, bus, truck) come first in COCO.
const CLASSES: [u32; 20] = [
    0xff_40_40, 0x00_b8_ff, 0x35_d4_4a, 0xff_c0_1e, 0x96_4d_ff, 0xff_7a_14, 0xff_9d_cf, 0x00_cf_b4, 0xff_2f_c0,
    0xd3_dc_3a, 0x3f_6e_ff, 0xff_ea_70, 0xc3_a1_ff, 0x8f_c4_00, 0xc9_82_50, 0x92_e6_ff, 0xff_98_7d, 0x1f_9c_4b,
    0xd0_d4_d8, 0xa8_2a_62,
];

impl Paint {
    pub(super) const BLACK: Self = Self([0, 0, 0]);
    pub(super) const WHITE: Self = Self([255, 255, 255]);

    /// The same for a class in every picture; after twenty they repeat.
    pub(super) fn of_class(class: usize) -> Self {
        let [_, r, g, b] = CLASSES[class % CLASSES.len()].to_be_bytes();
        Self([r, g, b])
    }

    /// Black or white, whichever is read better on this colour.
    pub(super) fn contrast(self) -> Self {
        // Relative luminance of sRGB, gamma taken as 2; contrast ratios as WCAG 2 defines them.
        let [r, g, b] = self.0.map(|v| (f32::from(v) / 255.0).powi(2));
        let luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) { Self::BLACK } else { Self::WHITE }
    }

    /// As a picture of `colour` stores it (ITU-R BT.601, BT.709).
    pub(super) fn in_yuv(self, colour: Colour) -> Ink {
        let [r, g, b] = self.0.map(f32::from);
        let (red, blue) = match colour.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
        };
        let luma = red * r + (1.0 - red - blue) * g + blue * b;
        let (u, v) = ((b - luma) / (2.0 * (1.0 - blue)), (r - luma) / (2.0 * (1.0 - red)));
        let (y, scale) = match colour.range {
            Range::Limited => (16.0 + luma * 219.0 / 255.0, 224.0 / 255.0),
            Range::Full => (luma, 1.0),
        };
        // Casting a float saturates at 0 and 255.
        Ink { y: y.round() as u8, u: (128.0 + u * scale).round() as u8, v: (128.0 + v * scale).round() as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yuv(rgb: [u8; 3], matrix: Matrix, range: Range) -> (u8, u8, u8) {
        let Ink { y, u, v } = Paint(rgb).in_yuv(Colour { matrix, range });
        (y, u, v)
    }

    #[test]
    fn primaries_are_those_of_the_standards() {
        assert_eq!(yuv([255, 0, 0], Matrix::Bt601, Range::Limited), (81, 90, 240));
        assert_eq!(yuv([255, 0, 0], Matrix::Bt709, Range::Limited), (63, 102, 240));
        assert_eq!(yuv([0, 255, 0], Matrix::Bt601, Range::Full), (150, 44, 21));
        assert_eq!(yuv([255, 255, 255], Matrix::Bt709, Range::Full), (255, 128, 128));
        assert_eq!(yuv([0, 0, 0], Matrix::Bt709, Range::Limited), (16, 128, 128));
    }

    #[test]
    fn classes_are_told_apart() {
        for a in 0..CLASSES.len() {
            for b in 0..a {
                let apart: u32 =
                    Paint::of_class(a).0.iter().zip(Paint::of_class(b).0).map(|(x, y)| u32::from(x.abs_diff(y))).sum();
                assert!(apart >= 60, "{a} and {b}: {apart}");
            }
        }
        assert_eq!(Paint::of_class(usize::MAX), Paint::of_class(usize::MAX % 20));
    }

    #[test]
    fn text_contrasts_with_its_plate() {
        assert_eq!(Paint([255, 234, 112]).contrast(), Paint::BLACK);
        assert_eq!(Paint([63, 60, 200]).contrast(), Paint::WHITE);
    }
}
