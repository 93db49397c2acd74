//! Where any class is surer than a threshold.

use super::vector::Vector;

/// One line of the class branch.
#[derive(Debug, Clone, Copy)]
pub(in crate::fast) struct Threshold {
    /// Logits of the line's first pixel.
    pub(in crate::fast) logits: *const f32,
    /// Numbers from a block to the next one, and how many there are.
    pub(in crate::fast) plane: usize,
    pub(in crate::fast) blocks: usize,
    /// A logit. Channels of padding must not be above it.
    pub(in crate::fast) least: f32,
    /// What is found: a flag a pixel, so many.
    pub(in crate::fast) found: *mut bool,
    pub(in crate::fast) width: usize,
}

/// # Safety
/// The CPU has `V`'s features. A line of `width` pixels can be read in each block; as many flags can be written, by nobody
/// else meanwhile.
#[inline(always)]
pub(super) unsafe fn threshold<V: Vector>(t: &Threshold) {
    for x in 0..t.width {
        let mut any = false;
        for block in 0..t.blocks {
            // SAFETY: a pixel of a block.
            any |= unsafe { V::load(t.logits.add(block * t.plane + x * 16)).any_above(t.least) };
        }
        // SAFETY: a pixel of the line.
        unsafe { t.found.add(x).write(any) };
    }
}
