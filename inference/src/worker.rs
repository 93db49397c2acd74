//! The service: pulls frames of its models from NATS, analyses them, publishes what was found.
//!
//! For each model two pullers (cameras' and files' frames) feed one pair of small queues, from which lanes take, each a frame
//! at a time. A frame is acknowledged after its result has
//! been sent. Nothing that happens to the connection, the stream or a frame ends the service. Which detections are kept or
//! shown is not decided here.

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
    id::ModelName,
    nats::Nats,
    subjects::FrameClass,
};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{keeper::Keeper, lane::Lane, models::Slot, puller::Puller};
use crate::{detector::Options, weights::Store};

/// A frame that is not acknowledged in this time is given to another worker. One in hand is kept alive, so that only the
/// frames of a worker that is gone or frozen wait for it.
const ACK_WAIT: Duration = Duration::from_secs(2);

/// A request to the server or a publication must be done in this time.
const NETWORK_PATIENCE: Duration = Duration::from_secs(5);

/// Frames in hand at shutdown must be finished in this time; later ones are left to other workers.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(30);

/// What a worker serves, and with what.
#[derive(Debug, Clone)]
pub struct Config {
    pub catalog: Catalog,
    pub store: Store,
    /// None: all of the catalogue. Weights are loaded with a model's first frame.
    pub models: Vec<ModelName>,
    /// Frames that are analysed at the same time.
    pub lanes: NonZeroUsize,
    /// How, and by how many threads each.
    pub options: Options,
}

impl Config {
    /// All models of `catalog`, and as many frames at a time as the cores have threads for. One thread a frame has more
    /// done, more have each frame done sooner.
    pub fn new(catalog: Catalog, store: Store, options: Options) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let lanes = NonZeroUsize::new(cores / options.threads).unwrap_or(NonZeroUsize::MIN);
        Self { catalog, store, models: Vec::new(), lanes, options }
    }
}

/// Why a worker can't start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("can't serve a model that is not in the catalogue")]
    Model(#[from] UnknownName),
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
    let lanes = config.lanes.get();
    // Frames a pull: one, but where lanes are many and fast a pull's round trip would leave them idle.
    let ahead = (lanes / 4).clamp(1, 4);
    let (entry, queues) = queues::queues(ahead);
    let queues = Arc::new(queues);
    let keeper = Arc::new(Keeper::default());
    let stop = shutdown.child_token();
    let mut pullers = JoinSet::new();
    let mut working = JoinSet::new();
    for name in &names {
        let slot = Arc::new(Slot::new(config.catalog.model(name)?.clone(), config.store.clone(), config.options));
        for class in [FrameClass::Live, FrameClass::Batch] {
            let puller = Puller::new(nats.clone(), slot.clone(), class, ahead, keeper.clone());
            pullers.spawn(puller.run(entry.of(class), stop.clone()));
        }
    }
    // The pullers hold the only ways in: when the last one ends, the queues run dry and the lanes end.
    drop(entry);
    for _ in 0..lanes {
        working.spawn(Lane::new(nats.clone()).run(queues.clone()));
    }
    let keeping = tokio::spawn(keeper.run());
    let showing = tokio::spawn(signs::run(nats.clone(), names.clone()));
    info!(models = ?names.iter().map(ModelName::as_str).collect::<Vec<_>>(), lanes, options = ?config.options, "inference is serving");

    let ended = tokio::select! {
        // First: after a shutdown the pullers end, too.
        biased;
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = pullers.join_next() => Err(ended.map_or_else(WorkerError::from, |()| WorkerError::Ended)),
        Some(ended) = working.join_next() => Err(ended.map_or_else(WorkerError::from, |()| WorkerError::Ended)),
    };
    // Whatever ended it: the pullers stop, their frames are finished, and with the last one the lanes end.
    stop.cancel();
    showing.abort();
    let finished = async {
        let (pulled, worked) = futures::join!(all(pullers), all(working));
        pulled.and(worked)
    };
    let finished = tokio::time::timeout(SHUTDOWN_PATIENCE, finished).await.unwrap_or(Err(WorkerError::Shutdown));
    keeping.abort();
    nats.flush().await;
    ended.and(finished)
}

/// Waits for all of them. Dropped before that, it ends them.
async fn all(mut tasks: JoinSet<()>) -> Result<(), WorkerError> {
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}
