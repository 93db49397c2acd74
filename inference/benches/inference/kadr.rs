//! kadr as it is measured: the network as a worker computes it, from the picture in its memory to candidates.

use std::time::Instant;

use kadr_inference::{
    fast::{Cpu, Engine, Executor, Precision},
    nms::Candidate,
};

use crate::{CONFIDENCE, network::Network, picture::Picture};

const WARM_UP: usize = 3;

/// Each precision by the best kernels that there are here; and f32 as machines without AVX-512 compute it.
pub(crate) fn engines(network: &Network) -> Vec<Engine> {
    let best = Cpu::detect();
    let plainer = Some(Cpu::Avx2).filter(|&avx2| avx2 < best).map(|avx2| (Precision::F32, avx2));
    let kinds = [(Precision::F32, best)].into_iter().chain(plainer);
    let kinds = kinds.chain([(Precision::Bf16, best), (Precision::Int8, best)]);
    kinds.map(|(precision, cpu)| engine(network, precision, cpu)).collect()
}

/// The one place that loads an engine. Int8 is not calibrated: what it finds is wrong, how fast it is is right.
fn engine(network: &Network, precision: Precision, cpu: Cpu) -> Engine {
    Engine::load(&network.plan, &network.parameters, precision, cpu).expect("the weights fit")
}

/// One worker, with a picture.
pub(crate) struct Worker {
    pub(crate) executor: Executor,
    found: Vec<Candidate>,
}

impl Worker {
    pub(crate) fn new(engine: &Engine, picture: &Picture, threads: usize) -> Self {
        let mut executor = engine.executor(picture.input, threads).expect("an executor");
        let mut found = Vec::new();
        executor.analyse(&picture.planes, CONFIDENCE, &mut found).expect("a picture of its size");
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
