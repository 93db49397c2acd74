//! Two convolutions, of which the second alone reads what the first writes: computed band by band, so that what is between
//! them stays in a core's cache. The network's first two, whose map would be the largest of all.
//!
//! What threads do with it stands in `run`.

use super::{conv::Ready, element::Element, layout::Layout, plan::Plan};
use crate::model::graph::Kind;

/// Bytes of a band between the two.
const BAND: usize = 384 << 10;

/// Both of them, and the map between them, of which only a band is ever there.
#[derive(Debug)]
pub(super) struct Pair<E: Element> {
    pub(super) first: Ready<E>,
    pub(super) second: Ready<E>,
    /// Of a band: its border above holds the line before it.
    pub(super) between: Layout,
    /// Where the second one's inputs lie in it.
    pub(super) taps: Vec<usize>,
    /// Tasks: bands of the second one's output.
    pub(super) bands: usize,
}

impl<E: Element> Pair<E> {
    /// Whether they can be computed so.
    pub(super) fn fits(first: &Ready<E>, second: &Ready<E>, plan: &Plan) -> bool {
        let halving = |conv: &Ready<E>| conv.kind == Kind::Halving && !conv.work.by_group && conv.gate.is_none();
        let plain = |conv: &Ready<E>| conv.activated && conv.part.is_none() && conv.shortcut.is_none();
        halving(first)
            && halving(second)
            && plain(first)
            && plain(second)
            && first.to == second.from
            && plan.readers(first.to.map) == 1
    }

    /// None if a map is not in the plan.
    pub(super) fn new(first: Ready<E>, second: Ready<E>, plan: &Plan) -> Option<Self> {
        let whole = &plan.maps.get(first.to.map)?.layout;
        let height = plan.maps.get(second.to.map)?.layout.height;
        let line = whole.row() * whole.blocks() * size_of::<E>();
        let lines = (BAND / line / 2).clamp(2, height);
        // A multiple of four: as many members as there mostly are have the same to do.
        let bands = height.div_ceil(lines).next_multiple_of(4).min(height);
        let between = whole.of_height(2 * height.div_ceil(bands));
        let taps = second.taps_in(&between);
        Some(Self { first, second, between, taps, bands })
    }
}
