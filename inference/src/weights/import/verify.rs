//! A network that was read must compute: the fast path and the reference agree about a picture.
//!
//! That it was read rightly is seen where both find what a person finds; that is why a picture may be given.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use kadr_shared::geometry::{InputSize, Size, SizeError};

use super::Network;
use crate::{
    fast::{Cpu, Engine, EngineError, Mode},
    model::{Candidates, ParameterError, Parameters, Reference},
    nms::{self, Candidate, Rivals},
};

/// A side of a box may differ so much, in pixels of the input, and a score.
const BOX: f32 = 0.1;
const SCORE: f32 = 1e-3;
/// What counts as found.
const CONFIDENCE: f32 = 0.25;
const IOU: f32 = 0.7;

/// What a network is tried on.
#[derive(Debug, Clone)]
pub struct Picture {
    /// (3, height, width), f32 in 0..=1, RGB.
    pub planes: Vec<f32>,
    pub input: InputSize,
}

/// That both paths agree, and about what.
#[derive(Debug)]
pub struct Agreement {
    /// In pixels of the input.
    pub detections: Vec<Candidate>,
    pub anchors: usize,
    /// The largest differences: of a side of a box, in pixels, and of a score.
    pub box_off: f32,
    pub score_off: f32,
}

/// A network that can't be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the network does not take its weights")]
    Parameters(#[from] ParameterError),
    #[error("the fast path can't compute the network")]
    Engine(#[from] EngineError),
    #[error("the reference can't compute the network")]
    Reference(#[from] candle_core::Error),
    #[error("a picture has no size")]
    Size(#[from] SizeError),
    #[error("the network makes of a picture what is no number: its weights are damaged")]
    NotFinite,
    #[error(
        "the fast path and the reference disagree about a picture, by {box_off} pixels (at most {BOX}) and a score of \
         {score_off} (at most {SCORE}): the weights may be damaged"
    )]
    Apart { box_off: f32, score_off: f32 },
    #[error("the fast path tells of {found} places and the reference of {wanted}: this is an error of kadr's")]
    Count { found: usize, wanted: usize },
}

impl Picture {
    /// Waves and a few plain things, where there is no other picture.
    pub fn made_up() -> Result<Self, VerifyError> {
        let input = InputSize::new(Size { width: 320, height: 192 })?;
        let pixel = |channel: u32, x: u32, y: u32| {
            let (u, v, c) = (x as f32, y as f32, channel as f32);
            let wave = |length: f32| ((u + 0.6 * v + 9.0 * c) / length).sin();
            let thing = (x / 60 + 2 * (y / 45)).is_multiple_of(5);
            if thing { 0.2 + 0.25 * c } else { 0.5 + 0.2 * wave(41.0) + 0.1 * wave(9.0) + 0.05 * wave(1.7) }
        };
        let line = |channel, y| (0..input.width()).map(move |x| pixel(channel, x, y));
        let planes = (0..3).flat_map(|c| (0..input.height()).flat_map(move |y| line(c, y))).collect();
        Ok(Self { planes, input })
    }
}

/// Computes `picture` on the fast path and by the reference. Blocks.
pub fn verify(network: &Network, picture: &Picture) -> Result<Agreement, VerifyError> {
    let parameters = parameters(&network.tensors);
    let engine = Engine::load(&network.plan, &parameters, Mode::F32, Cpu::detect())?;
    let mut found = Vec::new();
    engine.executor(picture.input, 1)?.analyse_planes(&picture.planes, 0.0, &mut found)?;
    let reference = Reference::load(&network.plan, &parameters, &Device::Cpu)?;
    let (width, height) = (picture.input.width() as usize, picture.input.height() as usize);
    let input = Tensor::from_slice(&picture.planes, (1, 3, height, width), &Device::Cpu)?;
    compare(&found, &best(&reference.forward(&input)?)?)
}

fn parameters(tensors: &BTreeMap<String, Tensor>) -> Parameters {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
}

/// Each anchor's best class.
fn best(Candidates { boxes, scores }: &Candidates) -> candle_core::Result<Vec<Candidate>> {
    let boxes = boxes.squeeze(0)?.to_vec2::<f32>()?;
    let scores = scores.squeeze(0)?.t()?.to_vec2::<f32>()?;
    let candidate = |(bbox, row): (Vec<f32>, Vec<f32>)| {
        let best = row.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        let (class, score) = best.unwrap_or((0, f32::NAN));
        Candidate { class, score, bbox: bbox.try_into().unwrap_or([f32::NAN; 4]) }
    };
    Ok(boxes.into_iter().zip(scores).map(candidate).collect())
}

/// All anchors are compared, sure or not: what is made up looks like nothing.
fn compare(found: &[Candidate], wanted: &[Candidate]) -> Result<Agreement, VerifyError> {
    let finite = |c: &Candidate| c.score.is_finite() && c.bbox.iter().all(|v| v.is_finite());
    if !wanted.iter().all(finite) {
        return Err(VerifyError::NotFinite);
    }
    // A score that is 0 in single precision is not told of by the fast path.
    let wanted: Vec<_> = match found.len() == wanted.len() {
        true => wanted.to_vec(),
        false => wanted.iter().filter(|c| c.score > 0.0).copied().collect(),
    };
    if found.len() != wanted.len() {
        return Err(VerifyError::Count { found: found.len(), wanted: wanted.len() });
    }
    let (mut box_off, mut score_off) = (0f32, 0f32);
    for (a, b) in found.iter().zip(&wanted) {
        let sides = a.bbox.iter().zip(b.bbox).map(|(a, b)| (a - b).abs()).fold(0f32, largest);
        (box_off, score_off) = (largest(box_off, sides), largest(score_off, (a.score - b.score).abs()));
    }
    if box_off <= BOX && score_off <= SCORE {
        let mut detections: Vec<_> = found.iter().filter(|c| c.score > CONFIDENCE).copied().collect();
        nms::suppress(&mut detections, IOU, Rivals::SameClass);
        Ok(Agreement { detections, anchors: found.len(), box_off, score_off })
    } else {
        Err(VerifyError::Apart { box_off, score_off })
    }
}

/// What is no number is larger than all numbers.
fn largest(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Candidate = Candidate { class: 0, score: 0.5, bbox: [1.0, 2.0, 30.0, 40.0] };

    #[test]
    fn small_differences_are_agreement_and_larger_ones_are_not() {
        let with = |score: f32, x1: f32| Candidate { score, bbox: [x1, 2.0, 30.0, 40.0], ..ONE };
        let agreed = compare(&[with(0.5005, 1.05)], &[ONE]).unwrap();
        assert_eq!((agreed.detections.len(), agreed.anchors), (1, 1));
        for bad in [with(0.502, 1.0), with(0.5, 1.2), with(f32::NAN, 1.0), with(0.5, f32::NAN)] {
            assert!(matches!(compare(&[bad], &[ONE]), Err(VerifyError::Apart { .. })), "{bad:?}");
        }
        assert!(matches!(compare(&[ONE], &[with(f32::NAN, 1.0)]), Err(VerifyError::NotFinite)));
    }

    #[test]
    fn a_score_of_nothing_may_be_left_out_and_others_may_not() {
        let nothing = Candidate { score: 0.0, ..ONE };
        assert_eq!(compare(&[ONE], &[nothing, ONE]).unwrap().anchors, 1);
        assert!(matches!(compare(&[ONE], &[ONE, ONE]), Err(VerifyError::Count { found: 1, wanted: 2 })));
    }
}
