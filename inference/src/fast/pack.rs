//! Weights in the order in which the kernels use them, so that they are read from one end to the other.

use super::{
    element::Element,
    kernels::{POINTS, transformed},
    layout::{BLOCK, COLOURS},
};

/// A convolution's weights, (out, in, side, side), of which some input channels are used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) values: &'a [f32],
    /// Input channels of `values`.
    pub(super) inputs: usize,
    /// 1 or 3.
    pub(super) side: usize,
    /// The first input channel that is used.
    pub(super) first: usize,
}

impl<'a> Weights<'a> {
    /// The kernel of a pair of channels; `input` counts from the first that is used.
    fn kernel(&self, output: usize, input: usize) -> &'a [f32] {
        let square = self.side * self.side;
        let from = (output * self.inputs + self.first + input) * square;
        self.values.get(from..from + square).unwrap_or_default()
    }
}

/// Some neighbouring blocks of output channels that one tile computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) first: usize,
    pub(super) blocks: usize,
    /// Where its weights begin.
    pub(super) weights: usize,
}

/// What kernels are given of a convolution's parameters.
#[derive(Debug)]
pub(super) struct Packed<W> {
    pub(super) weights: Vec<W>,
    /// For each padded output channel, what a stored weight is to be multiplied by, and their sum.
    pub(super) steps: Vec<f32>,
    pub(super) sums: Vec<f32>,
}

/// Shares `blocks` blocks out among tiles of the widths that there are (`widest` by blocks: 0 where there is none).
pub(super) fn groups(blocks: usize, pixels: [usize; 3]) -> Vec<(usize, usize)> {
    let mut groups = Vec::new();
    let mut first = 0;
    while first < blocks {
        let left = blocks - first;
        let wide = match left {
            _ if pixels[1] == 0 => 1,
            // An odd number: three at once, rather than one alone.
            3 => 3,
            _ if left % 2 == 1 && left > 3 && pixels[2] > 0 => 3,
            _ => left.min(2),
        };
        let wide = if wide == 3 && pixels[2] == 0 { 2 } else { wide };
        groups.push((first, wide));
        first += wide;
    }
    groups
}

/// `[group][input block][ky][kx][channels of a block / GROUP][output channel][GROUP]`; and where each group begins.
///
/// `inputs` and `outputs` tell for each padded channel which one it is, `depth` how many input channels a block has.
pub(super) fn direct<E: Element>(
    weights: &Weights<'_>,
    inputs: &[Option<usize>],
    outputs: &[Option<usize>],
    depth: usize,
    groups: &[(usize, usize)],
) -> (Packed<E::Weight>, Vec<Group>) {
    let square = weights.side * weights.side;
    // The picture's last channel is no colour.
    let used = if depth == BLOCK { BLOCK } else { COLOURS };
    let rows = rows::<E>(outputs, |output| {
        inputs.iter().flatten().flat_map(|&input| weights.kernel(output, input).iter().copied()).collect()
    });
    // A row has the real input channels, one after another.
    let zero = E::row(&[0.0]).weights;
    let value = |output: usize, input: usize, tap: usize| {
        let channel = inputs.get(input).copied().flatten();
        let row = rows.get(output).and_then(Option::as_ref);
        row.zip(channel).and_then(|(row, channel)| row.weights.get(channel * square + tap)).or(zero.first()).copied()
    };
    let mut packed = Vec::new();
    let mut placed = Vec::new();
    for &(first, blocks) in groups {
        placed.push(Group { first, blocks, weights: packed.len() });
        for block in (0..inputs.len()).step_by(depth) {
            for tap in 0..square {
                for group in (block..block + depth.min(used)).step_by(E::GROUP) {
                    for output in first * BLOCK..(first + blocks) * BLOCK {
                        packed.extend((group..group + E::GROUP).filter_map(|input| value(output, input, tap)));
                    }
                }
            }
        }
    }
    (finished::<E>(packed, rows), placed)
}

/// `[group][point][input channel][output channel]`, for Winograd's products.
pub(super) fn winograd<E: Element>(
    weights: &Weights<'_>,
    inputs: &[Option<usize>],
    outputs: &[Option<usize>],
    groups: &[(usize, usize)],
) -> (Packed<E::Weight>, Vec<Group>) {
    let rows = rows::<E>(outputs, |output| {
        let points = |input: usize| weights.kernel(output, input).try_into().map_or([0.0; POINTS], transformed);
        inputs.iter().flatten().flat_map(|&input| points(input)).collect()
    });
    let zero = E::row(&[0.0]).weights;
    let mut packed = Vec::new();
    let mut placed = Vec::new();
    for &(first, blocks) in groups {
        placed.push(Group { first, blocks, weights: packed.len() });
        for point in 0..POINTS {
            for input in inputs {
                for output in first * BLOCK..(first + blocks) * BLOCK {
                    let row = rows.get(output).and_then(Option::as_ref);
                    let value = row.zip(*input).and_then(|(row, channel)| row.weights.get(channel * POINTS + point));
                    packed.extend(value.or(zero.first()));
                }
            }
        }
    }
    (finished::<E>(packed, rows), placed)
}

type Rows<W> = Vec<Option<super::element::Row<W>>>;

/// The stored weights of each padded output channel.
fn rows<E: Element>(outputs: &[Option<usize>], weights: impl Fn(usize) -> Vec<f32>) -> Rows<E::Weight> {
    outputs.iter().map(|output| output.map(|output| E::row(&weights(output)))).collect()
}

fn finished<E: Element>(weights: Vec<E::Weight>, rows: Rows<E::Weight>) -> Packed<E::Weight> {
    let of = |number: fn(&super::element::Row<E::Weight>) -> f32| {
        rows.iter().map(|row| row.as_ref().map_or(0.0, number)).collect()
    };
    Packed { weights, steps: of(|row| row.step), sums: of(|row| row.sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_shared_out_in_twos_and_a_three() {
        let widths = |blocks| groups(blocks, [28, 14, 9]).iter().map(|g| g.1).collect::<Vec<_>>();
        assert_eq!(widths(1), [1]);
        assert_eq!(widths(3), [3]);
        assert_eq!(widths(4), [2, 2]);
        assert_eq!(widths(5), [3, 2]);
        assert_eq!(groups(3, [6, 0, 0]), [(0, 1), (1, 1), (2, 1)]);
    }

    #[test]
    fn packed_weights_lie_in_the_order_of_use_with_zeros_for_padding() {
        // Two output channels, three input channels of which the last two are used, 1×1.
        let weights = Weights { values: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], inputs: 3, side: 1, first: 1 };
        let slots = super::super::layout::slots(&[2]);
        let (packed, placed) = direct::<f32>(&weights, &slots, &slots, 16, &[(0, 1)]);
        assert_eq!(packed.weights.len(), 16 * 16);
        assert_eq!(packed.weights[..3], [2.0, 5.0, 0.0]);
        assert_eq!(packed.weights[16..19], [3.0, 6.0, 0.0]);
        assert!(packed.weights[32..].iter().all(|&w| w == 0.0));
        assert_eq!(placed, [Group { first: 0, blocks: 1, weights: 0 }]);
        assert_eq!((packed.steps[1], packed.sums[1], packed.steps[2]), (1.0, 11.0, 0.0));
    }
}
