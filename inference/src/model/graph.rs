//! The network, described once: feature maps, and the steps that fill them. The reference on candle and the fast executor
//! both follow it.
//!
//! Knows no numbers but channels and strides: no weights, no sizes of pictures, no arithmetic. Layers are numbered as
//! Ultralytics numbers them (<https://docs.ultralytics.com/models/yolov8>), because published weights are named by these
//! numbers.

use super::shape::{BINS, Plan};

/// The steps from a picture to the head's three levels, in an order in which they can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// The first one is the picture.
    pub(crate) maps: Vec<Map>,
    pub(crate) steps: Vec<Step>,
    pub(crate) levels: [Level; 3],
    pub(crate) classes: usize,
}

/// A feature map. Its channels come in parts, which are written or read apart: where networks concatenate or split, here
/// are only views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Map {
    /// Pixels of the picture a pixel of the map.
    pub(crate) stride: usize,
    /// Channels of each part.
    pub(crate) parts: Vec<usize>,
}

/// Some neighbouring parts of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) map: usize,
    pub(crate) from: usize,
    /// Exclusive.
    pub(crate) to: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Conv(Conv),
    /// The largest of each 5×5 neighbourhood, as far as it lies in the map.
    Pool {
        from: View,
        to: View,
    },
    /// Twice as high and wide: every pixel four times.
    Double {
        from: View,
        to: View,
    },
}

/// A convolution with bias: the only step with parameters, `{path}.weight` and `{path}.bias`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conv {
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) from: View,
    pub(crate) to: View,
    pub(crate) activation: Activation,
    /// Added to the output, after the activation.
    pub(crate) shortcut: Option<View>,
}

/// Kernels are square, padded so that the size is kept, or halved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 1×1.
    Point,
    /// 3×3.
    Area,
    /// 3×3 at every second pixel of every second line.
    Halving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x · sigmoid(x)
    Silu,
    None,
}

/// What the head says of one level of the pyramid, at each pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) stride: usize,
    /// 4 sides of [`BINS`] bins each: logits of a side's distance.
    pub(crate) sides: View,
    /// A logit a class.
    pub(crate) classes: View,
}

impl Kind {
    pub(crate) const fn side(self) -> usize {
        match self {
            Self::Point => 1,
            Self::Area | Self::Halving => 3,
        }
    }

    pub(crate) const fn stride(self) -> usize {
        match self {
            Self::Point | Self::Area => 1,
            Self::Halving => 2,
        }
    }
}

impl View {
    /// One of its parts, counted from its first.
    const fn part(self, part: usize) -> Self {
        Self { map: self.map, from: self.from + part, to: self.from + part + 1 }
    }
}

impl Graph {
    pub(crate) const PICTURE: View = View { map: 0, from: 0, to: 1 };

    pub fn new(plan: &Plan) -> Self {
        let mut builder = Builder { maps: vec![Map { stride: 1, parts: vec![3] }], steps: Vec::new() };
        let levels = builder.network(plan);
        let Builder { maps, steps } = builder;
        Self { maps, steps, levels, classes: plan.classes }
    }

    /// How many channels a view has.
    pub(crate) fn channels(&self, view: View) -> usize {
        self.parts(view).iter().sum()
    }

    /// The parameters of all steps: names and shapes.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let convolutions = self.steps.iter().filter_map(|step| match step {
            Step::Conv(conv) => Some(conv),
            Step::Pool { .. } | Step::Double { .. } => None,
        });
        convolutions.flat_map(|Conv { path, kind, from, to, .. }| {
            let (input, output, side) = (self.channels(*from), self.channels(*to), kind.side());
            [(format!("{path}.weight"), vec![output, input, side, side]), (format!("{path}.bias"), vec![output])]
        })
    }

    /// The channels of each part of a view.
    pub(crate) fn parts(&self, View { map, from, to }: View) -> &[usize] {
        self.maps.get(map).and_then(|map| map.parts.get(from..to)).unwrap_or_default()
    }
}

struct Builder {
    maps: Vec<Map>,
    steps: Vec<Step>,
}

impl Builder {
    fn network(&mut self, plan: &Plan) -> [Level; 3] {
        let [c1, c2, c3, c4, c5] = plan.channels;

        // Backbone: layers 0 to 9. What the neck will put beside a map's features lies in the same map.
        let halved = self.down("model.0", Graph::PICTURE, c1);
        let quartered = self.down("model.1", halved, c2);
        let quarter = self.map(4, &[c2]);
        self.c2f("model.2", quartered, quarter, plan.short, true);
        let eighth = self.down("model.3", quarter, c3);
        let fine = self.map(8, &[c4, c3]);
        self.c2f("model.4", eighth, fine.part(1), plan.long, true);
        let sixteenth = self.down("model.5", fine.part(1), c4);
        let middle = self.map(16, &[c5, c4]);
        self.c2f("model.6", sixteenth, middle.part(1), plan.long, true);
        let last = self.down("model.7", middle.part(1), c5);
        let deep = self.map(32, &[c5]);
        self.c2f("model.8", last, deep, plan.short, true);
        let coarse = self.map(32, &[c4, c5]);
        self.sppf("model.9", deep, coarse.part(1), c5 / 2);

        // Neck: layers 10 to 21. Coarse features are mixed into fine ones on the way up, and fine into coarse ones on
        // the way down.
        self.steps.push(Step::Double { from: coarse.part(1), to: middle.part(0) });
        let mixed = self.map(16, &[c3, c4]);
        self.c2f("model.12", middle, mixed.part(1), plan.short, false);
        self.steps.push(Step::Double { from: mixed.part(1), to: fine.part(0) });
        let p3 = self.map(8, &[c3]);
        self.c2f("model.15", fine, p3, plan.short, false);
        self.conv("model.16.conv", Kind::Halving, p3, mixed.part(0));
        let p4 = self.map(16, &[c4]);
        self.c2f("model.18", mixed, p4, plan.short, false);
        self.conv("model.19.conv", Kind::Halving, p4, coarse.part(0));
        let p5 = self.map(32, &[c5]);
        self.c2f("model.21", coarse, p5, plan.short, false);

        [(0, p3), (1, p4), (2, p5)].map(|(level, features)| self.level(plan, level, features))
    }

    /// A map of its own for these parts.
    fn map(&mut self, stride: usize, parts: &[usize]) -> View {
        self.maps.push(Map { stride, parts: parts.to_vec() });
        View { map: self.maps.len() - 1, from: 0, to: parts.len() }
    }

    fn stride(&self, view: View) -> usize {
        self.maps.get(view.map).map_or(1, |map| map.stride)
    }

    fn conv(&mut self, path: &str, kind: Kind, from: View, to: View) {
        self.conv_with(path, kind, from, to, Activation::Silu, None);
    }

    fn conv_with(
        &mut self,
        path: &str,
        kind: Kind,
        from: View,
        to: View,
        activation: Activation,
        shortcut: Option<View>,
    ) {
        self.steps.push(Step::Conv(Conv { path: path.to_owned(), kind, from, to, activation, shortcut }));
    }

    /// Half the size.
    fn down(&mut self, path: &str, from: View, channels: usize) -> View {
        let to = self.map(2 * self.stride(from), &[channels]);
        self.conv(&format!("{path}.conv"), Kind::Halving, from, to);
        to
    }

    /// A chain of bottlenecks (two 3×3 convolutions each, with a way round them or without) over half of the channels;
    /// every link's output is kept and mixed at the end.
    fn c2f(&mut self, path: &str, from: View, to: View, repeats: usize, shortcut: bool) {
        let stride = self.stride(to);
        let half = self.maps.get(to.map).and_then(|map| map.parts.get(to.from)).map_or(0, |channels| channels / 2);
        let links = self.map(stride, &vec![half; 2 + repeats]);
        self.conv(&format!("{path}.cv1.conv"), Kind::Point, from, View { to: 2, ..links });
        for link in 0..repeats {
            let (input, output) = (links.part(1 + link), links.part(2 + link));
            let between = self.map(stride, &[half]);
            self.conv(&format!("{path}.m.{link}.cv1.conv"), Kind::Area, input, between);
            let path = format!("{path}.m.{link}.cv2.conv");
            self.conv_with(&path, Kind::Area, between, output, Activation::Silu, shortcut.then_some(input));
        }
        self.conv(&format!("{path}.cv2.conv"), Kind::Point, links, to);
    }

    /// Spatial pyramid pooling: the maxima of ever wider neighbourhoods (5, 9, 13 pixels) beside the features themselves.
    fn sppf(&mut self, path: &str, from: View, to: View, half: usize) {
        let pooled = self.map(self.stride(from), &[half; 4]);
        self.conv(&format!("{path}.cv1.conv"), Kind::Point, from, pooled.part(0));
        for part in 0..3 {
            self.steps.push(Step::Pool { from: pooled.part(part), to: pooled.part(part + 1) });
        }
        self.conv(&format!("{path}.cv2.conv"), Kind::Point, pooled, to);
    }

    /// Layer 22 at one level. Classes first: boxes are only of interest where one of them is likely.
    fn level(&mut self, plan: &Plan, level: usize, features: View) -> Level {
        let (sides, classes) = plan.head_channels();
        let classes = self.branch(&format!("model.22.cv3.{level}"), features, classes, plan.classes);
        let sides = self.branch(&format!("model.22.cv2.{level}"), features, sides, 4 * BINS);
        Level { stride: self.stride(features), sides, classes }
    }

    /// Two 3×3 convolutions and a plain 1×1 one.
    fn branch(&mut self, path: &str, features: View, hidden: usize, output: usize) -> View {
        let stride = self.stride(features);
        let [first, second, last] = [hidden, hidden, output].map(|channels| self.map(stride, &[channels]));
        self.conv(&format!("{path}.0.conv"), Kind::Area, features, first);
        self.conv(&format!("{path}.1.conv"), Kind::Area, first, second);
        self.conv_with(&format!("{path}.2"), Kind::Point, second, last, Activation::None, None);
        last
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use kadr_shared::catalog::{NamedScale, Scale};

    use super::*;

    fn parts_of(view: View) -> impl Iterator<Item = (usize, usize)> {
        (view.from..view.to).map(move |part| (view.map, part))
    }

    #[test]
    fn every_step_reads_what_is_written_and_nothing_is_written_twice() {
        for scale in [NamedScale::N, NamedScale::S, NamedScale::M, NamedScale::L, NamedScale::X] {
            let graph = Graph::new(&Plan::new(Scale::Named(scale), 80));
            let mut written: HashSet<(usize, usize)> = parts_of(Graph::PICTURE).collect();
            for step in &graph.steps {
                let (reads, to) = match step {
                    Step::Conv(conv) => ([Some(conv.from), conv.shortcut], conv.to),
                    Step::Pool { from, to } | Step::Double { from, to } => ([Some(*from), None], *to),
                };
                for part in reads.into_iter().flatten().flat_map(parts_of) {
                    assert!(written.contains(&part), "{step:?}");
                }
                for part in parts_of(to) {
                    assert!(written.insert(part), "{step:?}");
                }
            }
            let all: usize = graph.maps.iter().map(|map| map.parts.len()).sum();
            assert_eq!(written.len(), all);
        }
    }

    #[test]
    fn strides_follow_from_the_steps() {
        let graph = Graph::new(&Plan::new(Scale::Named(NamedScale::N), 80));
        let stride = |view: View| graph.maps[view.map].stride;
        for step in &graph.steps {
            match step {
                Step::Conv(conv) => assert_eq!(stride(conv.to), stride(conv.from) * conv.kind.stride(), "{conv:?}"),
                Step::Pool { from, to } => assert_eq!(stride(*to), stride(*from)),
                Step::Double { from, to } => assert_eq!(2 * stride(*to), stride(*from)),
            }
        }
        assert_eq!(graph.levels.map(|level| level.stride), [8, 16, 32]);
    }
}
