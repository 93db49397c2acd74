//! A model as its users see it: a frame's planes in, objects in the source's pixels out. Candle stays behind it.
//!
//! Knows no file formats, no messages and no threads: it computes in the rayon pool that its caller is in. For
//! throughput give every worker a pool of one thread (`ThreadPool::install`) and share one detector among them.

use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use kadr_shared::{
    catalog::{Architecture, Model, UnknownName},
    geometry::Letterbox,
    message::{
        detection::{Detection, ModelStamp},
        frame::{Colour, FrameHeader},
    },
    settings::Ratio,
};

use crate::{
    model::{Candidates, ParameterError, Plan, Reference},
    nms::{self, Candidate},
    preprocess::{self, PictureError},
    weights::{ReadError, Store, VerifiedWeights, WeightsError, parameters},
};

/// A loaded model.
#[derive(Debug)]
pub struct Detector {
    network: Reference,
    model: Model,
    stamp: ModelStamp,
}

/// One frame, as it comes over the wire.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// I420 of exactly the letterbox's input size.
    pub planes: &'a [u8],
    pub letterbox: Letterbox,
    pub colour: Colour,
}

/// Which objects are wanted. Made by [`Criteria::new`], which knows whether a class exists.
#[derive(Debug, Clone)]
pub struct Criteria {
    confidence: f32,
    iou: f32,
    /// By class number.
    wanted: Vec<bool>,
}

/// What was found, and how long the network took.
#[derive(Debug)]
pub struct Found {
    /// By descending confidence; boxes in the source's pixels.
    pub detections: Vec<Detection>,
    pub inference: Duration,
}

/// A model that can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the weights do not fit model {model}")]
    Parameters { model: String, source: ParameterError },
}

/// A frame that can't be analysed.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error(transparent)]
    Picture(#[from] PictureError),
    #[error("model {model} can't compute a picture of {letterbox}")]
    Network { model: String, letterbox: String, source: Box<candle_core::Error> },
}

impl Criteria {
    /// `classes` are labels of `model`; none: all.
    pub fn new(model: &Model, confidence: Ratio, iou: Ratio, classes: &[String]) -> Result<Self, UnknownName> {
        let mut wanted = vec![false; model.labels.len()];
        for class in model.classes(classes)? {
            if let Some(flag) = wanted.get_mut(class) {
                *flag = true;
            }
        }
        Ok(Self { confidence: confidence.get() as f32, iou: iou.get() as f32, wanted })
    }

    /// What a frame asks for.
    pub fn of(model: &Model, header: &FrameHeader) -> Result<Self, UnknownName> {
        Self::new(model, header.confidence, header.iou, &header.classes)
    }
}

impl Detector {
    /// Finds, verifies and loads the weights of `model`. Blocks for as long as reading them takes.
    pub fn load(model: &Model, store: &Store) -> Result<Self, LoadError> {
        Self::from_weights(model, &store.locate(model)?)
    }

    pub fn from_weights(model: &Model, weights: &VerifiedWeights) -> Result<Self, LoadError> {
        let Architecture::Yolov8 = model.architecture;
        let plan = Plan::new(model.scale, model.labels.len());
        let network = Reference::load(&plan, &parameters(weights)?, &Device::Cpu)
            .map_err(|source| LoadError::Parameters { model: model.name.to_string(), source })?;
        let stamp =
            ModelStamp { name: model.name.clone(), sha256: weights.file.sha256.clone(), precision: "f32".into() };
        Ok(Self { network, model: model.clone(), stamp })
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Which weights answer.
    pub fn stamp(&self) -> &ModelStamp {
        &self.stamp
    }

    /// The objects in a frame.
    pub fn detect(&self, picture: &Picture<'_>, criteria: &Criteria) -> Result<Found, DetectError> {
        let letterbox = &picture.letterbox;
        let input = preprocess::picture(picture.planes, letterbox.input, picture.colour)?;
        let network = |e: candle_core::Error| DetectError::Network {
            model: self.model.name.to_string(),
            letterbox: letterbox.input.to_string(),
            source: e.into(),
        };
        let begun = Instant::now();
        let candidates = self.network.forward(&input).map_err(network)?;
        let inference = begun.elapsed();
        let passed = passed(&candidates, criteria).map_err(network)?;
        let detections =
            nms::suppress(passed, criteria.iou).iter().filter_map(|c| self.detection(c, letterbox)).collect();
        Ok(Found { detections, inference })
    }

    /// In the source's pixels; `None` for a box that lies wholly in the letterbox's border.
    fn detection(&self, candidate: &Candidate, letterbox: &Letterbox) -> Option<Detection> {
        let [x1, y1, x2, y2] = letterbox.to_source(candidate.bbox).map(|v| rounded(v, 100.0));
        (x1 < x2 && y1 < y2).then(|| Detection {
            class: candidate.class,
            label: self.model.labels.get(candidate.class).cloned().unwrap_or_default(),
            confidence: rounded(candidate.score, 10_000.0),
            bbox: [x1, y1, x2, y2],
        })
    }
}

fn rounded(value: f32, steps: f64) -> f32 {
    ((f64::from(value) * steps).round() / steps) as f32
}

/// Each anchor's best class, where it is wanted and sure enough.
fn passed(Candidates { boxes, scores }: &Candidates, criteria: &Criteria) -> candle_core::Result<Vec<Candidate>> {
    let (_, _, anchors) = scores.dims3()?;
    let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
    let (boxes, scores) = (flat(boxes)?, flat(scores)?);
    let mut best = vec![(0, f32::NEG_INFINITY); anchors];
    for (class, row) in scores.chunks_exact(anchors).enumerate() {
        for (best, &score) in best.iter_mut().zip(row) {
            if score > best.1 {
                *best = (class, score);
            }
        }
    }
    let wanted = |class: usize| criteria.wanted.get(class).copied().unwrap_or(false);
    Ok(best
        .into_iter()
        .zip(boxes.as_chunks::<4>().0)
        .filter(|((class, score), _)| *score > criteria.confidence && wanted(*class))
        .map(|((class, score), &bbox)| Candidate { class, score, bbox })
        .collect())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn candidates(scores: &[[f32; 3]; 2]) -> Candidates {
        let boxes = [[0f32, 0.0, 1.0, 1.0], [1.0, 1.0, 2.0, 2.0], [2.0, 2.0, 3.0, 3.0]];
        Candidates {
            boxes: Tensor::new(&boxes, &Device::Cpu).unwrap(),
            scores: Tensor::new(scores, &Device::Cpu).unwrap(),
        }
    }

    #[test]
    fn an_anchor_counts_as_its_best_class_if_that_is_wanted_and_surer_than_the_threshold() {
        let scores = candidates(&[[0.25, 0.3, f32::NAN], [0.1, 0.9, 0.26]]);
        let criteria = |wanted: &[bool]| Criteria { confidence: 0.25, iou: 0.7, wanted: wanted.to_vec() };
        let found = passed(&scores, &criteria(&[true, true])).unwrap();
        assert_eq!(found.iter().map(|c| (c.class, c.score)).collect::<Vec<_>>(), [(1, 0.9), (1, 0.26)]);
        assert_eq!(found[0].bbox, [1.0, 1.0, 2.0, 2.0]);
        assert!(passed(&scores, &criteria(&[true, false])).unwrap().is_empty(), "0.3 of class 0 lost to class 1");
    }

    #[test]
    fn numbers_are_rounded_as_they_are_written() {
        assert_eq!(rounded(0.123_45, 10_000.0).to_string(), "0.1235");
        assert_eq!(rounded(1234.567, 100.0).to_string(), "1234.57");
    }
}
