//! The service: pulls frames of its models from NATS, analyses them, publishes what was found.
//!
//! For each model two pullers (cameras' and files' frames) feed one pair of small queues, from which lanes take, each a frame
//! or a batch at a time. A frame is acknowledged after its result has been sent. A model is served, and signs of life are
//! shown for it, once it is loaded and warm, if it is one that was asked for. Nothing that happens to the connection, the
//! stream or a frame ends the service. Which detections are kept or shown is not decided here.

mod cores;
mod crew;
mod identity;
mod keeper;
mod lane;
mod models;
mod puller;
mod queues;
mod signs;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use kadr_shared::{
    catalog::{Catalog, UnknownName},
    id::{ModelName, WorkerId},
    nats::Nats,
    settings::DEFAULT_MODEL,
    subjects::FrameClass,
};
use tokio::task::{JoinError, JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::info;

use self::{cores::Cores, crew::Crew, keeper::Keeper, lane::Lane, models::Slot, puller::Puller};
use crate::{detector::Options, device::Device, weights::Store};

/// A frame that is not acknowledged in this time is given to another worker. One in hand is kept alive, so that only the
/// frames of a worker that is gone or frozen wait for it.
const ACK_WAIT: Duration = Duration::from_secs(2);

/// A request to the server or a publication must be done in this time.
const NETWORK_PATIENCE: Duration = Duration::from_secs(5);

/// Frames in hand at shutdown must be finished in this time; later ones are left to other workers.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(30);

/// Frames of a GPU's batch.
const GPU_BATCH: usize = 8;

/// Threads that a camera's frame is given, if they are free. More have not been measured.
const LIVE_THREADS: usize = 4;

/// What a worker serves, and with what.
#[derive(Debug, Clone)]
pub struct Config {
    pub catalog: Catalog,
    pub store: Store,
    /// They are loaded and warm before they are served. None: all of the catalogue; of these, only the default model is
    /// loaded at once, if its weights are there, and the others with their first frame.
    pub models: Vec<ModelName>,
    /// Frames that are analysed at the same time.
    pub lanes: NonZeroUsize,
    /// Frames that each of them analyses together, if they are there: more than one is for GPUs.
    pub batch: NonZeroUsize,
    /// How, and by how many threads each.
    pub options: Options,
    /// By how many threads a camera's frame, if they are free: on a CPU it is done sooner.
    pub live_threads: NonZeroUsize,
}

impl Config {
    /// All models of `catalog`. On a CPU as many frames at a time as the cores have threads for: one thread a frame has
    /// more done, more have each frame done sooner, which matters for cameras' frames. On a GPU one batch is prepared while
    /// another one is computed.
    pub fn new(catalog: Catalog, store: Store, options: Options) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (lanes, batch, live) = match options.device {
            Device::Cpu => (cores / options.threads, 1, cores.min(LIVE_THREADS)),
            Device::Cuda(_) => (2, GPU_BATCH, 1),
        };
        let at_least_one = |count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        let [lanes, batch, live_threads] = [lanes, batch, live].map(at_least_one);
        Self { catalog, store, models: Vec::new(), lanes, batch, options, live_threads }
    }
}

/// Why a worker can't start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("can't serve a model that is not in the catalogue")]
    Model(#[from] UnknownName),
    #[error("the threads that compute can't be started")]
    Crew(#[source] std::io::Error),
    #[error("a part of the worker ended by itself")]
    Ended,
    #[error("a part of the worker failed")]
    Failed(#[from] JoinError),
    #[error("frames in hand were not finished within {} s of the shutdown", SHUTDOWN_PATIENCE.as_secs())]
    Shutdown,
}

/// Serves frames until `shutdown`, then finishes those in hand and returns.
pub async fn run(config: Config, nats: Nats, shutdown: CancellationToken) -> Result<(), WorkerError> {
    let names: Vec<_> = match config.models.as_slice() {
        [] => config.catalog.models().iter().map(|m| m.name.clone()).collect(),
        some => some.to_vec(),
    };
    let (lanes, batch) = (config.lanes.get(), config.batch.get());
    let cores = Arc::new(Cores::new(config.lanes, config.options.threads, config.live_threads));
    let crew = Arc::new(Crew::new(config.options.device).map_err(WorkerError::Crew)?);
    // Frames a pull: one, but where lanes are many and fast a pull's round trip would leave them idle.
    let ahead = (lanes / 4).clamp(1, 4).max(batch);
    let (entry, queues) = queues::queues(ahead);
    let queues = Arc::new(queues);
    let keeper = Arc::new(Keeper::default());
    let stop = shutdown.child_token();
    let worker = WorkerId::generate();
    let mut serving = JoinSet::new();
    let mut working = JoinSet::new();
    for name in &names {
        let model = config.catalog.model(name)?.clone();
        let slot = Arc::new(Slot::new(model, config.store.clone(), config.options, cores.live(), crew.clone()));
        let pullers = [FrameClass::Live, FrameClass::Batch].map(|class| {
            let puller = Puller::new(nats.clone(), slot.clone(), class, ahead, keeper.clone());
            puller.run(entry.of(class), stop.clone())
        });
        let first = match config.models.as_slice() {
            [] if name.as_str() == DEFAULT_MODEL => First::WarmUpIfThere,
            [] => First::Nothing,
            _ => First::WarmUp,
        };
        let signs = signs::run(nats.clone(), worker.clone(), cores.cameras_at_once() * batch, slot.clone());
        serving.spawn(serve(slot, first, pullers, signs, stop.clone()));
    }
    // The pullers hold the only ways in: when the last one ends, the queues run dry and the lanes end.
    drop(entry);
    for _ in 0..lanes {
        working.spawn(Lane::new(nats.clone(), batch, cores.clone(), crew.clone()).run(queues.clone()));
    }
    let keeping = tokio::spawn(keeper.run());
    let models: Vec<_> = names.iter().map(ModelName::as_str).collect();
    info!(%worker, ?models, lanes, batch, options = ?config.options, "inference is there");

    let ended = tokio::select! {
        // First: after a shutdown the pullers end, too.
        biased;
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = serving.join_next() => Err(ended.map_or_else(WorkerError::from, |()| WorkerError::Ended)),
        Some(ended) = working.join_next() => Err(ended.map_or_else(WorkerError::from, |()| WorkerError::Ended)),
    };
    // Whatever ended it: the pullers stop, their frames are finished, and with the last one the lanes end.
    stop.cancel();
    let finished = async {
        let (pulled, worked) = futures::join!(all(serving), all(working));
        pulled.and(worked)
    };
    let finished = tokio::time::timeout(SHUTDOWN_PATIENCE, finished).await.unwrap_or(Err(WorkerError::Shutdown));
    keeping.abort();
    nats.flush().await;
    ended.and(finished)
}

/// What comes before a model is served.
enum First {
    Nothing,
    /// If it fails, frames are taken all the same: to be refused with the reason.
    WarmUp,
    WarmUpIfThere,
}

/// Serves one model until `stop`.
async fn serve(
    slot: Arc<Slot>,
    first: First,
    [live, batch]: [impl Future<Output = ()>; 2],
    signs: impl Future<Output = ()> + Send + 'static,
    stop: CancellationToken,
) {
    let warm_up = async {
        let wanted = match first {
            First::Nothing => false,
            First::WarmUp => true,
            First::WarmUpIfThere => slot.is_there().await,
        };
        if wanted {
            // It says by itself what is wrong.
            let _ = slot.detector().await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => return,
        () = warm_up => {}
    }
    let _showing = AbortOnDropHandle::new(tokio::spawn(signs));
    futures::join!(live, batch);
}

/// Waits for all of them. Dropped before that, it ends them.
async fn all(mut tasks: JoinSet<()>) -> Result<(), WorkerError> {
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}
