//! One worker's memory, and a pass through the network in it. Nothing is allocated once it is made.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kadr_shared::geometry::InputSize;

use super::{
    conv::Ready,
    element::Element,
    head::{Flags, Head},
    kernels::{Computed, Kernels},
    layout::Layout,
    memory::Aligned,
    network::{Cache, Parameters},
    pair::Pair,
    plan::{Blocks, Buffers, Place, Plan, Planned, Work},
    run::{Memory, Room},
    scales::Scale,
    threads::Team,
};
use crate::{model::graph::Graph, nms::Candidate};

/// All that is the same for every worker and every picture of one size.
#[derive(Debug)]
pub(super) struct Program<E: Element> {
    pub(super) parameters: Arc<Parameters>,
    pub(super) kernels: Kernels<E>,
    plan: Plan,
    steps: Vec<Ran<E>>,
    pub(super) heads: Vec<Head>,
}

#[derive(Debug)]
enum Ran<E: Element> {
    Conv(Box<Ready<E>>),
    Pair(Box<Pair<E>>),
    Pool {
        from: Blocks,
        to: Blocks,
    },
    /// Marks the pixels of a level where a class is likely: when all its logits are there.
    Mark(usize),
}

impl<E: Computed> Program<E> {
    /// `None` if the network has a step that can't be computed: none has.
    pub(super) fn new(
        cache: &Cache<E>,
        kernels: Kernels<E>,
        scales: &[Scale],
        input: InputSize,
        buffers: Buffers,
    ) -> Option<Self> {
        let graph = &cache.parameters.graph;
        let zeros: Vec<f32> = scales.iter().map(|scale| scale.zero).collect();
        let (width, height) = (input.width() as usize, input.height() as usize);
        let plan = Plan::new(graph, width, height, &zeros, buffers);
        let mut steps = Vec::new();
        let mut works = plan.works.iter();
        // What is between them is never written whole: where all maps are to be looked at later, they are apart.
        if let [Work::Conv(first), Work::Conv(second), ..] = plan.works.as_slice()
            && buffers == Buffers::Shared
        {
            let ready = |sum| Ready::new(sum, &plan, scales, &kernels, cache);
            let (first, second) = (ready(first)?, ready(second)?);
            if Pair::fits(&first, &second, &plan) {
                steps.push(Ran::Pair(Box::new(Pair::new(first, second, &plan)?)));
                works = plan.works.get(2..)?.iter();
            }
        }
        for work in works {
            match work {
                Work::Conv(sum) => {
                    steps.push(Ran::Conv(Box::new(Ready::new(sum, &plan, scales, &kernels, cache)?)));
                    let level = graph.levels.iter().position(|level| level.classes == sum.conv.to);
                    steps.extend(level.map(Ran::Mark));
                }
                Work::Pool { from, to } => steps.push(Ran::Pool { from: *from, to: *to }),
            }
        }
        let heads = graph.levels.iter().map(|level| Head::new(level, graph.classes, &plan)).collect::<Option<_>>()?;
        Some(Self { parameters: cache.parameters.clone(), kernels, plan, steps, heads })
    }

    fn layout(&self, map: usize) -> Option<&Layout> {
        self.plan.maps.get(map).map(|planned| &planned.layout)
    }
}

/// How long a step took.
#[derive(Debug, Clone)]
pub struct Timed {
    pub label: String,
    /// Multiplications and additions.
    pub products: usize,
    pub elapsed: Duration,
}

/// A pass's memory, and the threads that make it.
#[derive(Debug)]
pub(super) struct Pass<E: Element> {
    program: Arc<Program<E>>,
    stored: Vec<Aligned<E>>,
    plain: Vec<Aligned<f32>>,
    flags: Vec<Flags>,
    room: Room<E>,
    team: Team,
}

impl<E: Computed> Pass<E> {
    pub(super) fn new(program: Arc<Program<E>>, threads: usize) -> std::io::Result<Self> {
        let plan = &program.plan;
        let stored = plan.stored.iter().map(|b| Aligned::filled(b.len, E::nearest(b.zero))).collect();
        let plain = plan.plain.iter().map(|b| Aligned::filled(b.len, b.zero)).collect();
        let flags = program.heads.iter().map(|head| Flags::new(&head.layout)).collect();
        let team = Team::new(threads)?;
        let convs = program.steps.iter().filter_map(|step| match step {
            Ran::Conv(conv) if conv.winograd => Some((&**conv, program.layout(conv.to.map)?)),
            _ => None,
        });
        let pairs = program.steps.iter().filter_map(|step| match step {
            Ran::Pair(pair) => Some((plan.zero(pair.first.to.map)?, &**pair)),
            _ => None,
        });
        let room = Room::new(convs, pairs, team.members());
        Ok(Self { program, stored, plain, flags, room, team })
    }

    /// The picture's pixels, four numbers each, within its border; and the layout that they lie in.
    pub(super) fn picture(&mut self) -> Option<(&mut Aligned<E>, &Layout)> {
        let Planned { layout, place } = self.program.plan.maps.get(Graph::PICTURE.map)?;
        match place {
            Place::Stored(buffer) => Some((self.stored.get_mut(*buffer)?, layout)),
            _ => None,
        }
    }

    /// From the picture to the candidates whose best class is surer than `confidence`, appended to `found`.
    pub(super) fn run(&mut self, confidence: f32, found: &mut Vec<Candidate>, mut timed: Option<&mut Vec<Timed>>) {
        let program = self.program.clone();
        let least = super::head::logit(confidence);
        for step in &program.steps {
            let begun = timed.as_ref().map(|_| Instant::now());
            let memory = Memory::new(&program.plan.maps, &mut self.stored, &mut self.plain);
            match step {
                Ran::Conv(conv) => {
                    let wanted = conv.gate.and_then(|gate| self.flags.get(gate.level).map(|flags| flags.of(gate)));
                    if conv.winograd {
                        memory.winograd(conv, &program.kernels, wanted, &mut self.room, &mut self.team);
                    } else {
                        memory.direct(conv, wanted, &mut self.team);
                    }
                }
                Ran::Pair(pair) => memory.pair(pair, &mut self.room, &mut self.team),
                Ran::Pool { from, to } => memory.pool(*from, *to, &program.kernels, &mut self.team),
                Ran::Mark(level) => {
                    if let (Some(head), Some(flags)) = (program.heads.get(*level), self.flags.get_mut(*level)) {
                        memory.mark(head, least, &program.kernels, flags, &mut self.team);
                    }
                }
            }
            if let (Some(timed), Some(begun)) = (timed.as_deref_mut(), begun) {
                timed.push(step.timed(begun.elapsed()));
            }
        }
        for (head, flags) in program.heads.iter().zip(&self.flags) {
            head.decode(flags, &self.plain, &program.parameters.bins, confidence, found);
        }
    }

    /// The largest and the smallest number of each map of the graph that is stored: what a calibration is made of.
    pub(super) fn ranges(&self, each: &mut dyn FnMut(usize, f32, f32)) {
        for (map, Planned { layout, place }) in self.program.plan.maps.iter().enumerate() {
            if let Place::Stored(buffer) = place
                && let Some(numbers) = self.stored.get(*buffer).and_then(|b| b.as_ref().get(..layout.len()))
            {
                let numbers = || numbers.iter().map(|number| number.value());
                each(map, numbers().fold(0.0, f32::min), numbers().fold(0.0, f32::max));
            }
        }
    }
}

impl<E: Element> Ran<E> {
    fn timed(&self, elapsed: Duration) -> Timed {
        match self {
            Self::Conv(conv) => Timed { label: conv.label.clone(), products: conv.products, elapsed },
            Self::Pair(pair) => {
                let Pair { first, second, .. } = &**pair;
                let label = format!("{}, then {}", first.label, second.label);
                Timed { label, products: first.products + second.products, elapsed }
            }
            Self::Pool { .. } => Timed { label: "pool 5×5".into(), products: 0, elapsed },
            Self::Mark(level) => Timed { label: format!("candidates of level {level}"), products: 0, elapsed },
        }
    }
}
