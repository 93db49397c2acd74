//! A 3×3 convolution by 4×4 squares of its output: transformed, multiplied point by point, transformed back.
//!
//! Why threads may write as they do stands in the module around.

use super::{Everyones, Memory};
use crate::fast::{
    conv::{Ready, Tiles, shares},
    element::Element,
    kernels::{Computed, Kernels, Output, POINTS, Step, Tile, TransformIn, TransformOut},
    layout::{BLOCK, Layout},
    memory::Aligned,
    pair::Pair,
    threads::Team,
};

/// What a convolution needs beside the maps.
#[derive(Debug)]
pub(in crate::fast) struct Room<E: Element> {
    /// Transformed inputs and products: of each member, and the first one's for all where they share.
    members: Vec<Points<E>>,
    /// Those 4×4 squares that are wanted.
    squares: Vec<(usize, usize)>,
    /// Of each member: a band between two convolutions.
    pub(super) bands: Vec<Aligned<E>>,
}

impl<E: Element> Points<E> {
    /// That there is room for so many squares: what is written here is not checked again.
    fn check(&self, squares: usize, inputs: usize, outputs: usize) {
        let (has_inputs, has_products) = (self.inputs.as_ref().len(), self.products.as_ref().len());
        assert!(POINTS * squares * inputs * BLOCK <= has_inputs, "room for the inputs of {squares} squares");
        assert!(POINTS * squares * outputs * BLOCK <= has_products, "room for the products of {squares} squares");
    }
}

#[derive(Debug)]
struct Points<E: Element> {
    inputs: Aligned<E>,
    products: Aligned<f32>,
    taps: Vec<usize>,
}

/// Squares that one task transforms and multiplies at a time: their numbers stay in a core's cache.
const SQUARES: usize = 28;
/// So few are transformed once for all, and the weights shared out instead.
const FEW: usize = 32;

impl<E: Element> Room<E> {
    /// `convs` are those that are computed by Winograd, with their outputs' layouts; `pairs` begin with what stands for zero
    /// between the two.
    pub(in crate::fast) fn new<'a>(
        convs: impl Iterator<Item = (&'a Ready<E>, &'a Layout)>,
        pairs: impl Iterator<Item = (f32, &'a Pair<E>)>,
        members: usize,
    ) -> Self {
        let (mut inputs, mut products, mut squares, mut blocks) = (0, 0, 0, 0);
        for (conv, to) in convs {
            let all = to.width / 4 * (to.height / 4);
            // Of many only a few may be wanted, and are then shared.
            let at_once = all.min(FEW.max(SQUARES));
            inputs = inputs.max(POINTS * at_once * conv.from.count * BLOCK);
            let widest = conv.groups.iter().map(|tiles| tiles.group.blocks).max().unwrap_or(0);
            products = products.max(POINTS * at_once * widest * BLOCK);
            squares = squares.max(all);
            blocks = blocks.max(conv.from.count);
        }
        let points = || Points {
            inputs: Aligned::filled(inputs, E::nearest(0.0)),
            products: Aligned::filled(products, 0.0),
            taps: Vec::with_capacity(blocks),
        };
        // There is one pair at most.
        let band = pairs.map(|(zero, pair)| Aligned::filled(pair.between.len(), E::nearest(zero))).next();
        Self {
            members: (0..members).map(|_| points()).collect(),
            squares: Vec::with_capacity(squares),
            bands: band.map_or_else(Vec::new, |band| vec![band; members]),
        }
    }
}

impl<E: Computed> Memory<'_, E> {
    /// A 3×3 convolution by 4×4 squares of its output. `E` is f32: no other has transforms.
    pub(in crate::fast) fn winograd(
        &self,
        conv: &Ready<E>,
        kernels: &Kernels<E>,
        wanted: Option<&[bool]>,
        room: &mut Room<E>,
        team: &mut Team,
    ) {
        let to = self.layout(conv.to.map);
        room.squares.clear();
        let all = (0..to.height / 4).flat_map(|y| (0..to.width / 4).map(move |x| (4 * y, 4 * x)));
        room.squares.extend(all.filter(|&(y, x)| {
            let line = |wanted: &[bool], line: usize| wanted[(y + line) * to.width + x..][..4].contains(&true);
            wanted.is_none_or(|wanted| (0..4).any(|l| line(wanted, l)))
        }));
        let squares = room.squares.as_slice();
        let widest = conv.groups.iter().map(|tiles| tiles.group.blocks).max().unwrap_or(0);
        let at_once = if squares.len() > FEW { SQUARES } else { squares.len() };
        room.members.iter().for_each(|points| points.check(at_once, conv.from.count, widest));
        let members = Everyones(room.members.as_mut_ptr());
        // SAFETY: a member has its own; what all share is only read while they do.
        let of = |member: usize| unsafe { &mut *members.get().add(member) };

        if squares.len() > FEW {
            // A multiple of two tasks: as many members as there mostly are have the same to do.
            let tasks = squares.len().div_ceil(SQUARES).next_multiple_of(2);
            team.run(tasks, &|member, task| {
                let squares = &squares[squares.len() * task / tasks..squares.len() * (task + 1) / tasks];
                let Points { inputs, products, taps } = of(member);
                // SAFETY: the member's own.
                unsafe {
                    (0..conv.from.count)
                        .for_each(|block| self.before(conv, kernels, block, squares, inputs.as_mut_ptr()));
                    self.products(conv, kernels, squares, inputs.as_ptr(), products, taps, 0..conv.groups.len());
                }
            });
            return;
        }
        let shared = Everyones(room.members[0].inputs.as_mut_ptr());
        // SAFETY: each task writes a block of its own.
        team.run(conv.from.count, &|_, block| unsafe { self.before(conv, kernels, block, squares, shared.get()) });
        team.run(conv.groups.len(), &|member, group| {
            let points = of(member);
            let (products, taps) = (&mut points.products, &mut points.taps);
            // SAFETY: the inputs are only read now; products are the member's own.
            unsafe { self.products(conv, kernels, squares, shared.get(), products, taps, group..group + 1) }
        });
    }

    /// Transforms one block of input channels of some squares: `[point][block][square][channel]`.
    ///
    /// # Safety
    /// `points` has room for them, and nobody else writes this block's.
    unsafe fn before(
        &self,
        conv: &Ready<E>,
        kernels: &Kernels<E>,
        block: usize,
        squares: &[(usize, usize)],
        points: *mut E,
    ) {
        let Some(transforms) = kernels.transforms else { return };
        let from = self.layout(conv.from.map);
        for (square, &(y, x)) in squares.iter().enumerate() {
            // SAFETY: 6×6 pixels from the one up and left of the square, border included.
            unsafe {
                let input = self.stored(conv.from.map).add(from.corner(conv.from.first + block, y, x));
                (transforms.before)(&TransformIn {
                    input: input.cast(),
                    row: from.row(),
                    points: points.add((block * squares.len() + square) * BLOCK).cast(),
                    stride: conv.from.count * squares.len() * BLOCK,
                });
            }
        }
    }

    /// Multiplies transformed squares with the weights of some groups, and transforms the products back.
    ///
    /// # Safety
    /// `inputs` are the squares', `products` nobody else's.
    #[expect(clippy::too_many_arguments, reason = "what a task has of its own")]
    unsafe fn products(
        &self,
        conv: &Ready<E>,
        kernels: &Kernels<E>,
        squares: &[(usize, usize)],
        inputs: *const E,
        products: &mut Aligned<f32>,
        taps: &mut Vec<usize>,
        groups: std::ops::Range<usize>,
    ) {
        let Some(transforms) = kernels.transforms else { return };
        let to = self.layout(conv.to.map);
        let (blocks, count) = (conv.from.count, squares.len());
        taps.clear();
        taps.extend((0..blocks).map(|block| block * count * BLOCK));
        let products = products.as_mut_ptr();
        for Tiles { group, .. } in &conv.groups[groups] {
            let stride = group.blocks * count * BLOCK;
            for (first, squares) in shares(count, kernels.pixels[group.blocks - 1]) {
                let Some(tile) = (kernels.tile)(squares, group.blocks, Step::Next) else { return };
                for point in 0..POINTS {
                    // SAFETY: squares stand where pixels do in a direct convolution, a point's lie side by side.
                    unsafe {
                        tile(&Tile {
                            input: inputs.add((point * blocks * count + first) * BLOCK),
                            taps: taps.as_slice(),
                            run: 1,
                            pixels: squares,
                            weights: conv
                                .weights
                                .as_ptr()
                                .add(group.weights + point * blocks * BLOCK * group.blocks * BLOCK),
                            output: Output::Sums(products.add(point * stride + first * BLOCK)),
                            plane: count * BLOCK,
                            finish: self.finish(conv, group.first, 0, 0),
                        });
                    }
                }
            }
            for block in 0..group.blocks {
                for (square, &(y, x)) in squares.iter().enumerate() {
                    // SAFETY: a square of the output, and of the shortcut.
                    unsafe {
                        let finish = self.finish(conv, group.first + block, y, x);
                        let output = to.at(conv.to.first + group.first + block, y, x);
                        (transforms.after)(&TransformOut {
                            points: products.add((block * count + square) * BLOCK).cast_const(),
                            stride,
                            output: self.stored(conv.to.map).add(output).cast(),
                            row: to.row(),
                            scale: finish.scale,
                            bias: finish.bias,
                            shortcut: finish.shortcut.cast(),
                            shortcut_row: conv.shortcut.map_or(0, |shortcut| self.layout(shortcut.map).row()),
                        });
                    }
                }
            }
        }
    }
}
