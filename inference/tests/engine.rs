//! The fast executor against the reference on candle: the same candidates from the same picture, at every scale, size,
//! precision and kind of CPU that there is here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers: what fails here fails the test"
)]

use candle_core::{Device, Tensor};
use kadr_inference::{
    fast::{Cpu, Engine, Mode},
    model::{Candidates, Parameters, Plan, Reference},
    nms::Candidate,
    testkit,
};
use kadr_shared::{
    catalog::{NamedScale, Scale},
    geometry::InputSize,
};

const TINY: Scale = Scale::Custom { depth: 0.1, width: 0.01, ratio: 1.0 };
const CALM: f64 = 0.8;
/// Surer than nothing: all candidates.
const ALL: f32 = 0.0;

struct Networks {
    plan: Plan,
    parameters: Parameters,
    reference: Reference,
}

impl Networks {
    fn new(scale: Scale, classes: usize) -> Self {
        let mut tensors = testkit::tensors(scale, classes, 5);
        if scale != TINY {
            // Random weights make signals grow from layer to layer; trained ones don't.
            for (_, weight) in
                tensors.iter_mut().filter(|(name, _)| name.ends_with(".conv.weight") && !name.contains("dfl"))
            {
                *weight = (&*weight * CALM).unwrap();
            }
        }
        let plan = Plan::new(scale, classes);
        let parameters: Parameters = tensors.into_iter().collect();
        let reference = Reference::load(&plan, &parameters, &Device::Cpu).unwrap();
        Self { plan, parameters, reference }
    }

    /// The same by the reference: all anchors, with their best classes.
    fn wanted(&self, picture: &Tensor) -> Vec<Candidate> {
        let Candidates { boxes, scores } = self.reference.forward(picture).unwrap();
        let boxes = boxes.squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        let scores = scores.squeeze(0).unwrap().t().unwrap().to_vec2::<f32>().unwrap();
        let best = |row: &[f32]| row.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        boxes
            .iter()
            .zip(&scores)
            .map(|(bbox, row)| {
                let (class, score) = best(row);
                Candidate { class, score, bbox: bbox.as_slice().try_into().unwrap() }
            })
            .collect()
    }

    fn found(&self, picture: &Tensor, mode: Mode<'_>, cpu: Cpu, threads: usize) -> Vec<Candidate> {
        let engine = Engine::load(&self.plan, &self.parameters, mode, cpu).unwrap();
        let (_, _, height, width) = picture.dims4().unwrap();
        let input: InputSize = format!("{width}x{height}").parse().unwrap();
        let mut executor = engine.executor(input, threads).unwrap();
        let planes = picture.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut found = Vec::new();
        executor.analyse_planes(&planes, ALL, &mut found).unwrap();
        // Once more: what the last picture left must not matter.
        let first = std::mem::take(&mut found);
        executor.analyse_planes(&planes, ALL, &mut found).unwrap();
        assert_eq!(first, found);
        found
    }
}

fn picture(width: usize, height: usize) -> Tensor {
    // Noise, the same each time.
    let noise = |i: usize| (i as u32 + 1).wrapping_mul(2_654_435_761).rotate_left(7).wrapping_mul(2_246_822_519) >> 24;
    let values: Vec<f32> = (0..3 * width * height).map(|i| noise(i) as f32 / 255.0).collect();
    Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu).unwrap()
}

/// The largest differences of a box's side in pixels, and of a score.
fn worst(found: &[Candidate], wanted: &[Candidate]) -> (f32, f32) {
    assert_eq!(found.len(), wanted.len());
    let mut worst = (0f32, 0f32);
    for (found, wanted) in found.iter().zip(wanted) {
        let sides = found.bbox.iter().zip(wanted.bbox).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        worst = (worst.0.max(sides), worst.1.max((found.score - wanted.score).abs()));
    }
    worst
}

#[test]
fn single_precision_is_the_references_on_every_cpu_at_any_size() {
    let networks = Networks::new(TINY, 3);
    for (width, height) in [(32, 32), (96, 64), (128, 256), (160, 32), (640, 384)] {
        let picture = picture(width, height);
        let wanted = networks.wanted(&picture);
        for cpu in Cpu::here() {
            for threads in [1, 2] {
                let (sides, score) = worst(&networks.found(&picture, Mode::F32, cpu, threads), &wanted);
                assert!(sides < 0.01 && score < 1e-4, "{cpu}, {width}×{height}: {sides} px, {score}");
            }
        }
    }
}

#[test]
fn single_precision_is_the_references_at_every_scale() {
    for scale in [NamedScale::N, NamedScale::S, NamedScale::M, NamedScale::L, NamedScale::X] {
        // Not a multiple of a block's channels.
        let networks = Networks::new(Scale::Named(scale), 90);
        let picture = picture(128, 64);
        let found = networks.found(&picture, Mode::F32, Cpu::detect(), 2);
        let (sides, score) = worst(&found, &networks.wanted(&picture));
        assert!(sides < 0.01 && score < 1e-4, "{scale:?}: {sides} px, {score}");
    }
}

#[test]
fn candidates_are_the_same_bit_for_bit_whether_other_boxes_are_computed_or_not() {
    let networks = Networks::new(TINY, 3);
    for (width, height) in [(128, 256), (160, 96)] {
        let picture = picture(width, height);
        let planes = picture.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let input: InputSize = format!("{width}x{height}").parse().unwrap();
        for cpu in Cpu::here() {
            for mode in [Mode::F32, Mode::Bf16] {
                let engine = Engine::load(&networks.plan, &networks.parameters, mode, cpu).unwrap();
                let mut executor = engine.executor(input, 1).unwrap();
                let mut all = Vec::new();
                executor.analyse_planes(&planes, ALL, &mut all).unwrap();
                let mut scores: Vec<f32> = all.iter().map(|candidate| candidate.score).collect();
                scores.sort_by(f32::total_cmp);
                let confidence = scores[scores.len() * 9 / 10];
                all.retain(|candidate| candidate.score > confidence);
                // Other memory, so that nothing is left of the boxes that were computed.
                let mut executor = engine.executor(input, 1).unwrap();
                let mut some = Vec::new();
                executor.analyse_planes(&planes, confidence, &mut some).unwrap();
                assert!(!some.is_empty());
                assert_eq!(some, all, "{cpu} {width}×{height}");
            }
        }
    }
}

#[test]
fn however_few_boxes_are_wanted_they_are_the_same() {
    // 36 squares of 4×4 at the finest level, of which each threshold leaves some more.
    let networks = Networks::new(TINY, 3);
    let picture = picture(192, 192);
    let planes = picture.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for cpu in Cpu::here() {
        let engine = Engine::load(&networks.plan, &networks.parameters, Mode::F32, cpu).unwrap();
        let mut executor = engine.executor("192x192".parse().unwrap(), 2).unwrap();
        let mut all = Vec::new();
        executor.analyse_planes(&planes, ALL, &mut all).unwrap();
        let mut scores: Vec<f32> = all.iter().map(|candidate| candidate.score).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        for confidence in scores.into_iter().take(120) {
            let wanted: Vec<Candidate> = all.iter().filter(|candidate| candidate.score > confidence).copied().collect();
            let mut found = Vec::new();
            executor.again(confidence, &mut found);
            assert_eq!(found, wanted, "{cpu}, above {confidence}");
        }
    }
}
