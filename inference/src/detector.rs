//! A model as its users see it: a frame's planes in, objects in the source's pixels out. Candle stays behind it.
//!
//! Knows no file formats and no messages. For throughput let as many callers as there are cores share one detector of one
//! thread; for latency give it more threads a frame.

use std::{
    fs,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use kadr_shared::{
    catalog::{Architecture, Model, UnknownName},
    geometry::{InputSize, Letterbox},
    message::{
        detection::{Detection, ModelStamp},
        frame::{Colour, FrameHeader},
    },
    settings::Ratio,
};

use crate::{
    fast::{Calibration, CalibrationError, Cpu, Engine, EngineError, Executor, Mode, Precision},
    model::Plan,
    nms::{self, Candidate, Rivals},
    weights::{ReadError, Store, VerifiedWeights, WeightsError, parameters},
};

/// A loaded model: shared by all workers of a process.
#[derive(Debug)]
pub struct Detector {
    engine: Engine,
    threads: usize,
    model: Model,
    stamp: ModelStamp,
    /// Memory that nobody uses now; the one that was used last is at the end.
    idle: Mutex<Vec<Workspace>>,
}

/// How a model is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub precision: Precision,
    /// The kernels that are used: the best that this machine has, unless something else is to be tried.
    pub cpu: Cpu,
    /// Threads a frame.
    pub threads: NonZeroUsize,
}

impl Default for Options {
    fn default() -> Self {
        Self { precision: Precision::F32, cpu: Cpu::detect(), threads: NonZeroUsize::MIN }
    }
}

/// What one frame at a time needs.
#[derive(Debug)]
pub struct Workspace {
    executor: Executor,
    candidates: Vec<Candidate>,
}

/// Of sizes that are not seen any more, no more memory than this is kept.
const IDLE: usize = 8;

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
    rivals: Rivals,
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
    #[error("model {model} can't be computed with these weights")]
    Engine { model: String, source: EngineError },
    #[error("the calibration {path} can't be used")]
    Calibration { path: PathBuf, source: CalibrationError },
    #[error(
        "model {model} has no calibration for int8 ({path}): make one with `kadr models calibrate {model} --clip FILE`"
    )]
    NotCalibrated { model: String, path: PathBuf },
}

/// A frame that can't be analysed.
#[derive(Debug, thiserror::Error)]
#[error("model {model} can't analyse a picture of {input}")]
pub struct DetectError {
    model: String,
    input: InputSize,
    source: EngineError,
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
        Ok(Self { confidence: confidence.get() as f32, iou: iou.get() as f32, rivals: Rivals::default(), wanted })
    }

    /// What a frame asks for.
    pub fn of(model: &Model, header: &FrameHeader) -> Result<Self, UnknownName> {
        Self::new(model, header.confidence, header.iou, &header.classes)
    }
}

impl Detector {
    /// Finds, verifies and loads the weights of `model`. Blocks for as long as reading them takes.
    pub fn load(model: &Model, store: &Store, options: Options) -> Result<Self, LoadError> {
        Self::from_weights(model, &store.locate(model)?, options)
    }

    pub fn from_weights(model: &Model, weights: &VerifiedWeights, options: Options) -> Result<Self, LoadError> {
        let Architecture::Yolov8 = model.architecture;
        let plan = Plan::new(model.scale, model.labels.len());
        let sha256 = weights.file.sha256.clone();
        let calibration = match options.precision {
            Precision::Int8 => Some(calibration(model, weights)?),
            Precision::F32 | Precision::Bf16 => None,
        };
        let mode = match (&calibration, options.precision) {
            (Some(calibration), _) => Mode::Int8(calibration),
            (None, Precision::Bf16) => Mode::Bf16,
            (None, _) => Mode::F32,
        };
        let engine = Engine::load(&plan, &parameters(weights)?, mode, options.cpu)
            .map_err(|source| LoadError::Engine { model: model.name.to_string(), source })?;
        let precision = options.precision.name().to_owned();
        let stamp = ModelStamp { name: model.name.clone(), sha256, precision };
        Ok(Self { engine, threads: options.threads.get(), model: model.clone(), stamp, idle: Mutex::default() })
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Which weights answer, and how.
    pub fn stamp(&self) -> &ModelStamp {
        &self.stamp
    }

    /// The kernels that are used.
    pub fn cpu(&self) -> Cpu {
        self.engine.cpu()
    }

    /// The objects in a frame.
    pub fn detect(&self, picture: &Picture<'_>, criteria: &Criteria) -> Result<Found, DetectError> {
        let input = picture.letterbox.input;
        let failed = |source| DetectError { model: self.model.name.to_string(), input, source };
        let mut workspace = self.take(input).map_err(failed)?;
        let found = self.find(&mut workspace, picture, criteria).map_err(failed);
        self.put_back(workspace);
        found
    }

    fn find(
        &self,
        workspace: &mut Workspace,
        picture: &Picture<'_>,
        criteria: &Criteria,
    ) -> Result<Found, EngineError> {
        let begun = Instant::now();
        workspace.find(picture, criteria)?;
        let inference = begun.elapsed();
        let detections = workspace.candidates.iter().filter_map(|c| self.detection(c, &picture.letterbox)).collect();
        Ok(Found { detections, inference })
    }

    fn take(&self, input: InputSize) -> Result<Workspace, EngineError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match idle.iter().rposition(|workspace| workspace.executor.input() == input) {
            Some(at) => Ok(idle.remove(at)),
            None => {
                drop(idle);
                self.workspace(input)
            }
        }
    }

    fn put_back(&self, workspace: Workspace) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(workspace);
        if idle.len() > IDLE {
            idle.remove(0);
        }
    }

    /// Memory for pictures of one size.
    pub fn workspace(&self, input: InputSize) -> Result<Workspace, EngineError> {
        // As many candidates as there are anchors: then there is always room.
        let anchors = [8, 16, 32].map(|stride| (input.width() / stride * (input.height() / stride)) as usize);
        let candidates = Vec::with_capacity(anchors.iter().sum());
        Ok(Workspace { executor: self.engine.executor(input, self.threads)?, candidates })
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

impl Workspace {
    /// The objects in a frame, in the input's pixels, by descending score. Allocates nothing.
    pub fn find(&mut self, picture: &Picture<'_>, criteria: &Criteria) -> Result<&[Candidate], EngineError> {
        self.candidates.clear();
        self.executor.analyse(picture.planes, picture.colour, criteria.confidence, &mut self.candidates)?;
        let wanted = |class: usize| criteria.wanted.get(class).copied().unwrap_or(false);
        self.candidates.retain(|candidate| wanted(candidate.class));
        nms::suppress(&mut self.candidates, criteria.iou, criteria.rivals);
        Ok(&self.candidates)
    }
}

/// What stands beside the weights for int8.
fn calibration(model: &Model, weights: &VerifiedWeights) -> Result<Calibration, LoadError> {
    let path = calibration_path(weights);
    match fs::read(&path) {
        Ok(bytes) => Calibration::from_bytes(&bytes, &weights.file.sha256)
            .map_err(|source| LoadError::Calibration { path, source }),
        Err(_) => Err(LoadError::NotCalibrated { model: model.name.to_string(), path }),
    }
}

/// Where the calibration of these weights is kept.
pub fn calibration_path(weights: &VerifiedWeights) -> PathBuf {
    weights.path.with_extension("int8.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_as_they_are_written() {
        assert_eq!(rounded(0.123_45, 10_000.0).to_string(), "0.1235");
        assert_eq!(rounded(1234.567, 100.0).to_string(), "1234.57");
    }
}
