//! Winograd's F(4×4, 3×3): sixteen outputs of a 3×3 convolution by 36 products an input channel instead of 144.
//!
//! 6×6 inputs are transformed (BᵀdB), multiplied point by point with weights that were transformed when they were packed
//! (GgGᵀ), and the sums over all input channels are transformed back (AᵀmA). Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", 2015; interpolation points 0, ±1, ±2, ∞. In f32 it costs about two bits of accuracy.

use super::vector::{SWISH_OUT, Vector};

/// Products an input channel.
pub(in crate::fast) const POINTS: usize = 36;

/// One block of sixteen channels of 6×6 inputs, before the products.
#[derive(Debug, Clone, Copy)]
pub(in crate::fast) struct TransformIn {
    /// The upper left one.
    pub(in crate::fast) input: *const f32,
    /// Numbers from a line to the next one.
    pub(in crate::fast) row: usize,
    /// Where the first of 36 points goes, and how far it is to the next one.
    pub(in crate::fast) points: *mut f32,
    pub(in crate::fast) stride: usize,
}

/// One block of sixteen channels of 4×4 outputs, after the products: bias, SiLU, shortcut.
#[derive(Debug, Clone, Copy)]
pub(in crate::fast) struct TransformOut {
    pub(in crate::fast) points: *const f32,
    pub(in crate::fast) stride: usize,
    /// The upper left one.
    pub(in crate::fast) output: *mut f32,
    pub(in crate::fast) row: usize,
    /// As a tile's: with SiLU's factor in them.
    pub(in crate::fast) scale: *const f32,
    pub(in crate::fast) bias: *const f32,
    /// Added last, or null.
    pub(in crate::fast) shortcut: *const f32,
    pub(in crate::fast) shortcut_row: usize,
}

/// # Safety
/// The CPU has `V`'s features. 6×6 pixels of sixteen numbers can be read, 36 points of sixteen numbers written, by nobody
/// else meanwhile.
#[inline(always)]
pub(super) unsafe fn before<V: Vector>(t: &TransformIn) {
    // SAFETY: offsets stay within what the caller vouches for.
    unsafe {
        let mut half = [[V::all(0.0); 6]; 6];
        for x in 0..6 {
            let mut column = [V::all(0.0); 6];
            for (y, value) in column.iter_mut().enumerate() {
                *value = V::load(t.input.add(y * t.row + x * 16));
            }
            for (row, value) in half.iter_mut().zip(bt(column)) {
                row[x] = value;
            }
        }
        for (y, row) in half.into_iter().enumerate() {
            for (x, value) in bt(row).into_iter().enumerate() {
                value.store(t.points.add((y * 6 + x) * t.stride));
            }
        }
    }
}

/// # Safety
/// The CPU has `V`'s features. 36 points can be read; sixteen scales and biases; 4×4 pixels of the shortcut, unless it is
/// null; 4×4 pixels of output can be written, by nobody else meanwhile.
#[inline(always)]
pub(super) unsafe fn after<V: Vector>(t: &TransformOut) {
    // SAFETY: offsets stay within what the caller vouches for.
    unsafe {
        let mut half = [[V::all(0.0); 6]; 4];
        for x in 0..6 {
            let mut column = [V::all(0.0); 6];
            for (y, value) in column.iter_mut().enumerate() {
                *value = V::load(t.points.add((y * 6 + x) * t.stride));
            }
            for (row, value) in half.iter_mut().zip(at(column)) {
                row[x] = value;
            }
        }
        let (scale, bias, gain) = (V::load(t.scale), V::load(t.bias), V::all(SWISH_OUT));
        for (y, row) in half.into_iter().enumerate() {
            for (x, sum) in at(row).into_iter().enumerate() {
                let mut value = sum.mul_add(scale, bias).swish().mul(gain);
                if !t.shortcut.is_null() {
                    value = value.add(V::load(t.shortcut.add(y * t.shortcut_row + x * 16)));
                }
                value.store(t.output.add(y * t.row + x * 16));
            }
        }
    }
}

/// Bᵀ · d
#[inline(always)]
unsafe fn bt<V: Vector>(d: [V; 6]) -> [V; 6] {
    // SAFETY: the caller's CPU has `V`'s features.
    unsafe {
        let (two, four, five) = (V::all(2.0), V::all(4.0), V::all(5.0));
        let even = d[2].mul_sub_from(four, d[4]);
        let odd = d[1].mul_sub_from(four, d[3]);
        let (even2, odd2) = (d[4].sub(d[2]), d[3].sub(d[1]));
        [
            d[0].mul_add(four, d[2].mul_sub_from(five, d[4])),
            even.add(odd),
            even.sub(odd),
            odd2.mul_add(two, even2),
            odd2.mul_sub_from(two, even2),
            d[1].mul_add(four, d[3].mul_sub_from(five, d[5])),
        ]
    }
}

/// Aᵀ · m
#[inline(always)]
unsafe fn at<V: Vector>(m: [V; 6]) -> [V; 4] {
    // SAFETY: the caller's CPU has `V`'s features.
    unsafe {
        let (even, odd) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (even2, odd2) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(even).add(even2),
            odd2.mul_add(V::all(2.0), odd),
            even2.mul_add(V::all(4.0), even),
            odd2.mul_add(V::all(8.0), odd).add(m[5]),
        ]
    }
}

/// G · g · Gᵀ of one 3×3 kernel, line by line.
pub(in crate::fast) fn weights(kernel: &[f32; 9]) -> [f32; POINTS] {
    const G: [[f64; 3]; 6] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    let rows = G.map(|g| [0, 1, 2].map(|x| (0..3).map(|y| g[y] * f64::from(kernel[y * 3 + x])).sum::<f64>()));
    let mut points = [0.0; POINTS];
    for (row, out) in rows.iter().zip(points.as_chunks_mut::<6>().0) {
        for (g, out) in G.iter().zip(out) {
            *out = row.iter().zip(g).map(|(a, b)| a * b).sum::<f64>() as f32;
        }
    }
    points
}
