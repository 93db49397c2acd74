//! The two plain loops around a convolution's matrix product: gathering patches before it, and bias, activation and
//! shortcut after it.
//!
//! They stand here instead of candle's operators because those gather patches a number at a time, and hand elementwise
//! work to one pool of spinning threads for the whole process, which frames on different threads would queue up for.
//! These stay on the caller's thread.

use std::ops::Range;

use candle_core::{CpuStorage, Error, Result, Storage, Tensor};

/// A picture's planes, and at which of its pixels patches are taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planes<'a> {
    /// Channel by channel, line by line.
    pub(super) values: &'a [f32],
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Of the kernel: 1 or 3.
    pub(super) side: usize,
    /// 1, or 2 for every second pixel of every second line.
    pub(super) step: usize,
}

impl Planes<'_> {
    /// The patches of some lines of output as columns of a matrix, zero beyond the picture's edges:
    /// (side · side · channels, lines · output width). Row `tap · channels + channel`, taps in reading order.
    pub(super) fn patches(&self, lines: Range<usize>) -> Vec<f32> {
        let width = self.width / self.step;
        let taps = self.side * self.side;
        let mut columns = vec![0.0; taps * self.channels * lines.len() * width];
        let rows = (0..taps).flat_map(|tap| (0..self.channels).map(move |channel| (tap, channel)));
        for ((tap, channel), row) in rows.zip(columns.chunks_exact_mut(lines.len() * width)) {
            let (ky, kx) = (tap / self.side, tap % self.side);
            for (y, out) in lines.clone().zip(row.chunks_exact_mut(width)) {
                // A kernel of side 3 begins a line above and a pixel to the left.
                if let Some(line) = (y * self.step + ky).checked_sub(self.side / 2).and_then(|y| self.line(channel, y))
                {
                    if kx < self.side / 2 {
                        gathered(line.get(self.step - 1..), out.get_mut(1..), self.step);
                    } else {
                        gathered(line.get(kx - self.side / 2..), Some(out), self.step);
                    }
                }
            }
        }
        columns
    }

    fn line(&self, channel: usize, y: usize) -> Option<&[f32]> {
        let from = (channel * self.height + y) * self.width;
        if y < self.height { self.values.get(from..from + self.width) } else { None }
    }
}

/// `out[x] = line[x · step]`, as far as there is any.
fn gathered(line: Option<&[f32]>, out: Option<&mut [f32]>, step: usize) {
    let (Some(line), Some(out)) = (line, out) else { return };
    let count = out.len().min(line.len().div_ceil(step));
    match (line.get(..count), out.get_mut(..count)) {
        (Some(line), Some(out)) if step == 1 => out.copy_from_slice(line),
        (_, Some(out)) => out.iter_mut().zip(line.iter().step_by(step)).for_each(|(out, value)| *out = *value),
        _ => {}
    }
}

/// x · sigmoid(x)
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// Shows `look` the numbers of an f32 tensor on the CPU, in order.
pub(super) fn with_values<T>(tensor: &Tensor, look: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let values = match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) => values.get(from..to),
        _ => None,
    };
    look(values.ok_or_else(|| Error::msg("a contiguous f32 tensor on the CPU is wanted"))?)
}
