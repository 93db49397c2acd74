//! A loaded network at some precision for some CPU, and the executors that workers make of it.

use std::sync::Arc;

use kadr_shared::geometry::InputSize;

use super::{
    element::{Bf16, Precision},
    executor::{Pass, Program, Timed},
    kernels::{Computed, Cpu},
    network::{Cache, Parameters},
    scales::{self, Scale},
};
use crate::{
    model::{ParameterError, Plan, Source},
    nms::Candidate,
};

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

/// An executor that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("threads to compute in can't be started")]
    Threads(#[from] std::io::Error),
    #[error("the network has a step that has no kernel for {cpu} at {precision}")]
    Kernel { cpu: Cpu, precision: Precision },
    #[error("a picture of {wanted} is wanted, {found} numbers were given")]
    Picture { wanted: InputSize, found: usize },
}

impl Engine {
    /// Takes what `plan` needs out of `source`; fails at the first tensor that is missing or of another shape.
    pub fn load(plan: &Plan, source: &dyn Source, precision: Precision, cpu: Cpu) -> Result<Self, ParameterError> {
        let parameters = Arc::new(Parameters::load(plan, source)?);
        let network = match precision {
            Precision::F32 => Network::F32(Cache::new(parameters)),
            Precision::Bf16 => Network::Bf16(Cache::new(parameters)),
            Precision::Int8 => {
                let scales = scales::plain(&parameters.graph);
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

    /// Memory and threads for pictures of one size, one at a time.
    pub fn executor(&self, input: InputSize, threads: usize) -> Result<Executor, EngineError> {
        fn pass<E: Computed>(
            cache: &Cache<E>,
            scales: &[Scale],
            cpu: Cpu,
            input: InputSize,
            threads: usize,
        ) -> Result<Box<Pass<E>>, EngineError> {
            let (width, height) = (input.width() as usize, input.height() as usize);
            let program = Program::new(cache, E::kernels(cpu), scales, width, height);
            let program = program.ok_or(EngineError::Kernel { cpu, precision: E::PRECISION })?;
            Ok(Box::new(Pass::new(Arc::new(program), threads)?))
        }
        let plain = |parameters: &Parameters| scales::plain(&parameters.graph);
        let pass: Box<dyn AnyPass> = match &self.network {
            Network::F32(cache) => pass(cache, &plain(&cache.parameters), self.cpu, input, threads)?,
            Network::Bf16(cache) => pass(cache, &plain(&cache.parameters), self.cpu, input, threads)?,
            Network::Int8(cache, scales) => pass(cache, scales, self.cpu, input, threads)?,
        };
        Ok(Executor { pass, input })
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
    fn run(&mut self, confidence: f32, found: &mut Vec<Candidate>, timed: Option<&mut Vec<Timed>>);
}

impl<E: Computed> AnyPass for Pass<E> {
    fn set_planes(&mut self, planes: &[f32]) {
        let Some((picture, layout)) = self.picture() else { return };
        let layout = layout.clone();
        let area = layout.width * layout.height;
        let picture = picture.as_mut();
        for (channel, plane) in planes.chunks_exact(area).enumerate() {
            for (y, line) in plane.chunks_exact(layout.width).enumerate() {
                for (x, value) in line.iter().enumerate() {
                    if let Some(number) = picture.get_mut(layout.at(0, y, x) + channel) {
                        *number = E::nearest(value * 255.0);
                    }
                }
            }
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

    /// The candidates of a picture that are surer than `confidence`, by level and line, appended to `found`.
    ///
    /// `planes`: (3, height, width), f32 in 0..=1, RGB.
    pub fn analyse(&mut self, planes: &[f32], confidence: f32, found: &mut Vec<Candidate>) -> Result<(), EngineError> {
        if planes.len() != 3 * self.input.width() as usize * self.input.height() as usize {
            return Err(EngineError::Picture { wanted: self.input, found: planes.len() });
        }
        self.pass.set_planes(planes);
        self.pass.run(confidence, found, None);
        Ok(())
    }

    /// The candidates of the last picture once more.
    pub fn again(&mut self, confidence: f32, found: &mut Vec<Candidate>) {
        self.pass.run(confidence, found, None);
    }

    /// What the last picture's pass takes again, step by step.
    pub fn profile(&mut self, confidence: f32) -> Vec<Timed> {
        let mut timed = Vec::new();
        self.pass.run(confidence, &mut Vec::new(), Some(&mut timed));
        timed
    }
}
