//! From the head's logits to candidates: at each pixel where a class is likely, the likeliest one and its box.

use super::{
    layout::{BLOCK, Layout},
    memory::Aligned,
    plan::{Gate, Place, Plan},
};
use crate::{
    model::{graph::Level, shape::BINS},
    nms::Candidate,
};

/// One level.
#[derive(Debug)]
pub(super) struct Head {
    /// Of the classes' map; that of the sides has the same size.
    pub(super) layout: Layout,
    pub(super) classes: usize,
    sides: Layout,
    /// Buffers.
    class_logits: usize,
    side_logits: usize,
    count: usize,
    stride: usize,
}

/// Which pixels of a level are wanted: a flag each, line by line.
#[derive(Debug)]
pub(super) struct Flags {
    /// Where a class is likely.
    pub(super) likely: Vec<bool>,
    /// There, and one pixel around.
    margin: Vec<bool>,
}

/// What a score is a sigmoid of; a little less, since scores are compared, too, when they are known.
pub(super) fn logit(score: f32) -> f32 {
    if score <= 0.0 {
        return f32::NEG_INFINITY;
    }
    let score = f64::from(score);
    (score / (1.0 - score)).ln() as f32 - 1e-3
}

impl Flags {
    pub(super) fn new(layout: &Layout) -> Self {
        let none = vec![false; layout.width * layout.height];
        Self { likely: none.clone(), margin: none }
    }

    pub(super) fn of(&self, gate: Gate) -> &[bool] {
        if gate.margin { &self.margin } else { &self.likely }
    }

    pub(super) fn mark_margin(&mut self, layout: &Layout) {
        let (width, height) = (layout.width, layout.height);
        self.margin.fill(false);
        for (pixel, _) in self.likely.iter().enumerate().filter(|(_, likely)| **likely) {
            let (y, x) = (pixel / width, pixel % width);
            for y in y.saturating_sub(1)..(y + 2).min(height) {
                let line = y * width;
                if let Some(around) = self.margin.get_mut(line + x.saturating_sub(1)..line + (x + 2).min(width)) {
                    around.fill(true);
                }
            }
        }
    }
}

impl Head {
    pub(super) fn new(level: &Level, classes: usize, plan: &Plan) -> Option<Self> {
        let plain = |map: usize| match plan.maps.get(map)?.place {
            Place::Plain(buffer) => Some(buffer),
            Place::Stored(_) | Place::Nowhere => None,
        };
        let layout = |map: usize| plan.maps.get(map).map(|planned| planned.layout.clone());
        Some(Self {
            layout: layout(level.classes.map)?,
            classes: level.classes.map,
            sides: layout(level.sides.map)?,
            class_logits: plain(level.classes.map)?,
            side_logits: plain(level.sides.map)?,
            count: classes,
            stride: level.stride,
        })
    }

    /// Appends what is surer than `confidence`, line by line.
    pub(super) fn decode(
        &self,
        flags: &Flags,
        plain: &[Aligned<f32>],
        bins: &[f32; BINS],
        confidence: f32,
        found: &mut Vec<Candidate>,
    ) {
        let numbers = |buffer: usize| plain.get(buffer).map(AsRef::as_ref).unwrap_or_default();
        let (classes, sides) = (numbers(self.class_logits), numbers(self.side_logits));
        for (pixel, _) in flags.likely.iter().enumerate().filter(|(_, likely)| **likely) {
            let (y, x) = (pixel / self.layout.width, pixel % self.layout.width);
            let block = |layout: &Layout, numbers: &'_ [f32], block: usize| -> [f32; BLOCK] {
                let from = layout.at(block, y, x);
                numbers.get(from..from + BLOCK).and_then(|b| b.try_into().ok()).unwrap_or([f32::NAN; BLOCK])
            };
            let mut best = (0, f32::NEG_INFINITY);
            for first in 0..self.layout.blocks() {
                for (lane, logit) in block(&self.layout, classes, first).into_iter().enumerate() {
                    let class = first * BLOCK + lane;
                    if logit > best.1 && class < self.count {
                        best = (class, logit);
                    }
                }
            }
            let score = 1.0 / (1.0 + (-best.1).exp());
            if score > confidence {
                let [left, top, right, bottom] =
                    [0, 1, 2, 3].map(|side| distance(&block(&self.sides, sides, side), bins));
                let (cx, cy, stride) = (x as f32 + 0.5, y as f32 + 0.5, self.stride as f32);
                let bbox = [cx - left, cy - top, cx + right, cy + bottom].map(|at| at * stride);
                found.push(Candidate { class: best.0, score, bbox });
            }
        }
    }
}

/// The mean of the distribution over the bins that its logits tell.
fn distance(logits: &[f32; BINS], bins: &[f32; BINS]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights = logits.map(|logit| (logit - largest).exp());
    let total: f32 = weights.iter().sum();
    weights.iter().zip(bins).map(|(weight, bin)| weight * bin).sum::<f32>() / total
}
