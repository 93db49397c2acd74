//! The one kernel that nearly all time goes into: some neighbouring pixels of a line, by some blocks of output channels,
//! of a convolution. All sums stay in registers until they are complete.
//!
//! For each tap (a block of input channels under one weight of the kernel's square), for each group of its channels: the
//! weights of the output blocks are loaded once, each pixel's channels once, and every pair is multiplied and added.

use std::mem::MaybeUninit;

use super::{lanes::Lanes, vector::Vector};
use crate::fast::element::Element;

/// A tile's work.
#[derive(Debug, Clone, Copy)]
pub(in crate::fast) struct Tile<'a, E: Element> {
    /// The first pixel's input at offset 0.
    pub(in crate::fast) input: *const E,
    /// Where under a pixel its inputs lie: an offset each block of input channels and weight of the square.
    pub(in crate::fast) taps: &'a [usize],
    /// So many taps at a time lie side by side: 3 of a square's line, or 1.
    pub(in crate::fast) run: usize,
    /// As many as the tile is made for.
    pub(in crate::fast) pixels: usize,
    /// In the order in which they are used: [tap][group][output block][output channel][channel of the group].
    pub(in crate::fast) weights: *const E::Weight,
    pub(in crate::fast) output: Output<E>,
    /// Numbers from an output block to the next one.
    pub(in crate::fast) plane: usize,
    pub(in crate::fast) finish: Finish<E>,
}

/// Where the first pixel of the first block goes, and what is made of the sums before.
#[derive(Debug, Clone, Copy)]
pub(in crate::fast) enum Output<E> {
    /// Nothing: more will be calculated with them.
    Sums(*mut f32),
    /// Scale and bias.
    Linear(*mut f32),
    /// Scale, bias, addend, SiLU, shortcut.
    Activated(*mut E),
}

/// What is made of complete sums. Pointers are to the first output channel of the tile's first block.
#[derive(Debug, Clone, Copy)]
pub(in crate::fast) struct Finish<E> {
    /// A factor and a summand for each channel.
    pub(in crate::fast) scale: *const f32,
    pub(in crate::fast) bias: *const f32,
    /// Added before SiLU, from a map of half the size: the pixel that the tile's first lies in, or null.
    pub(in crate::fast) addend: *const f32,
    pub(in crate::fast) addend_plane: usize,
    /// Whether the first pixel is the second one over its addend.
    pub(in crate::fast) odd: bool,
    /// Added after SiLU, or null.
    pub(in crate::fast) shortcut: *const E,
    pub(in crate::fast) shortcut_plane: usize,
    pub(in crate::fast) shortcut_scale: f32,
    /// Last, to what is stored.
    pub(in crate::fast) gain: f32,
    pub(in crate::fast) offset: f32,
}

/// # Safety
/// The CPU has `L`'s features. For each of `PIXELS` pixels, `STEP` numbers apart, and each tap, `GROUPS` groups of input
/// can be read; as many weights as are used; scale and bias of `BLOCKS` blocks; addend and shortcut, where they are not
/// null, for each pixel and block. Output of `PIXELS` pixels in each of `BLOCKS` blocks can be written, and nobody else
/// reads or writes it meanwhile.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "iterators over the sums keep them out of registers")]
pub(super) unsafe fn tile<
    L: Lanes,
    const PIXELS: usize,
    const BLOCKS: usize,
    const STEP: usize,
    const GROUPS: usize,
>(
    t: &Tile<'_, L::Element>,
) {
    let group = <L::Element as Element>::GROUP;
    // SAFETY: offsets stay within what the caller vouches for.
    unsafe {
        let mut sums = [[L::none(); BLOCKS]; PIXELS];
        let mut weights = t.weights;
        for &tap in t.taps {
            let input = t.input.add(tap);
            for channels in 0..GROUPS {
                let mut columns = [L::weights(weights); BLOCKS];
                for block in 1..BLOCKS {
                    columns[block] = L::weights(weights.add(block * 16 * group));
                }
                weights = weights.add(BLOCKS * 16 * group);
                for pixel in 0..PIXELS {
                    let values = L::pixel(input.add(pixel * STEP + channels * group));
                    for block in 0..BLOCKS {
                        sums[pixel][block] = L::feed(sums[pixel][block], values, columns[block]);
                    }
                }
            }
        }
        // They leave their registers once, here: a loop that finishes them one by one would have them in memory from
        // the start, three times as slow.
        let mut spilled = MaybeUninit::<[[[f32; 16]; BLOCKS]; PIXELS]>::uninit();
        let spill = spilled.as_mut_ptr().cast::<f32>();
        for pixel in 0..PIXELS {
            for block in 0..BLOCKS {
                L::sums(sums[pixel][block]).store(spill.add((pixel * BLOCKS + block) * 16));
            }
        }
        for block in 0..BLOCKS {
            let sums = |pixel: usize| L::Vector::load(spill.add((pixel * BLOCKS + block) * 16));
            finish::<L>(t, block, PIXELS, sums);
        }
    }
}

/// # Safety
/// As of [`tile`]; `sums` gives those of each of `pixels` pixels in this block.
#[inline(always)]
pub(super) unsafe fn finish<L: Lanes>(
    t: &Tile<'_, L::Element>,
    block: usize,
    pixels: usize,
    sums: impl Fn(usize) -> L::Vector,
) {
    let f = &t.finish;
    // SAFETY: offsets stay within what the caller vouches for.
    unsafe {
        let output = match t.output {
            Output::Sums(to) => {
                let to = to.add(block * t.plane);
                for pixel in 0..pixels {
                    sums(pixel).store(to.add(pixel * 16));
                }
                return;
            }
            Output::Linear(to) => {
                let (scale, bias) = (L::Vector::load(f.scale.add(block * 16)), L::Vector::load(f.bias.add(block * 16)));
                let to = to.add(block * t.plane);
                for pixel in 0..pixels {
                    sums(pixel).mul_add(scale, bias).store(to.add(pixel * 16));
                }
                return;
            }
            Output::Activated(to) => to.add(block * t.plane),
        };
        let (scale, bias) = (L::Vector::load(f.scale.add(block * 16)), L::Vector::load(f.bias.add(block * 16)));
        let (gain, offset) = (L::Vector::all(f.gain), L::Vector::all(f.offset));
        let scaled = |pixel: usize| sums(pixel).mul_add(scale, bias);
        if !f.addend.is_null() {
            let addend = f.addend.add(block * f.addend_plane);
            for pixel in 0..pixels {
                let addend = L::Vector::load(addend.add((pixel + usize::from(f.odd)) / 2 * 16));
                let value = L::swish(scaled(pixel).add(addend)).mul_add(gain, offset);
                L::write(value, output.add(pixel * 16));
            }
        } else if !f.shortcut.is_null() {
            let shortcut = f.shortcut.add(block * f.shortcut_plane);
            let shortcut_scale = L::Vector::all(f.shortcut_scale);
            for pixel in 0..pixels {
                let value = L::swish(scaled(pixel)).mul_add(gain, offset);
                let value = L::read(shortcut.add(pixel * 16)).mul_add(shortcut_scale, value);
                L::write(value, output.add(pixel * 16));
            }
        } else {
            for pixel in 0..pixels {
                L::write(L::swish(scaled(pixel)).mul_add(gain, offset), output.add(pixel * 16));
            }
        }
    }
}
