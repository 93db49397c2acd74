//! Sizes, and how a source's picture lies in a model's input.
//!
//! The runner scales by it and inference maps boxes back by it, so it stands here; pixels are touched in neither.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Width × height in pixels, written `1280x720`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("{0:?} is no size: one like 640x384 (width x height) is wanted")]
    Form(String),
    #[error(
        "{size} can't be a model's input: width and height are multiples of {} from {} to {}",
        InputSize::STEP,
        InputSize::STEP,
        InputSize::MAX
    )]
    Input { size: Size },
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let form = || SizeError::Form(text.chars().take(40).collect());
        let (width, height) = text.split_once(['x', 'X', '×']).ok_or_else(form)?;
        let side = |s: &str| s.trim().parse::<u32>().ok().filter(|&v| v > 0).ok_or_else(form);
        Ok(Self { width: side(width)?, height: side(height)? })
    }
}

/// A model's input: both sides multiples of 32, the coarsest stride of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InputSize(Size);

impl InputSize {
    pub const STEP: u32 = 32;
    pub const MAX: u32 = 2048;
    /// The longer side that a source is letterboxed into by default.
    pub const DEFAULT_SIDE: u32 = 640;

    pub fn new(size: Size) -> Result<Self, SizeError> {
        let good = |side: u32| side > 0 && side.is_multiple_of(Self::STEP) && side <= Self::MAX;
        if good(size.width) && good(size.height) { Ok(Self(size)) } else { Err(SizeError::Input { size }) }
    }

    /// The smallest input that holds `source` scaled to a longer side of 640: 1280×720 gives 640×384.
    pub fn fitting(source: Size) -> Self {
        let longer = u64::from(source.width.max(source.height).max(1));
        let side = |length: u32| {
            let scaled = (u64::from(length) * u64::from(Self::DEFAULT_SIDE)).div_ceil(longer);
            let stepped = u32::try_from(scaled).unwrap_or(Self::DEFAULT_SIDE).next_multiple_of(Self::STEP);
            stepped.clamp(Self::STEP, Self::DEFAULT_SIDE)
        };
        Self(Size { width: side(source.width), height: side(source.height) })
    }

    pub const fn size(self) -> Size {
        self.0
    }
    pub const fn width(self) -> u32 {
        self.0.width
    }
    pub const fn height(self) -> u32 {
        self.0.height
    }
}

impl fmt::Display for InputSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for InputSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        Self::new(text.parse()?)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for InputSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InputSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a source's picture lies in a model's input: scaled without distortion, centred, grey around it.
///
/// Offsets and lengths are even, so that the halved chroma planes of I420 line up with luma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letterbox {
    pub source: Size,
    pub input: InputSize,
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

impl Letterbox {
    pub fn fit(source: Size, input: InputSize) -> Self {
        let (sw, sh) = (u64::from(source.width.max(1)), u64::from(source.height.max(1)));
        let (iw, ih) = (u64::from(input.width()), u64::from(input.height()));
        let (width, height) = if iw * sh <= ih * sw { (iw, sh * iw / sw) } else { (sw * ih / sh, ih) };
        let even = |length: u64, limit: u32| {
            // Both sides of an input are even, so that rounding up never leaves it.
            u32::try_from(length).unwrap_or(limit).next_multiple_of(2).clamp(2, limit)
        };
        let (width, height) = (even(width, input.width()), even(height, input.height()));
        let offset = |limit: u32, length: u32| (limit - length) / 4 * 2;
        Self { source, input, left: offset(input.width(), width), top: offset(input.height(), height), width, height }
    }

    /// A box `[x1, y1, x2, y2]` of the input in the source's own pixels, kept within the picture.
    pub fn to_source(&self, [x1, y1, x2, y2]: [f32; 4]) -> [f32; 4] {
        let x = |v: f32| {
            ((v - self.left as f32) * self.source.width as f32 / self.width as f32).clamp(0.0, self.source.width as f32)
        };
        let y = |v: f32| {
            ((v - self.top as f32) * self.source.height as f32 / self.height as f32)
                .clamp(0.0, self.source.height as f32)
        };
        [x(x1), y(y1), x(x2), y(y2)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn the_default_input_is_the_smallest_that_fits() {
        for (source, input) in [
            (size(1280, 720), "640x384"),
            (size(640, 272), "640x288"),
            (size(768, 432), "640x384"),
            (size(810, 1080), "480x640"),
            (size(640, 640), "640x640"),
            (size(100_000, 2), "640x32"),
        ] {
            assert_eq!(InputSize::fitting(source).to_string(), input, "{source}");
        }
    }

    #[test]
    fn a_picture_is_centred() {
        let fit = Letterbox::fit(size(1280, 720), "640x384".parse().unwrap());
        assert_eq!((fit.left, fit.top, fit.width, fit.height), (0, 12, 640, 360));
        assert_eq!(fit.to_source([0.0, 12.0, 640.0, 372.0]), [0.0, 0.0, 1280.0, 720.0]);
    }

    #[test]
    fn inputs_are_multiples_of_32() {
        for bad in ["640x360", "0x0", "640", "640x", "x640", "-32x32", "4096x4096", "axb"] {
            assert!(bad.parse::<InputSize>().is_err(), "{bad}");
        }
        assert_eq!("640x384".parse::<InputSize>().unwrap().to_string(), "640x384");
    }

    proptest! {
        #[test]
        fn boxes_come_back_and_planes_line_up(
            w in 1u32..5000, h in 1u32..5000, iw in 1u32..=64, ih in 1u32..=64,
        ) {
            let input = InputSize::new(size(iw * 32, ih * 32)).unwrap();
            let fit = Letterbox::fit(size(w, h), input);
            prop_assert!(fit.left + fit.width <= input.width() && fit.top + fit.height <= input.height());
            prop_assert!([fit.left, fit.top, fit.width, fit.height].iter().all(|v| v % 2 == 0));
            prop_assert!(fit.width >= 2 && fit.height >= 2);
            let whole = [fit.left as f32, fit.top as f32, (fit.left + fit.width) as f32, (fit.top + fit.height) as f32];
            let back = fit.to_source(whole);
            prop_assert!((back[2] - w as f32).abs() < 0.01 * w as f32 && (back[3] - h as f32).abs() < 0.01 * h as f32);
        }
    }
}
