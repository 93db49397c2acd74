//! A convolution made ready: packed weights, and how it is split into tiles and tasks.

use super::{
    element::Element,
    kernels::{
        Kernels, Step, TileFn,
        vector::{SWISH_IN, SWISH_OUT},
    },
    layout::{BLOCK, Layout, slots},
    memory::Aligned,
    network::{Cache, Key, Method},
    pack::{self, Group},
    plan::{Blocks, Gate, Plan, Role, Sum},
    scales::Scale,
};
use crate::model::graph::Kind;

/// What a convolution's output is made with, and its work in tiles.
#[derive(Debug)]
pub(super) struct Ready<E: Element> {
    pub(super) label: String,
    /// Products of a channel with a weight.
    pub(super) products: usize,
    pub(super) kind: Kind,
    pub(super) from: Blocks,
    pub(super) to: Blocks,
    pub(super) activated: bool,
    /// The map of sums that are added before the activation.
    pub(super) part: Option<usize>,
    pub(super) shortcut: Option<Blocks>,
    pub(super) gate: Option<Gate>,
    pub(super) numbers: Numbers,
    pub(super) weights: std::sync::Arc<Aligned<E::Weight>>,
    pub(super) groups: Vec<Tiles<E>>,
    pub(super) work: Direct,
    pub(super) winograd: bool,
}

/// Factors and summands of the output: see [`super::kernels::Finish`].
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) scale: Aligned<f32>,
    pub(super) bias: Aligned<f32>,
    pub(super) shortcut_scale: f32,
    pub(super) gain: f32,
    pub(super) offset: f32,
}

/// A group of output blocks, and for a direct convolution the tiles of one line.
#[derive(Debug)]
pub(super) struct Tiles<E: Element> {
    pub(super) group: Group,
    pub(super) strips: Vec<Strip<E>>,
}

#[derive(Debug)]
pub(super) struct Strip<E: Element> {
    pub(super) x: usize,
    pub(super) pixels: usize,
    pub(super) tile: TileFn<E>,
}

/// The tasks of a direct convolution.
#[derive(Debug)]
pub(super) struct Direct {
    /// Where a pixel's inputs lie, from its first.
    pub(super) taps: Vec<usize>,
    /// Bands of lines.
    pub(super) bands: usize,
    /// Whether groups are tasks, too: where the weights are large, each is read by one thread only.
    pub(super) by_group: bool,
}

/// Pixels of a tile of which only some are wanted: fewer cost more each, more are wanted for fewer.
const GATED: usize = 20;
/// Weights of up to so many bytes stay in a core's cache while lines go by.
const CACHED: usize = 600 << 10;

impl<E: Element> Ready<E> {
    /// `scales` are those of the plan's maps.
    pub(super) fn new(
        sum: &Sum,
        plan: &Plan,
        scales: &[Scale],
        kernels: &Kernels<E>,
        cache: &Cache<E>,
    ) -> Option<Self> {
        let from = &plan.maps.get(sum.from.map)?.layout;
        let to = &plan.maps.get(sum.to.map)?.layout;
        let winograd = kernels.transforms.is_some()
            && sum.conv.kind == Kind::Area
            && sum.activated()
            && to.height.is_multiple_of(4)
            && to.width.is_multiple_of(4);
        let method = if winograd { Method::Winograd } else { Method::Direct };
        let (inputs, outputs) = (slots(&sum.inputs), slots(&sum.outputs));
        // The picture's one block is narrower.
        let inputs = inputs.get(..from.depth * sum.from.count)?;
        let widths = pack::groups(sum.to.count, kernels.pixels);
        let key = Key { path: sum.conv.path.clone(), first: sum.first_input, method };
        let shared = cache.packed(key, |weights| match method {
            Method::Winograd => pack::winograd::<E>(weights, inputs, &outputs, &widths),
            Method::Direct => pack::direct::<E>(weights, inputs, &outputs, from.depth, &widths),
        })?;
        let numbers = Numbers::new(sum, scales, &outputs, &shared.steps, &shared.sums, cache.bias(&sum.conv.path)?);
        let step = match (sum.conv.kind.stride(), from.depth) {
            (1, _) => Step::Next,
            (_, BLOCK) => Step::Second,
            _ => Step::Picture,
        };
        // What is wanted at some pixels only is left out tile by tile.
        let most = if sum.gate.is_some() { GATED } else { usize::MAX };
        let tiles = |&group: &Group| {
            let strips = if winograd { Some(Vec::new()) } else { line(to.width, group.blocks, step, most, kernels) };
            Some(Tiles { group, strips: strips? })
        };
        let groups = shared.groups.iter().map(tiles).collect::<Option<Vec<_>>>()?;
        let channels = |parts: &[usize]| parts.iter().sum::<usize>();
        let side = sum.conv.kind.side();
        let weights = shared.weights.clone();
        Some(Self {
            label: format!(
                "{side}×{side}{} {:>3} → {:<3} at {}×{}{}",
                if sum.conv.kind == Kind::Halving { "/2" } else { "  " },
                channels(&sum.inputs),
                channels(&sum.outputs),
                to.width,
                to.height,
                if winograd { " Winograd" } else { "" }
            ),
            products: channels(&sum.inputs) * channels(&sum.outputs) * side * side * to.width * to.height,
            kind: sum.conv.kind,
            from: sum.from,
            to: sum.to,
            activated: sum.activated(),
            part: if let Role::Rest { part } = sum.role { Some(part) } else { None },
            shortcut: sum.shortcut,
            gate: sum.gate,
            work: Direct::new(sum, from, to, size_of_val(weights.as_ref().as_ref()), groups.len()),
            numbers,
            weights,
            groups,
            winograd,
        })
    }
}

impl<E: Element> Ready<E> {
    /// Where a pixel's inputs lie in a map of this layout, from its first.
    pub(super) fn taps_in(&self, from: &Layout) -> Vec<usize> {
        taps(self.kind, self.from.count, from)
    }
}

/// An offset for each block of input channels and weight of the square.
fn taps(kind: Kind, blocks: usize, from: &Layout) -> Vec<usize> {
    let side = kind.side();
    let square = move |block: usize| (0..side).flat_map(move |y| (0..side).map(move |x| (block, y, x)));
    (0..blocks).flat_map(square).map(|(block, y, x)| from.corner(block, y, x)).collect()
}

impl Numbers {
    fn new(
        sum: &Sum,
        scales: &[Scale],
        outputs: &[Option<usize>],
        steps: &[f32],
        sums: &[f32],
        biases: &[f32],
    ) -> Self {
        let scale = |map: usize| scales.get(map).copied().unwrap_or(Scale::PLAIN);
        let (input, output) = (scale(sum.from.map), scale(sum.to.map));
        // Sums that are added to others before SiLU are scaled as those are.
        let factor = if sum.activated() || sum.role == Role::Part { SWISH_IN } else { 1.0 };
        let mut numbers = Self {
            scale: Aligned::filled(outputs.len(), 0.0),
            // Padding among logits is never likely.
            bias: Aligned::filled(outputs.len(), if factor == 1.0 { f32::NEG_INFINITY } else { 0.0 }),
            shortcut_scale: 0.0,
            gain: SWISH_OUT / output.step,
            offset: output.zero,
        };
        let (scales, summands) = (numbers.scale.as_mut(), numbers.bias.as_mut());
        for (channel, output) in outputs.iter().enumerate() {
            let (Some(output), Some(step), Some(sum_of_weights)) = (output, steps.get(channel), sums.get(channel))
            else {
                continue;
            };
            // Σ w·step · (x - zero)·step' + bias
            let step = step * input.step;
            let bias = if sum.role == Role::Part { 0.0 } else { biases.get(*output).copied().unwrap_or(0.0) };
            if let (Some(scale), Some(summand)) = (scales.get_mut(channel), summands.get_mut(channel)) {
                *scale = step * factor;
                *summand = (bias - step * input.zero * sum_of_weights) * factor;
            }
        }
        if let Some(shortcut) = sum.shortcut {
            let shortcut = scale(shortcut.map);
            numbers.shortcut_scale = shortcut.step / output.step;
            numbers.offset -= shortcut.zero * numbers.shortcut_scale;
        }
        numbers
    }
}

impl Direct {
    fn new(sum: &Sum, from: &Layout, to: &Layout, weight_bytes: usize, groups: usize) -> Self {
        let taps = taps(sum.conv.kind, sum.from.count, from);
        let by_group = groups > 1 && (weight_bytes > CACHED || (to.height <= 20 && groups >= 4));
        let bands = match (by_group, to.height) {
            // With few or an odd number of groups, halves of the picture even out what members do.
            (true, _) => 1 + usize::from(groups % 2 == 1 && groups <= 6),
            // A multiple of four: as many members as there mostly are have the same to do.
            (false, 80..) => (to.height / 10).next_multiple_of(4),
            (false, height) => height.min(4),
        };
        Self { taps, bands, by_group }
    }
}

/// The tiles of a line: as wide as can be, up to `most` pixels, and nearly equal.
fn line<E: Element>(
    width: usize,
    blocks: usize,
    step: Step,
    most: usize,
    kernels: &Kernels<E>,
) -> Option<Vec<Strip<E>>> {
    let most = most.min(*kernels.pixels.get(blocks - 1)?);
    shares(width, most)
        .map(|(x, pixels)| Some(Strip { x, pixels, tile: (kernels.tile)(pixels, blocks, step)? }))
        .collect()
}

/// (first, count) of nearly equal shares, none larger than `most`.
pub(super) fn shares(all: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let shares = all.div_ceil(most.max(1)).max(1);
    (0..shares).map(move |share| (all * share / shares, all * (share + 1) / shares)).map(|(from, to)| (from, to - from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_nearly_equal_and_leave_nothing_out() {
        for (all, most) in [(320, 14), (20, 14), (1, 28), (13, 6), (12, 12)] {
            let shares: Vec<_> = shares(all, most).collect();
            let mut next = 0;
            for &(from, count) in &shares {
                assert_eq!(from, next);
                assert!(count >= 1 && count <= most);
                next += count;
            }
            assert_eq!(next, all);
            let sizes = || shares.iter().map(|share| share.1);
            assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
        }
    }
}
