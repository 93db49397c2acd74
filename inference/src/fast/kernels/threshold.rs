//! Where any class is surer than a threshold.

use super::vector::Vector;

/// One line of the class branch.
#[derive(Debug)]
pub(in crate::fast) struct Threshold<'a> {
    /// Logits of the line's first pixel.
    pub(in crate::fast) logits: *const f32,
    /// Numbers from a block to the next one, and how many there are.
    pub(in crate::fast) plane: usize,
    pub(in crate::fast) blocks: usize,
    /// A logit. Channels of padding must not be above it.
    pub(in crate::fast) least: f32,
    /// What is found, a flag a pixel.
    pub(in crate::fast) found: &'a std::cell::Cell<[bool]>,
}

/// # Safety
/// The CPU has `V`'s features. A line of as many pixels as there are flags can be read in each block.
#[inline(always)]
pub(super) unsafe fn threshold<V: Vector>(t: &Threshold<'_>) {
    for (x, found) in t.found.as_slice_of_cells().iter().enumerate() {
        let mut any = false;
        for block in 0..t.blocks {
            // SAFETY: a pixel of a block.
            any |= unsafe { V::load(t.logits.add(block * t.plane + x * 16)).any_above(t.least) };
        }
        found.set(any);
    }
}
