//! Memory for numbers that kernels load sixteen at a time.
//!
//! Says nothing of what the numbers mean.
#![allow(unsafe_code, reason = "memory aligned more strictly than its numbers")]

use std::marker::PhantomData;

use super::element::Bf16;

/// A cache line: memory is aligned to it, so that no vector lies across two.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; Line::BYTES]);

impl Line {
    const BYTES: usize = 64;
}

/// Plain numbers, of which every pattern of bits is one.
///
/// # Safety
/// All bit patterns are valid, there is no padding, the size divides that of a cache line.
pub(crate) unsafe trait Number: Copy + Send + Sync + std::fmt::Debug + 'static {}

// SAFETY: any four bytes are an f32.
unsafe impl Number for f32 {}
// SAFETY: any byte is a u8.
unsafe impl Number for u8 {}
// SAFETY: any byte is an i8.
unsafe impl Number for i8 {}
// SAFETY: any two bytes are a bf16.
unsafe impl Number for Bf16 {}

/// Numbers that begin at a cache line.
#[derive(Debug, Clone)]
pub(crate) struct Aligned<N> {
    lines: Vec<Line>,
    len: usize,
    number: PhantomData<N>,
}

impl<N: Number> Aligned<N> {
    pub(crate) fn filled(len: usize, value: N) -> Self {
        let lines = vec![Line([0; Line::BYTES]); (len * size_of::<N>()).div_ceil(Line::BYTES)];
        let mut memory = Self { lines, len, number: PhantomData };
        memory.as_mut().fill(value);
        memory
    }

    pub(crate) fn from_slice(values: &[N]) -> Self {
        let lines = vec![Line([0; Line::BYTES]); size_of_val(values).div_ceil(Line::BYTES)];
        let mut memory = Self { lines, len: values.len(), number: PhantomData };
        memory.as_mut().copy_from_slice(values);
        memory
    }

    pub(crate) fn as_ptr(&self) -> *const N {
        self.lines.as_ptr().cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut N {
        self.lines.as_mut_ptr().cast()
    }
}

impl<N: Number> AsRef<[N]> for Aligned<N> {
    fn as_ref(&self) -> &[N] {
        // SAFETY: the lines hold `len` numbers' bytes, aligned more strictly than a number, and any bytes are numbers.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }
}

impl<N: Number> AsMut<[N]> for Aligned<N> {
    fn as_mut(&mut self) -> &mut [N] {
        // SAFETY: as above; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }
}
