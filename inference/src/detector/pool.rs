//! The network on the CPU: an engine, and memory for each of the frames that are analysed at the same time.

use std::{
    fs,
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
};

use kadr_shared::{catalog::Model, geometry::InputSize};

use super::{Criteria, LoadError, Options, Picture, calibration_path};
use crate::{
    fast::{Calibration, Cpu, Engine, EngineError, Executor, Mode, Precision},
    model::Plan,
    nms::{self, Candidate},
    weights::{VerifiedWeights, parameters},
};

/// Of sizes that are not seen any more, no more memory than this is kept.
const IDLE: usize = 8;

#[derive(Debug)]
pub(super) struct Pool {
    engine: Engine,
    /// Memory that nobody uses now; the one that was used last is at the end.
    idle: Mutex<Vec<Workspace>>,
}

/// What one frame at a time needs.
#[derive(Debug)]
pub struct Workspace {
    executor: Executor,
    threads: usize,
    candidates: Vec<Candidate>,
}

impl Pool {
    pub(super) fn load(
        model: &Model,
        weights: &VerifiedWeights,
        plan: &Plan,
        options: Options,
    ) -> Result<Self, LoadError> {
        let calibration = match options.precision {
            Precision::Int8 => Some(calibration(model, weights)?),
            Precision::F32 | Precision::Bf16 => None,
        };
        let mode = match (&calibration, options.precision) {
            (Some(calibration), _) => Mode::Int8(calibration),
            (None, Precision::Bf16) => Mode::Bf16,
            (None, _) => Mode::F32,
        };
        let engine = Engine::load(plan, &parameters(weights)?, mode, options.cpu)
            .map_err(|source| LoadError::Engine { model: model.name.to_string(), source })?;
        Ok(Self { engine, idle: Mutex::default() })
    }

    /// The kernels that are used.
    pub(super) fn cpu(&self) -> Cpu {
        self.engine.cpu()
    }

    /// The objects in a frame, in the input's pixels, by descending score; computed by so many threads.
    pub(super) fn find<T>(
        &self,
        picture: &Picture<'_>,
        criteria: &Criteria,
        threads: NonZeroUsize,
        found: impl FnOnce(&[Candidate]) -> T,
    ) -> Result<T, EngineError> {
        let mut workspace = self.take(picture.letterbox.input, threads.get())?;
        let found = workspace.find(picture, criteria).map(found);
        self.put_back(workspace);
        found
    }

    fn take(&self, input: InputSize, threads: usize) -> Result<Workspace, EngineError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |workspace: &Workspace| workspace.executor.input() == input && workspace.threads == threads;
        match idle.iter().rposition(fits) {
            Some(at) => Ok(idle.remove(at)),
            None => {
                drop(idle);
                self.workspace(input, threads)
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

    pub(super) fn workspace(&self, input: InputSize, threads: usize) -> Result<Workspace, EngineError> {
        // As many candidates as there are anchors: then there is always room.
        let anchors = [8, 16, 32].map(|stride| (input.width() / stride * (input.height() / stride)) as usize);
        let candidates = Vec::with_capacity(anchors.iter().sum());
        Ok(Workspace { executor: self.engine.executor(input, threads)?, threads, candidates })
    }
}

impl Workspace {
    /// The objects in a frame, in the input's pixels, by descending score. Allocates nothing.
    pub fn find(&mut self, picture: &Picture<'_>, criteria: &Criteria) -> Result<&[Candidate], EngineError> {
        self.candidates.clear();
        self.executor.analyse(picture.planes, picture.colour, criteria.confidence, &mut self.candidates)?;
        criteria.choose(&mut self.candidates);
        Ok(&self.candidates)
    }
}

impl Criteria {
    /// Leaves the objects that are wanted.
    pub(super) fn choose(&self, candidates: &mut Vec<Candidate>) {
        candidates.retain(|candidate| self.wanted.get(candidate.class).copied().unwrap_or(false));
        nms::suppress(candidates, self.iou, self.rivals);
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
