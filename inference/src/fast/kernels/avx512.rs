//! x86-64 with AVX-512: sixteen numbers in one of 32 registers. VNNI multiplies bytes, BF16 halves of f32.

// SAFETY, of every function here: traits say what their callers keep; intrinsics need no more than the CPU's features and
// pointers to as many numbers as they load or store. Bodies are unsafe as a whole, since nearly every call in them is.
#![allow(unsafe_op_in_unsafe_fn)]

use std::arch::x86_64::*;

use super::{
    Cpu, kernels,
    lanes::Lanes,
    transforms,
    vector::{EXP2, EXP2_ROUGHLY, FAR, Vector},
};
use crate::fast::element::Bf16;

#[derive(Debug, Clone, Copy)]
pub(super) struct Zmm(__m512);

impl Vector for Zmm {
    #[inline(always)]
    unsafe fn all(value: f32) -> Self {
        Self(_mm512_set1_ps(value))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(_mm512_loadu_ps(from))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm512_storeu_ps(to, self.0);
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm512_add_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm512_sub_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm512_mul_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(_mm512_max_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(_mm512_fmadd_ps(self.0, factor.0, summand.0))
    }

    #[inline(always)]
    unsafe fn mul_sub_from(self, factor: Self, summand: Self) -> Self {
        Self(_mm512_fnmadd_ps(self.0, factor.0, summand.0))
    }

    #[inline(always)]
    unsafe fn any_above(self, value: f32) -> bool {
        _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_set1_ps(value)) != 0
    }

    #[inline(always)]
    unsafe fn swish(self) -> Self {
        let t = _mm512_min_ps(self.0, _mm512_set1_ps(FAR));
        let divisor = one_and_power(t, &EXP2);
        // Fourteen bits, and one step of Newton's for the rest: cheaper than a division.
        let inverse = _mm512_rcp14_ps(divisor);
        let inverse = _mm512_mul_ps(inverse, _mm512_fnmadd_ps(divisor, inverse, _mm512_set1_ps(2.0)));
        Self(_mm512_mul_ps(self.0, inverse))
    }

    #[inline(always)]
    unsafe fn swish_roughly(self) -> Self {
        // Beyond f32 it is infinite, and the inverse zero.
        Self(_mm512_mul_ps(self.0, _mm512_rcp14_ps(one_and_power(self.0, &EXP2_ROUGHLY))))
    }
}

/// 1 + 2^t, by a polynomial for what is behind the point of t.
#[inline(always)]
unsafe fn one_and_power(t: __m512, factors: &[f32]) -> __m512 {
    let part = _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(t);
    let mut power = _mm512_set1_ps(factors[0]);
    for factor in &factors[1..] {
        power = _mm512_fmadd_ps(power, part, _mm512_set1_ps(*factor));
    }
    // It scales by the floor.
    _mm512_add_ps(_mm512_scalef_ps(power, t), _mm512_set1_ps(1.0))
}

/// Weights that are fetched before they are needed: eight channels of a pair of blocks.
const AHEAD: usize = 256;

pub(super) struct Single;

impl Lanes for Single {
    type Element = f32;
    type Vector = Zmm;
    type Sums = __m512;
    type Pixel = __m512;
    type Weights = __m512;

    #[inline(always)]
    unsafe fn none() -> __m512 {
        _mm512_setzero_ps()
    }

    #[inline(always)]
    unsafe fn pixel(from: *const f32) -> __m512 {
        _mm512_set1_ps(*from)
    }

    #[inline(always)]
    unsafe fn weights(from: *const f32) -> __m512 {
        // They are used once a tile: where they don't stay in the first cache, none is waited for.
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD).cast());
        _mm512_loadu_ps(from)
    }

    #[inline(always)]
    unsafe fn feed(sums: __m512, pixel: __m512, weights: __m512) -> __m512 {
        _mm512_fmadd_ps(pixel, weights, sums)
    }

    #[inline(always)]
    unsafe fn sums(sums: __m512) -> Zmm {
        Zmm(sums)
    }

    #[inline(always)]
    unsafe fn read(from: *const f32) -> Zmm {
        Zmm::load(from)
    }

    #[inline(always)]
    unsafe fn write(numbers: Zmm, to: *mut f32) {
        numbers.store(to);
    }

    #[inline(always)]
    unsafe fn swish(numbers: Zmm) -> Zmm {
        numbers.swish()
    }
}

pub(super) struct Half;

impl Lanes for Half {
    type Element = Bf16;
    type Vector = Zmm;
    type Sums = __m512;
    type Pixel = __m512bh;
    type Weights = __m512bh;

    #[inline(always)]
    unsafe fn none() -> __m512 {
        _mm512_setzero_ps()
    }

    #[inline(always)]
    unsafe fn pixel(from: *const Bf16) -> __m512bh {
        std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(from.cast::<i32>().read_unaligned()))
    }

    #[inline(always)]
    unsafe fn weights(from: *const Bf16) -> __m512bh {
        std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast()))
    }

    #[inline(always)]
    unsafe fn feed(sums: __m512, pixel: __m512bh, weights: __m512bh) -> __m512 {
        _mm512_dpbf16_ps(sums, pixel, weights)
    }

    #[inline(always)]
    unsafe fn sums(sums: __m512) -> Zmm {
        Zmm(sums)
    }

    #[inline(always)]
    unsafe fn read(from: *const Bf16) -> Zmm {
        let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        Zmm(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves)))
    }

    #[inline(always)]
    unsafe fn write(numbers: Zmm, to: *mut Bf16) {
        let halves = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(numbers.0));
        _mm256_storeu_si256(to.cast(), halves);
    }

    #[inline(always)]
    unsafe fn swish(numbers: Zmm) -> Zmm {
        numbers.swish_roughly()
    }
}

pub(super) struct Bytes;

impl Lanes for Bytes {
    type Element = u8;
    type Vector = Zmm;
    type Sums = __m512i;
    type Pixel = __m512i;
    type Weights = __m512i;

    #[inline(always)]
    unsafe fn none() -> __m512i {
        _mm512_setzero_si512()
    }

    #[inline(always)]
    unsafe fn pixel(from: *const u8) -> __m512i {
        _mm512_set1_epi32(from.cast::<i32>().read_unaligned())
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m512i {
        _mm512_loadu_si512(from.cast())
    }

    #[inline(always)]
    unsafe fn feed(sums: __m512i, pixel: __m512i, weights: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sums, pixel, weights)
    }

    #[inline(always)]
    unsafe fn sums(sums: __m512i) -> Zmm {
        Zmm(_mm512_cvtepi32_ps(sums))
    }

    #[inline(always)]
    unsafe fn read(from: *const u8) -> Zmm {
        Zmm(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))))
    }

    #[inline(always)]
    unsafe fn write(numbers: Zmm, to: *mut u8) {
        let whole = _mm512_max_epi32(_mm512_cvtps_epi32(numbers.0), _mm512_setzero_si512());
        _mm_storeu_si128(to.cast(), _mm512_cvtusepi32_epi8(whole));
    }

    #[inline(always)]
    unsafe fn swish(numbers: Zmm) -> Zmm {
        numbers.swish_roughly()
    }
}

kernels!(
    single: f32, Single, Cpu::Avx512, features "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma",
    [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28]
    [1 2 3 4 5 6 7 8 9 10 11 12 13 14]
    [1 2 3 4 5 6 7 8 9],
    transforms!(Zmm, features "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")
);
kernels!(
    half: Bf16, Half, Cpu::Avx512Vnni, features "avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,avx2,fma",
    [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28]
    [1 2 3 4 5 6 7 8 9 10 11 12 13 14]
    [1 2 3 4 5 6 7 8 9],
    None
);
kernels!(
    bytes: u8, Bytes, Cpu::Avx512Vnni, features "avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2,fma",
    [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28]
    [1 2 3 4 5 6 7 8 9 10 11 12 13 14]
    [1 2 3 4 5 6 7 8 9],
    None
);
