//! A loaded network at some precision for some CPU, and the executors that workers make of it.

use std::sync::Arc;

use kadr_shared::{geometry::InputSize, message::frame::Colour};

use super::{
    calibration::Calibration,
    element::{Bf16, Precision},
    executor::{Pass, Program, Timed},
    kernels::{Computed, Cpu},
    network::{Cache, Parameters},
    picture,
    plan::Buffers,
    scales::{self, Scale},
};
use crate::{
    model::{ParameterError, Plan, Source},
    nms::Candidate,
    preprocess::PictureError,
};

/// How a network is to be computed.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    F32,
    Bf16,
    /// Bytes stand for what the calibration says.
    Int8(&'a Calibration),
}

/// A network: read-only, shared by all workers of a process.
#[derive(Debug)]
pub struct Engine {
    network: Network,
    cpu: Cpu,
}

#[derive(Debug)]
enum Network {
    F32(Cache<f32>),
    Bf16(Cache<Bf16>),
    Int8(Cache<u8>, Vec<Scale>),
}

/// A network or an executor that can't be made, or a picture that it can't take.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error("the calibration has ranges of {found} maps, the network has {wanted}: calibrate it again")]
    Calibration { wanted: usize, found: usize },
    #[error("threads to compute in can't be started")]
    Threads(#[from] std::io::Error),
    #[error("the network has a step that has no kernel for {cpu} at {precision}")]
    Kernel { cpu: Cpu, precision: Precision },
    #[error("a picture of {wanted} is wanted, {found} numbers were given")]
    Numbers { wanted: InputSize, found: usize },
    #[error(transparent)]
    Picture(#[from] PictureError),
}

impl Engine {
    /// Takes what `plan` needs out of `source`; fails at the first tensor that is missing or of another shape. `cpu` is
    /// taken as [`Cpu::Portable`] where this machine is not such a one.
    pub fn load(plan: &Plan, source: &dyn Source, mode: Mode<'_>, cpu: Cpu) -> Result<Self, EngineError> {
        let parameters = Arc::new(Parameters::load(plan, source)?);
        let cpu = if Cpu::here().any(|here| here == cpu) { cpu } else { Cpu::Portable };
        let network = match mode {
            Mode::F32 => Network::F32(Cache::new(parameters)),
            Mode::Bf16 => Network::Bf16(Cache::new(parameters)),
            Mode::Int8(calibration) => {
                let (wanted, found) = (parameters.graph.maps.len(), calibration.ranges.len());
                if wanted != found {
                    return Err(EngineError::Calibration { wanted, found });
                }
                let scales = scales::calibrated(&parameters.graph, calibration);
                Network::Int8(Cache::new(parameters), scales)
            }
        };
        Ok(Self { network, cpu })
    }

    pub fn precision(&self) -> Precision {
        match self.network {
            Network::F32(_) => Precision::F32,
            Network::Bf16(_) => Precision::Bf16,
            Network::Int8(..) => Precision::Int8,
        }
    }

    /// The kernels that are used.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Memory for pictures of one size, one at a time, each by so many threads.
    pub fn executor(&self, input: InputSize, threads: usize) -> Result<Executor, EngineError> {
        let plain = |parameters: &Parameters| scales::plain(&parameters.graph);
        let pass: Box<dyn AnyPass> = match &self.network {
            Network::F32(cache) => self.pass(cache, &plain(&cache.parameters), input, threads)?,
            Network::Bf16(cache) => self.pass(cache, &plain(&cache.parameters), input, threads)?,
            Network::Int8(cache, scales) => self.pass(cache, scales, input, threads)?,
        };
        Ok(Executor { pass, input })
    }

    fn pass<E: Computed>(
        &self,
        cache: &Cache<E>,
        scales: &[Scale],
        input: InputSize,
        threads: usize,
    ) -> Result<Box<Pass<E>>, EngineError> {
        let program = Program::new(cache, E::kernels(self.cpu), scales, input, Buffers::Shared);
        let program = program.ok_or(EngineError::Kernel { cpu: self.cpu, precision: E::PRECISION })?;
        Ok(Box::new(Pass::new(Arc::new(program), threads)?))
    }
}

/// One worker's memory and threads, for pictures of one size.
#[derive(Debug)]
pub struct Executor {
    pass: Box<dyn AnyPass>,
    input: InputSize,
}

/// A pass at whatever precision.
trait AnyPass: std::fmt::Debug + Send {
    fn set_planes(&mut self, planes: &[f32]);
    fn set_picture(&mut self, body: &[u8], input: InputSize, colour: Colour) -> Result<(), PictureError>;
    fn run(&mut self, confidence: f32, found: &mut Vec<Candidate>, timed: Option<&mut Vec<Timed>>);
}

impl<E: Computed> AnyPass for Pass<E> {
    fn set_planes(&mut self, planes: &[f32]) {
        if let Some((numbers, layout)) = self.picture() {
            picture::set_planes(numbers, layout, planes);
        }
    }

    fn set_picture(&mut self, body: &[u8], input: InputSize, colour: Colour) -> Result<(), PictureError> {
        match self.picture() {
            Some((numbers, layout)) => picture::set_i420(numbers, layout, body, input, colour),
            None => Ok(()),
        }
    }

    fn run(&mut self, confidence: f32, found: &mut Vec<Candidate>, timed: Option<&mut Vec<Timed>>) {
        Pass::run(self, confidence, found, timed);
    }
}

impl Executor {
    pub fn input(&self) -> InputSize {
        self.input
    }

    /// The candidates of a frame that are surer than `confidence`, by level and line, appended to `found`.
    ///
    /// `body`: I420 of the input's size.
    pub fn analyse(
        &mut self,
        body: &[u8],
        colour: Colour,
        confidence: f32,
        found: &mut Vec<Candidate>,
    ) -> Result<(), EngineError> {
        self.pass.set_picture(body, self.input, colour)?;
        self.pass.run(confidence, found, None);
        Ok(())
    }

    /// The same of a tensor's numbers: (3, height, width), f32 in 0..=1, RGB.
    pub fn analyse_planes(
        &mut self,
        planes: &[f32],
        confidence: f32,
        found: &mut Vec<Candidate>,
    ) -> Result<(), EngineError> {
        if planes.len() != 3 * self.input.width() as usize * self.input.height() as usize {
            return Err(EngineError::Numbers { wanted: self.input, found: planes.len() });
        }
        self.pass.set_planes(planes);
        self.pass.run(confidence, found, None);
        Ok(())
    }

    /// The candidates of the last picture once more: what is measured as the network alone.
    pub fn again(&mut self, confidence: f32, found: &mut Vec<Candidate>) {
        self.pass.run(confidence, found, None);
    }

    /// What the last picture's pass takes, step by step.
    pub fn profile(&mut self, confidence: f32) -> Vec<Timed> {
        let mut timed = Vec::new();
        self.pass.run(confidence, &mut Vec::new(), Some(&mut timed));
        timed
    }
}
