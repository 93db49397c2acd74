//! A model as its users see it: a frame's planes in, objects in the source's pixels out. Candle stays behind it.
//!
//! Knows no file formats and no messages. For throughput let as many callers as there are cores share one detector, each by one
//! thread; for latency give a frame more threads; on a GPU give it several frames at a time.

mod pool;

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    time::{Duration, Instant},
};

use kadr_shared::{
    catalog::{Architecture, Model, UnknownName},
    geometry::{InputSize, Letterbox, Size},
    message::{
        detection::{Detection, ModelStamp},
        frame::{Colour, FrameHeader, i420_len},
    },
    settings::Ratio,
};

use self::pool::Pool;
pub use self::pool::Workspace;
use crate::{
    device::Device,
    fast::{CalibrationError, Cpu, EngineError, Precision},
    gpu::{Gpu, GpuError, Item},
    model::Plan,
    nms::{Candidate, Rivals},
    weights::{ReadError, Store, VerifiedWeights, WeightsError, parameters},
};

/// A loaded model: shared by all workers of a process.
#[derive(Debug)]
pub struct Detector {
    network: Network,
    model: Model,
    stamp: ModelStamp,
    /// Threads a frame, if nobody says otherwise.
    threads: NonZeroUsize,
}

#[derive(Debug)]
enum Network {
    Cpu(Pool),
    Gpu(Gpu),
}

/// How a model is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub device: Device,
    pub precision: Precision,
    /// The kernels that are used on a CPU: the best that this machine has, unless something else is to be tried.
    pub cpu: Cpu,
    /// Threads a frame, on a CPU.
    pub threads: NonZeroUsize,
}

impl Default for Options {
    fn default() -> Self {
        Self { device: Device::Cpu, precision: Precision::F32, cpu: Cpu::detect(), threads: NonZeroUsize::MIN }
    }
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
    rivals: Rivals,
    /// By class number.
    wanted: Vec<bool>,
}

/// What was found, and how long the network took.
#[derive(Debug)]
pub struct Found {
    /// By descending confidence; boxes in the source's pixels.
    pub detections: Vec<Detection>,
    /// For all the pictures of its batch.
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
    #[error("model {model} can't be computed on {device}")]
    Gpu { model: String, device: Device, source: GpuError },
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
    source: Trouble,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error("memory for single frames is there on CPUs only")]
    NoWorkspace,
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

    /// The same, among rivals of any class.
    #[must_use]
    pub fn class_agnostic(self) -> Self {
        Self { rivals: Rivals::All, ..self }
    }

    /// What a frame asks for.
    pub fn of(model: &Model, header: &FrameHeader) -> Result<Self, UnknownName> {
        let criteria = Self::new(model, header.confidence, header.iou, &header.classes)?;
        Ok(if header.class_agnostic { criteria.class_agnostic() } else { criteria })
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
        let network = match options.device {
            Device::Cpu => Network::Cpu(Pool::load(model, weights, &plan, options)?),
            Device::Cuda(number) => {
                let gpu = Gpu::cuda(&plan, &parameters(weights)?, options.precision, number);
                let failed = |source| LoadError::Gpu { model: model.name.to_string(), device: options.device, source };
                Network::Gpu(gpu.map_err(failed)?)
            }
        };
        let (sha256, precision) = (weights.file.sha256.clone(), options.precision.name().to_owned());
        let stamp = ModelStamp { name: model.name.clone(), sha256, precision };
        Ok(Self { network, model: model.clone(), stamp, threads: options.threads })
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Which weights answer, and how.
    pub fn stamp(&self) -> &ModelStamp {
        &self.stamp
    }

    /// What computes: the kernels of a CPU, or a GPU.
    pub fn path(&self) -> &'static str {
        match &self.network {
            Network::Cpu(pool) => pool.cpu().name(),
            Network::Gpu(_) => "cuda",
        }
    }

    /// The objects in a frame.
    pub fn detect(&self, picture: &Picture<'_>, criteria: &Criteria) -> Result<Found, DetectError> {
        self.detect_by(self.threads, picture, criteria)
    }

    /// The same by so many threads, on a CPU.
    fn detect_by(
        &self,
        threads: NonZeroUsize,
        picture: &Picture<'_>,
        criteria: &Criteria,
    ) -> Result<Found, DetectError> {
        let begun = Instant::now();
        let found = match &self.network {
            Network::Cpu(pool) => pool
                .find(picture, criteria, threads, |candidates| self.found(candidates, picture, begun.elapsed()))
                .map_err(Trouble::from),
            Network::Gpu(gpu) => gpu
                .analyse(picture.letterbox.input, &[item(picture, criteria)])
                .map(|candidates| self.chosen(candidates.concat(), picture, criteria, begun.elapsed()))
                .map_err(Trouble::from),
        };
        found.map_err(|source| self.failed(picture.letterbox.input, source))
    }

    /// The objects in several frames, in their order. A GPU computes those of a size together, a CPU one after another, each by
    /// so many threads.
    pub fn detect_all(
        &self,
        frames: &[(Picture<'_>, Criteria)],
        threads: NonZeroUsize,
    ) -> Vec<Result<Found, DetectError>> {
        let Network::Gpu(gpu) = &self.network else {
            return frames.iter().map(|(picture, criteria)| self.detect_by(threads, picture, criteria)).collect();
        };
        let mut order: Vec<_> = frames.iter().enumerate().collect();
        order.sort_by_key(|(_, (picture, _))| size(picture));
        let mut answers = Vec::with_capacity(frames.len());
        for batch in order.chunk_by(|(_, (a, _)), (_, (b, _))| size(a) == size(b)) {
            let (numbers, batch): (Vec<_>, Vec<_>) = batch.iter().copied().unzip();
            answers.extend(numbers.into_iter().zip(self.batch(gpu, &batch)));
        }
        answers.sort_by_key(|(number, _)| *number);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Frames of one size.
    fn batch(&self, gpu: &Gpu, frames: &[&(Picture<'_>, Criteria)]) -> Vec<Result<Found, DetectError>> {
        let begun = Instant::now();
        let items: Vec<_> = frames.iter().map(|(picture, criteria)| item(picture, criteria)).collect();
        let computed = match frames {
            [] => return Vec::new(),
            [(picture, _), ..] => gpu.analyse(picture.letterbox.input, &items),
        };
        match computed {
            Ok(computed) => {
                let elapsed = begun.elapsed();
                let frames = frames.iter().zip(computed);
                frames.map(|((picture, criteria), found)| Ok(self.chosen(found, picture, criteria, elapsed))).collect()
            }
            // One of them may be to blame, or all together are too much.
            Err(_) => frames.iter().map(|(picture, criteria)| self.detect(picture, criteria)).collect(),
        }
    }

    /// Analyses a grey picture, so that a frame of the usual size that is given so many threads finds everything ready.
    pub fn warm_up(&self, threads: NonZeroUsize) -> Result<(), DetectError> {
        let source = Size { width: WARM_UP.0, height: WARM_UP.1 };
        let letterbox = Letterbox::fit(source, InputSize::fitting(source));
        let planes = vec![128; i420_len(letterbox.input)];
        let picture = Picture { planes: &planes, letterbox, colour: Colour::default() };
        let criteria = Criteria { confidence: 1.0, iou: 1.0, rivals: Rivals::default(), wanted: Vec::new() };
        self.detect_by(threads, &picture, &criteria).map(|_| ())
    }

    /// Memory for pictures of one size, for who wants to have nothing allocated a frame. There is none on a GPU.
    pub fn workspace(&self, input: InputSize) -> Result<Workspace, DetectError> {
        let made = match &self.network {
            Network::Cpu(pool) => pool.workspace(input, self.threads.get()).map_err(Trouble::from),
            Network::Gpu(_) => Err(Trouble::NoWorkspace),
        };
        made.map_err(|source| self.failed(input, source))
    }

    fn failed(&self, input: InputSize, source: Trouble) -> DetectError {
        DetectError { model: self.model.name.to_string(), input, source }
    }

    fn chosen(
        &self,
        mut all: Vec<Candidate>,
        picture: &Picture<'_>,
        criteria: &Criteria,
        inference: Duration,
    ) -> Found {
        criteria.choose(&mut all);
        self.found(&all, picture, inference)
    }

    fn found(&self, candidates: &[Candidate], picture: &Picture<'_>, inference: Duration) -> Found {
        let detections = candidates.iter().filter_map(|c| self.detection(c, &picture.letterbox)).collect();
        Found { detections, inference }
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

/// What a camera of today sends.
const WARM_UP: (u32, u32) = (1280, 720);

fn item<'a>(picture: &Picture<'a>, criteria: &Criteria) -> Item<'a> {
    Item { planes: picture.planes, colour: picture.colour, confidence: criteria.confidence }
}

fn size(picture: &Picture<'_>) -> (u32, u32) {
    let input = picture.letterbox.input;
    (input.width(), input.height())
}

fn rounded(value: f32, steps: f64) -> f32 {
    ((f64::from(value) * steps).round() / steps) as f32
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
