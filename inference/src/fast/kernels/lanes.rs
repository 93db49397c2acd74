//! Sixteen sums, one of each output channel of a block, fed by one pixel's input channels.

use super::vector::Vector;
use crate::fast::element::Element;

/// How sums are fed at a precision.
///
/// # Safety
/// Every function: as of [`Vector`]'s. A pixel's pointer is to [`Element::GROUP`] activations, weights are 16 · GROUP:
/// the group of the first output channel, then that of the second, and so on.
pub(in crate::fast) trait Lanes {
    type Element: Element;
    type Vector: Vector;
    type Sums: Copy;
    type Pixel: Copy;
    type Weights: Copy;

    unsafe fn none() -> Self::Sums;
    /// The same input channels for all sums.
    unsafe fn pixel(from: *const Self::Element) -> Self::Pixel;
    unsafe fn weights(from: *const <Self::Element as Element>::Weight) -> Self::Weights;
    unsafe fn feed(sums: Self::Sums, pixel: Self::Pixel, weights: Self::Weights) -> Self::Sums;
    /// As f32 numbers.
    unsafe fn sums(sums: Self::Sums) -> Self::Vector;
    /// Sixteen stored activations as numbers, before any scale.
    unsafe fn read(from: *const Self::Element) -> Self::Vector;
    /// Stores sixteen numbers, each the nearest that there is.
    unsafe fn write(numbers: Self::Vector, to: *mut Self::Element);
    /// [`Vector::swish`], as exact as it is stored.
    unsafe fn swish(numbers: Self::Vector) -> Self::Vector;
}
