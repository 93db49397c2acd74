//! kadr as it is measured: the network as a worker computes it, from the picture in its memory to candidates.

use std::time::Instant;

use kadr_inference::{
    fast::{Calibrator, Cpu, Engine, Executor, Mode},
    nms::Candidate,
};

use crate::{CONFIDENCE, network::Network, picture::Picture};

const WARM_UP: usize = 3;

/// Each precision by the best kernels that there are here; f32 also as machines without AVX-512 compute it, the others as
/// machines without AMX do. Int8 is calibrated on the picture itself.
pub(crate) fn engines(network: &Network, picture: &Picture) -> Vec<Engine> {
    let Network { plan, parameters, .. } = network;
    let mut calibrator = Calibrator::new(plan, parameters, "", picture.input, 1).expect("the weights fit");
    calibrator.add_planes(&picture.planes).expect("a picture of its size");
    let calibration = calibrator.finish();
    let best = Cpu::detect();
    let plainer = |mode, cpu| Some((mode, cpu)).filter(|_| cpu < best);
    let kinds = [
        Some((Mode::F32, best)),
        plainer(Mode::F32, Cpu::Avx2),
        Some((Mode::Bf16, best)),
        plainer(Mode::Bf16, Cpu::Avx512Vnni),
        Some((Mode::Int8(&calibration), best)),
        plainer(Mode::Int8(&calibration), Cpu::Avx512Vnni),
    ];
    kinds
        .into_iter()
        .flatten()
        .map(|(mode, cpu)| Engine::load(plan, parameters, mode, cpu).expect("the weights fit"))
        .collect()
}

/// One worker, with a picture.
pub(crate) struct Worker {
    pub(crate) executor: Executor,
    pub(crate) found: Vec<Candidate>,
}

impl Worker {
    pub(crate) fn new(engine: &Engine, picture: &Picture, threads: usize) -> Self {
        let mut executor = engine.executor(picture.input, threads).expect("an executor");
        let mut found = Vec::new();
        executor.analyse_planes(&picture.planes, CONFIDENCE, &mut found).expect("a picture of its size");
        let mut worker = Self { executor, found };
        (0..WARM_UP).for_each(|_| worker.pass());
        worker
    }

    pub(crate) fn pass(&mut self) {
        self.found.clear();
        self.executor.again(CONFIDENCE, &mut self.found);
    }

    /// Milliseconds of each pass.
    pub(crate) fn times(&mut self, passes: usize) -> Vec<f64> {
        let mut timed = || {
            let begun = Instant::now();
            self.pass();
            begun.elapsed().as_secs_f64() * 1e3
        };
        (0..passes).map(|_| timed()).collect()
    }

    pub(crate) fn candidates(&self) -> usize {
        self.found.len()
    }
}
