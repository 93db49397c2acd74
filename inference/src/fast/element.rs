//! The numbers that activations and weights are stored as: f32, bf16, or eight bits.
//!
//! Whatever they are, sums are f32 (or exact integers) and what follows a sum is f32 arithmetic.

use serde::{Deserialize, Serialize};

use super::memory::Number;

/// A stored activation, and the weights that it is multiplied by.
pub(crate) trait Element: Number {
    type Weight: Number;
    /// Neighbouring input channels that one multiply-add of the kernels takes in.
    const GROUP: usize;
    /// As told in detections and figures.
    const PRECISION: Precision;

    /// The nearest number that can be stored.
    fn nearest(value: f32) -> Self;

    /// A colour, from 0 to 255: exact at any precision.
    fn colour(value: u8) -> Self;

    /// What it stands for, before any scale.
    fn value(self) -> f32;

    /// One output channel's weights as they are stored.
    fn row(weights: &[f32]) -> Row<Self::Weight>;
}

/// The weights of one output channel.
#[derive(Debug)]
pub(crate) struct Row<W> {
    pub(crate) weights: Vec<W>,
    /// What a stored weight is to be multiplied by.
    pub(crate) step: f32,
    /// Of the stored weights, as numbers.
    pub(crate) sum: f32,
}

/// How a network computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    Bf16,
    /// Eight bits: needs a calibration.
    Int8,
}

impl Precision {
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// A word that names no precision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no precision: f32, bf16 or int8 is")]
pub struct UnknownPrecision(String);

impl std::str::FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        let all = [Self::F32, Self::Bf16, Self::Int8];
        all.into_iter().find(|precision| precision.name() == name).ok_or_else(|| UnknownPrecision(name.to_owned()))
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Element for f32 {
    type Weight = f32;
    const GROUP: usize = 1;
    const PRECISION: Precision = Precision::F32;

    fn nearest(value: f32) -> Self {
        value
    }

    fn colour(value: u8) -> Self {
        f32::from(value)
    }

    fn value(self) -> f32 {
        self
    }

    fn row(weights: &[f32]) -> Row<f32> {
        Row { weights: weights.to_vec(), step: 1.0, sum: weights.iter().sum() }
    }
}

/// The upper half of an f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Bf16(pub(crate) u16);

impl Element for Bf16 {
    type Weight = Self;
    const GROUP: usize = 2;
    const PRECISION: Precision = Precision::Bf16;

    /// Of two as near, the even one. Not a number stays so.
    fn nearest(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = (u64::from(bits) + 0x7fff + u64::from((bits >> 16) & 1)) >> 16;
        Self(if value.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded as u16 })
    }

    fn colour(value: u8) -> Self {
        // Eight bits of precision are enough.
        Self((f32::from(value).to_bits() >> 16) as u16)
    }

    fn value(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    fn row(weights: &[f32]) -> Row<Self> {
        let weights: Vec<_> = weights.iter().map(|&w| Self::nearest(w)).collect();
        let sum = weights.iter().map(|w| w.value()).sum();
        Row { weights, step: 1.0, sum }
    }
}

impl Element for u8 {
    type Weight = i8;
    const GROUP: usize = 4;
    const PRECISION: Precision = Precision::Int8;

    fn nearest(value: f32) -> Self {
        // `as` saturates.
        value.round_ties_even() as u8
    }

    fn colour(value: u8) -> Self {
        value
    }

    fn value(self) -> f32 {
        f32::from(self)
    }

    fn row(weights: &[f32]) -> Row<i8> {
        let largest = weights.iter().fold(0f32, |most, w| most.max(w.abs()));
        let step = largest.max(f32::MIN_POSITIVE * 127.0) / 127.0;
        let weights: Vec<i8> = weights.iter().map(|w| (w / step).round() as i8).collect();
        let sum = weights.iter().map(|&w| i32::from(w)).sum::<i32>() as f32;
        Row { weights, step, sum }
    }
}
