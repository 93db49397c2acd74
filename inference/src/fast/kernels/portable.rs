//! Plain Rust, for any CPU, and the twin that the others are tested against.

// SAFETY, of every function here: pointers are read and written as the traits say, at any alignment. Bodies are unsafe as a
// whole, since what they call is.
#![allow(unsafe_op_in_unsafe_fn)]

use super::{
    Cpu, kernels,
    lanes::Lanes,
    transforms,
    vector::{FAR, Vector},
};
use crate::fast::element::{Bf16, Element};

#[derive(Debug, Clone, Copy)]
pub(super) struct Plain([f32; 16]);

impl Plain {
    fn with(self, other: Self, of: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        out.iter_mut().zip(other.0).for_each(|(a, b)| *a = of(*a, b));
        Self(out)
    }
}

impl Vector for Plain {
    #[inline(always)]
    unsafe fn all(value: f32) -> Self {
        Self([value; 16])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(from.cast::<[f32; 16]>().read_unaligned())
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        to.cast::<[f32; 16]>().write_unaligned(self.0)
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.with(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        // Not fused: without the instruction that would be a call for each number.
        self.with(factor, |a, b| a * b).with(summand, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn mul_sub_from(self, factor: Self, summand: Self) -> Self {
        summand.with(self.with(factor, |a, b| a * b), |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn any_above(self, value: f32) -> bool {
        self.0.iter().any(|&number| number > value)
    }

    #[inline(always)]
    unsafe fn swish(self) -> Self {
        Self(self.0.map(|t| t / (1.0 + t.min(FAR).exp2())))
    }

    #[inline(always)]
    unsafe fn swish_roughly(self) -> Self {
        self.swish()
    }
}

pub(super) struct Single;

impl Lanes for Single {
    type Element = f32;
    type Vector = Plain;
    type Sums = Plain;
    type Pixel = f32;
    type Weights = Plain;

    #[inline(always)]
    unsafe fn none() -> Plain {
        Plain([0.0; 16])
    }

    #[inline(always)]
    unsafe fn pixel(from: *const f32) -> f32 {
        *from
    }

    #[inline(always)]
    unsafe fn weights(from: *const f32) -> Plain {
        Plain::load(from)
    }

    #[inline(always)]
    unsafe fn feed(mut sums: Plain, pixel: f32, weights: Plain) -> Plain {
        sums.0.iter_mut().zip(weights.0).for_each(|(sum, weight)| *sum += pixel * weight);
        sums
    }

    #[inline(always)]
    unsafe fn sums(sums: Plain) -> Plain {
        sums
    }

    #[inline(always)]
    unsafe fn read(from: *const f32) -> Plain {
        Plain::load(from)
    }

    #[inline(always)]
    unsafe fn write(numbers: Plain, to: *mut f32) {
        numbers.store(to)
    }

    #[inline(always)]
    unsafe fn swish(numbers: Plain) -> Plain {
        numbers.swish()
    }
}

pub(super) struct Half;

impl Lanes for Half {
    type Element = Bf16;
    type Vector = Plain;
    type Sums = Plain;
    type Pixel = [Bf16; 2];
    type Weights = [[Bf16; 2]; 16];

    #[inline(always)]
    unsafe fn none() -> Plain {
        Plain([0.0; 16])
    }

    #[inline(always)]
    unsafe fn pixel(from: *const Bf16) -> [Bf16; 2] {
        from.cast::<[Bf16; 2]>().read_unaligned()
    }

    #[inline(always)]
    unsafe fn weights(from: *const Bf16) -> Self::Weights {
        from.cast::<Self::Weights>().read_unaligned()
    }

    #[inline(always)]
    unsafe fn feed(mut sums: Plain, pixel: [Bf16; 2], weights: Self::Weights) -> Plain {
        for (sum, weight) in sums.0.iter_mut().zip(weights) {
            *sum += pixel[0].value() * weight[0].value() + pixel[1].value() * weight[1].value();
        }
        sums
    }

    #[inline(always)]
    unsafe fn sums(sums: Plain) -> Plain {
        sums
    }

    #[inline(always)]
    unsafe fn read(from: *const Bf16) -> Plain {
        Plain(from.cast::<[Bf16; 16]>().read_unaligned().map(Bf16::value))
    }

    #[inline(always)]
    unsafe fn write(numbers: Plain, to: *mut Bf16) {
        to.cast::<[Bf16; 16]>().write_unaligned(numbers.0.map(Bf16::nearest))
    }

    #[inline(always)]
    unsafe fn swish(numbers: Plain) -> Plain {
        numbers.swish()
    }
}

pub(super) struct Bytes;

impl Lanes for Bytes {
    type Element = u8;
    type Vector = Plain;
    type Sums = [i32; 16];
    type Pixel = [u8; 4];
    type Weights = [[i8; 4]; 16];

    #[inline(always)]
    unsafe fn none() -> [i32; 16] {
        [0; 16]
    }

    #[inline(always)]
    unsafe fn pixel(from: *const u8) -> [u8; 4] {
        from.cast::<[u8; 4]>().read_unaligned()
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        from.cast::<Self::Weights>().read_unaligned()
    }

    #[inline(always)]
    unsafe fn feed(mut sums: [i32; 16], pixel: [u8; 4], weights: Self::Weights) -> [i32; 16] {
        for (sum, weights) in sums.iter_mut().zip(weights) {
            *sum += pixel.iter().zip(weights).map(|(&p, w)| i32::from(p) * i32::from(w)).sum::<i32>();
        }
        sums
    }

    #[inline(always)]
    unsafe fn sums(sums: [i32; 16]) -> Plain {
        Plain(sums.map(|sum| sum as f32))
    }

    #[inline(always)]
    unsafe fn read(from: *const u8) -> Plain {
        Plain(from.cast::<[u8; 16]>().read_unaligned().map(f32::from))
    }

    #[inline(always)]
    unsafe fn write(numbers: Plain, to: *mut u8) {
        // `as` saturates.
        to.cast::<[u8; 16]>().write_unaligned(numbers.0.map(|n| n.round_ties_even() as u8))
    }

    #[inline(always)]
    unsafe fn swish(numbers: Plain) -> Plain {
        numbers.swish()
    }
}

kernels!(single: f32, Single, Cpu::Portable, [1 2 3 4] [] [], transforms!(Plain));
kernels!(half: Bf16, Half, Cpu::Portable, [1 2 3 4] [] [], None);
kernels!(bytes: u8, Bytes, Cpu::Portable, [1 2 3 4] [] [], None);
