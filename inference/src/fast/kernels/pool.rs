//! The largest of each 5×5 neighbourhood, as far as it lies in the map.

use super::{lanes::Lanes, vector::Vector};
use crate::fast::element::Element;

/// One line of one block.
#[derive(Debug, Clone, Copy)]
pub(in crate::fast) struct Pool<E: Element> {
    /// The first pixel of the block's first line.
    pub(in crate::fast) input: *const E,
    /// The first pixel of the line that is computed.
    pub(in crate::fast) output: *mut E,
    pub(in crate::fast) y: usize,
    pub(in crate::fast) width: usize,
    pub(in crate::fast) height: usize,
    /// Numbers from a line to the next one.
    pub(in crate::fast) row: usize,
}

/// # Safety
/// The CPU has `L`'s features. A block of `width` · `height` pixels can be read, a line of it written, by nobody else
/// meanwhile.
#[inline(always)]
pub(super) unsafe fn pool<L: Lanes>(p: &Pool<L::Element>) {
    let lines = p.y.saturating_sub(2)..(p.y + 3).min(p.height);
    for x in 0..p.width {
        let pixels = x.saturating_sub(2)..(x + 3).min(p.width);
        // SAFETY: only pixels of the block.
        unsafe {
            let mut largest = L::read(p.input.add(p.y * p.row + x * 16));
            for y in lines.clone() {
                for x in pixels.clone() {
                    largest = largest.max(L::read(p.input.add(y * p.row + x * 16)));
                }
            }
            L::write(largest, p.output.add(x * 16));
        }
    }
}
