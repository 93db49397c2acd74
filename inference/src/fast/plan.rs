//! From the network's description to what is computed: upsampling is taken away, and every map is given its memory.
//!
//! Knows no weights and no kernels.

use std::collections::HashMap;

use super::layout::{Layout, layouts};
use crate::model::graph::{Activation, Conv, Graph, Kind, Step, View};

/// What is computed, in order, for pictures of one size.
#[derive(Debug)]
pub(super) struct Plan {
    /// The graph's maps, and behind them those of partial sums.
    pub(super) maps: Vec<Planned>,
    pub(super) works: Vec<Work>,
    pub(super) stored: Vec<Buffer>,
    pub(super) plain: Vec<Buffer>,
}

/// So many numbers, each of which stands for zero at first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Buffer {
    pub(super) len: usize,
    pub(super) zero: f32,
}

#[derive(Debug)]
pub(super) struct Planned {
    pub(super) layout: Layout,
    pub(super) place: Place,
}

/// Whether maps that are never needed at the same time may lie in one buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buffers {
    Shared,
    /// So that all that was computed is still there at the end.
    Apart,
}

/// In which buffer a map lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Of activations.
    Stored(usize),
    /// Of f32 numbers: what the head says, and partial sums.
    Plain(usize),
    /// Nobody writes or reads it.
    Nowhere,
}

/// Some neighbouring blocks of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocks {
    pub(super) map: usize,
    pub(super) first: usize,
    pub(super) count: usize,
}

#[derive(Debug)]
pub(super) enum Work {
    Conv(Box<Sum>),
    Pool { from: Blocks, to: Blocks },
}

/// A convolution, or the part of one over some of its input channels.
#[derive(Debug)]
pub(super) struct Sum {
    pub(super) conv: Conv,
    pub(super) from: Blocks,
    /// Channels of each part that is read, and those of `conv` before them.
    pub(super) inputs: Vec<usize>,
    pub(super) first_input: usize,
    pub(super) outputs: Vec<usize>,
    pub(super) to: Blocks,
    pub(super) role: Role,
    pub(super) shortcut: Option<Blocks>,
    /// Where the head only wants to know it at some pixels.
    pub(super) gate: Option<Gate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// All of it; activated, or not.
    Whole,
    /// Sums that are not complete: without bias, of half the size.
    Part,
    /// The rest, to which the sums in this map are added.
    Rest { part: usize },
}

/// Of the box branch: only where a class is likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gate {
    pub(super) level: usize,
    /// With the pixels around: a 3×3 convolution will look at them.
    pub(super) margin: bool,
}

impl Plan {
    /// `width` and `height` are multiples of 32; `zeros` is what stands for zero in each map of the graph.
    pub(super) fn new(graph: &Graph, width: usize, height: usize, zeros: &[f32], buffers: Buffers) -> Self {
        let mut planner = Planner { graph, layouts: layouts(graph, width, height), doubled: HashMap::new() };
        let works: Vec<Work> = graph.steps.iter().flat_map(|step| planner.step(step)).collect();
        let (places, stored, plain) = places(&planner.layouts, &works, graph, zeros, buffers);
        let maps = planner.layouts.into_iter().zip(places).map(|(layout, place)| Planned { layout, place }).collect();
        Self { maps, works, stored, plain }
    }
}

impl Plan {
    /// What stands for zero in a map.
    pub(super) fn zero(&self, map: usize) -> Option<f32> {
        match self.maps.get(map)?.place {
            Place::Stored(buffer) => self.stored.get(buffer).map(|buffer| buffer.zero),
            Place::Plain(_) | Place::Nowhere => Some(0.0),
        }
    }

    /// How many steps read a map.
    pub(super) fn readers(&self, map: usize) -> usize {
        let reads = |work: &&Work| match work {
            Work::Conv(sum) => sum.reads().any(|read| read == map),
            Work::Pool { from, .. } => from.map == map,
        };
        self.works.iter().filter(reads).count()
    }
}

struct Planner<'a> {
    graph: &'a Graph,
    layouts: Vec<Layout>,
    /// What a (map, part) is, twice as high and wide.
    doubled: HashMap<(usize, usize), View>,
}

impl Planner<'_> {
    fn step(&mut self, step: &Step) -> Vec<Work> {
        match step {
            Step::Conv(conv) => self.conv(conv).into_iter().map(|sum| Work::Conv(Box::new(sum))).collect(),
            Step::Pool { from, to } => vec![Work::Pool { from: self.blocks(*from), to: self.blocks(*to) }],
            // Nothing is computed. Whoever reads it is a 1×1 convolution (`conv` relies on it), and that of four equal
            // pixels is four times the same: it is done once, where they are one.
            Step::Double { from, to } => {
                self.doubled.extend((to.from..to.to).map(|part| ((to.map, part), *from)));
                Vec::new()
            }
        }
    }

    fn conv(&mut self, conv: &Conv) -> Vec<Sum> {
        let low = self.doubled.get(&(conv.from.map, conv.from.from)).copied();
        let Some(low) = low else { return vec![self.sum(conv, conv.from, 0, conv.to, Role::Whole)] };
        debug_assert_eq!(conv.kind, Kind::Point, "only 1×1 convolutions read what is doubled");
        let channels = self.graph.channels(low);
        let part = self.layouts.len();
        let sums = self.layouts.get(low.map).map(|layout| layout.with_parts(self.graph.parts(conv.to)));
        self.layouts.extend(sums);
        let mut first = self.sum(conv, low, 0, conv.to, Role::Part);
        first.to = Blocks { map: part, first: 0, count: first.to.count };
        let rest = View { from: conv.from.from + 1, ..conv.from };
        vec![first, self.sum(conv, rest, channels, conv.to, Role::Rest { part })]
    }

    fn sum(&self, conv: &Conv, from: View, first_input: usize, to: View, role: Role) -> Sum {
        let parts = |view| self.graph.parts(view).to_vec();
        Sum {
            conv: conv.clone(),
            from: self.blocks(from),
            inputs: parts(from),
            first_input,
            outputs: parts(to),
            to: self.blocks(to),
            role,
            shortcut: conv.shortcut.map(|view| self.blocks(view)),
            gate: self.gate(conv),
        }
    }

    fn blocks(&self, View { map, from, to }: View) -> Blocks {
        let (first, end) = self.layouts.get(map).map_or((0, 0), |layout| (layout.start(from), layout.start(to)));
        Blocks { map, first, count: end - first }
    }

    /// The box branch, found backwards from what the head reads.
    fn gate(&self, conv: &Conv) -> Option<Gate> {
        let writes = |view: View| {
            self.graph.steps.iter().find_map(|step| match step {
                Step::Conv(conv) if conv.to == view => Some(conv),
                _ => None,
            })
        };
        self.graph.levels.iter().enumerate().find_map(|(level, head)| {
            let last = writes(head.sides)?;
            let second = writes(last.from)?;
            let first = writes(second.from)?;
            let near = conv == last || conv == second;
            (near || conv == first).then_some(Gate { level, margin: conv == first })
        })
    }
}

impl Sum {
    pub(super) fn activated(&self) -> bool {
        self.conv.activation == Activation::Silu && self.role != Role::Part
    }

    /// Maps that it reads.
    fn reads(&self) -> impl Iterator<Item = usize> {
        let part = if let Role::Rest { part } = self.role { Some(part) } else { None };
        [Some(self.from.map), self.shortcut.map(|blocks| blocks.map), part].into_iter().flatten()
    }
}

/// Gives each map a buffer. Maps of one size that are never needed at the same time share one: what is in a cache stays
/// there, and the border stays what it is.
fn places(
    layouts: &[Layout],
    works: &[Work],
    graph: &Graph,
    zeros: &[f32],
    sharing: Buffers,
) -> (Vec<Place>, Vec<Buffer>, Vec<Buffer>) {
    /// When a map is first written, and last read.
    #[derive(Clone, Copy)]
    struct Life {
        from: usize,
        to: usize,
        plain: bool,
    }
    let mut lives: Vec<Option<Life>> = vec![None; layouts.len()];
    let mut live = |map: usize, at: usize, plain: bool| {
        if let Some(life) = lives.get_mut(map) {
            let life = life.get_or_insert(Life { from: at, to: at, plain });
            life.to = at;
            life.plain |= plain;
        }
    };
    live(Graph::PICTURE.map, 0, false);
    for (at, work) in works.iter().enumerate() {
        match work {
            Work::Conv(sum) => {
                sum.reads().for_each(|map| live(map, at, false));
                live(sum.to.map, at, !sum.activated());
            }
            Work::Pool { from, to } => [from, to].into_iter().for_each(|blocks| live(blocks.map, at, false)),
        }
    }
    for level in &graph.levels {
        live(level.sides.map, usize::MAX, true);
        live(level.classes.map, usize::MAX, true);
    }

    struct Taken {
        layout: Layout,
        plain: bool,
        zero: f32,
        until: usize,
        place: usize,
    }
    let mut order: Vec<(usize, Life)> =
        lives.iter().enumerate().filter_map(|(map, life)| Some((map, (*life)?))).collect();
    order.sort_by_key(|(_, life)| life.from);
    let mut places = vec![Place::Nowhere; layouts.len()];
    let (mut stored, mut plain, mut buffers) = (Vec::new(), Vec::new(), Vec::<Taken>::new());
    for (map, life) in order {
        let Some(layout) = layouts.get(map) else { continue };
        let zero = zeros.get(map).copied().filter(|_| !life.plain).unwrap_or(0.0);
        // The one that was freed last is the hottest.
        let free = buffers.iter_mut().filter(|taken| {
            sharing == Buffers::Shared
                && taken.until < life.from
                && (taken.plain, taken.zero) == (life.plain, zero)
                && taken.layout.same_size(layout)
                && taken.layout.len() >= layout.len()
        });
        let place = match free.max_by_key(|taken| taken.until) {
            Some(taken) => {
                taken.until = life.to;
                taken.place
            }
            None => {
                let sizes = if life.plain { &mut plain } else { &mut stored };
                sizes.push(Buffer { len: layout.len(), zero });
                let place = sizes.len() - 1;
                buffers.push(Taken { layout: layout.clone(), plain: life.plain, zero, until: life.to, place });
                place
            }
        };
        if let Some(slot) = places.get_mut(map) {
            *slot = if life.plain { Place::Plain(place) } else { Place::Stored(place) };
        }
    }
    (places, stored, plain)
}
