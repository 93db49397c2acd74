//! x86-64 with AVX2 and FMA: eight numbers in one of 16 registers, so sixteen in two.

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
pub(super) struct Ymm2([__m256; 2]);

/// What is done to both halves.
macro_rules! both {
    ($intrinsic:ident($($argument:expr),*)) => {
        Ymm2([$intrinsic($($argument.0[0]),*), $intrinsic($($argument.0[1]),*)])
    };
}

impl Vector for Ymm2 {
    #[inline(always)]
    unsafe fn all(value: f32) -> Self {
        Self([_mm256_set1_ps(value); 2])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self([_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))])
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm256_storeu_ps(to, self.0[0]);
        _mm256_storeu_ps(to.add(8), self.0[1]);
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        both!(_mm256_add_ps(self, other))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        both!(_mm256_sub_ps(self, other))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        both!(_mm256_mul_ps(self, other))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        both!(_mm256_max_ps(self, other))
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        both!(_mm256_fmadd_ps(self, factor, summand))
    }

    #[inline(always)]
    unsafe fn mul_sub_from(self, factor: Self, summand: Self) -> Self {
        both!(_mm256_fnmadd_ps(self, factor, summand))
    }

    #[inline(always)]
    unsafe fn any_above(self, value: f32) -> bool {
        let value = _mm256_set1_ps(value);
        let [low, high] = self.0.map(|half| _mm256_cmp_ps::<_CMP_GT_OQ>(half, value));
        _mm256_movemask_ps(_mm256_or_ps(low, high)) != 0
    }

    #[inline(always)]
    unsafe fn swish(self) -> Self {
        Self([swish(self.0[0]), swish(self.0[1])])
    }

    #[inline(always)]
    unsafe fn swish_roughly(self) -> Self {
        Self([swish_roughly(self.0[0]), swish_roughly(self.0[1])])
    }
}

#[inline(always)]
unsafe fn swish(numbers: __m256) -> __m256 {
    let t = within(numbers);
    _mm256_div_ps(numbers, one_and_power(t, &EXP2))
}

#[inline(always)]
unsafe fn swish_roughly(numbers: __m256) -> __m256 {
    let t = within(numbers);
    _mm256_mul_ps(numbers, _mm256_rcp_ps(one_and_power(t, &EXP2_ROUGHLY)))
}

/// Exponents that f32 has.
#[inline(always)]
unsafe fn within(numbers: __m256) -> __m256 {
    _mm256_max_ps(_mm256_min_ps(numbers, _mm256_set1_ps(FAR)), _mm256_set1_ps(-FAR))
}

/// 1 + 2^t, by a polynomial for what is behind the point of t.
#[inline(always)]
unsafe fn one_and_power(t: __m256, factors: &[f32]) -> __m256 {
    let whole = _mm256_floor_ps(t);
    let part = _mm256_sub_ps(t, whole);
    let mut power = _mm256_set1_ps(factors[0]);
    for factor in &factors[1..] {
        power = _mm256_fmadd_ps(power, part, _mm256_set1_ps(*factor));
    }
    _mm256_fmadd_ps(power, scale(whole), _mm256_set1_ps(1.0))
}

/// Two to the power of whole numbers.
#[inline(always)]
unsafe fn scale(whole: __m256) -> __m256 {
    let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
}

pub(super) struct Single;

impl Lanes for Single {
    type Element = f32;
    type Vector = Ymm2;
    type Sums = Ymm2;
    type Pixel = Ymm2;
    type Weights = Ymm2;

    #[inline(always)]
    unsafe fn none() -> Ymm2 {
        Ymm2([_mm256_setzero_ps(); 2])
    }

    #[inline(always)]
    unsafe fn pixel(from: *const f32) -> Ymm2 {
        Ymm2([_mm256_broadcast_ss(&*from); 2])
    }

    #[inline(always)]
    unsafe fn weights(from: *const f32) -> Ymm2 {
        Ymm2::load(from)
    }

    #[inline(always)]
    unsafe fn feed(sums: Ymm2, pixel: Ymm2, weights: Ymm2) -> Ymm2 {
        both!(_mm256_fmadd_ps(pixel, weights, sums))
    }

    #[inline(always)]
    unsafe fn sums(sums: Ymm2) -> Ymm2 {
        sums
    }

    #[inline(always)]
    unsafe fn read(from: *const f32) -> Ymm2 {
        Ymm2::load(from)
    }

    #[inline(always)]
    unsafe fn write(numbers: Ymm2, to: *mut f32) {
        numbers.store(to);
    }

    #[inline(always)]
    unsafe fn swish(numbers: Ymm2) -> Ymm2 {
        numbers.swish()
    }
}

/// Without an instruction for it: widened to f32 where it is used.
pub(super) struct Half;

impl Half {
    /// The even and the odd halves of 32-bit numbers, as f32.
    #[inline(always)]
    unsafe fn widened(pairs: __m256i) -> [__m256; 2] {
        let odd = _mm256_and_si256(pairs, _mm256_set1_epi32(-0x1_0000));
        [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(odd)]
    }

    /// The nearest bf16 of eight numbers, in the upper halves.
    #[inline(always)]
    unsafe fn rounded(numbers: __m256) -> __m256i {
        let bits = _mm256_castps_si256(numbers);
        let last = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff)));
        // Not a number stays so: rounded up, it might become one.
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(numbers, numbers));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan))
    }
}

impl Lanes for Half {
    type Element = Bf16;
    type Vector = Ymm2;
    type Sums = Ymm2;
    type Pixel = [__m256; 2];
    type Weights = [__m256i; 2];

    #[inline(always)]
    unsafe fn none() -> Ymm2 {
        Ymm2([_mm256_setzero_ps(); 2])
    }

    #[inline(always)]
    unsafe fn pixel(from: *const Bf16) -> [__m256; 2] {
        Self::widened(_mm256_set1_epi32(from.cast::<i32>().read_unaligned()))
    }

    #[inline(always)]
    unsafe fn weights(from: *const Bf16) -> [__m256i; 2] {
        [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(16).cast())]
    }

    #[inline(always)]
    unsafe fn feed(mut sums: Ymm2, pixel: [__m256; 2], weights: [__m256i; 2]) -> Ymm2 {
        for (sum, weights) in sums.0.iter_mut().zip(weights) {
            let [even, odd] = Self::widened(weights);
            *sum = _mm256_fmadd_ps(pixel[1], odd, _mm256_fmadd_ps(pixel[0], even, *sum));
        }
        sums
    }

    #[inline(always)]
    unsafe fn sums(sums: Ymm2) -> Ymm2 {
        sums
    }

    #[inline(always)]
    unsafe fn read(from: *const Bf16) -> Ymm2 {
        let half = |from: *const Bf16| {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        };
        Ymm2([half(from), half(from.add(8))])
    }

    #[inline(always)]
    unsafe fn write(numbers: Ymm2, to: *mut Bf16) {
        let packed = _mm256_packus_epi32(Self::rounded(numbers.0[0]), Self::rounded(numbers.0[1]));
        // Packing works within each half of a register.
        _mm256_storeu_si256(to.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
    }

    #[inline(always)]
    unsafe fn swish(numbers: Ymm2) -> Ymm2 {
        numbers.swish_roughly()
    }
}

/// Without VNNI: widened to 16 bits, where products of bytes and their sums in pairs are exact.
pub(super) struct Bytes;

impl Lanes for Bytes {
    type Element = u8;
    type Vector = Ymm2;
    /// Each of four output channels twice: two of a group's four input channels each.
    type Sums = [__m256i; 4];
    type Pixel = __m256i;
    type Weights = [__m256i; 4];

    #[inline(always)]
    unsafe fn none() -> [__m256i; 4] {
        [_mm256_setzero_si256(); 4]
    }

    #[inline(always)]
    unsafe fn pixel(from: *const u8) -> __m256i {
        let four = _mm_cvtsi32_si128(from.cast::<i32>().read_unaligned());
        _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(four))
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> [__m256i; 4] {
        let four = |number: usize| _mm256_cvtepi8_epi16(_mm_loadu_si128(from.add(16 * number).cast()));
        [four(0), four(1), four(2), four(3)]
    }

    #[inline(always)]
    unsafe fn feed(mut sums: [__m256i; 4], pixel: __m256i, weights: [__m256i; 4]) -> [__m256i; 4] {
        for (sum, weights) in sums.iter_mut().zip(weights) {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pixel, weights));
        }
        sums
    }

    #[inline(always)]
    unsafe fn sums([a, b, c, d]: [__m256i; 4]) -> Ymm2 {
        let eight = |a: __m256i, b: __m256i| {
            _mm256_cvtepi32_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(a, b)))
        };
        Ymm2([eight(a, b), eight(c, d)])
    }

    #[inline(always)]
    unsafe fn read(from: *const u8) -> Ymm2 {
        let half = |from: *const u8| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())));
        Ymm2([half(from), half(from.add(8))])
    }

    #[inline(always)]
    unsafe fn write(numbers: Ymm2, to: *mut u8) {
        let [low, high] = numbers.0.map(|half| _mm256_cvtps_epi32(half));
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
        let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        _mm_storeu_si128(to.cast(), bytes);
    }

    #[inline(always)]
    unsafe fn swish(numbers: Ymm2) -> Ymm2 {
        numbers.swish_roughly()
    }
}

kernels!(
    single: f32, Single, Cpu::Avx2, features "avx2,fma", [1 2 3 4 5 6] [] [],
    transforms!(Ymm2, features "avx2,fma")
);
kernels!(half: Bf16, Half, Cpu::Avx2, features "avx2,fma", [1 2 3 4 5 6] [] [], None);
kernels!(bytes: u8, Bytes, Cpu::Avx2, features "avx2,fma", [1 2 3] [] [], None);
