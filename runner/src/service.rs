//! The runner as a service: shows signs of life, tries the starts that it gets, and hands over what it can't keep.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kadr_shared::{
    id::RunnerId,
    nats::Nats,
    nodes,
    secret::SecretKey,
    streams::{self, StreamsError},
    telemetry::chain,
};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use crate::{
    attempt::{self, Shared},
    board::Board,
    erase,
    follow::Follower,
    outputs::Hooks,
    peers::Peers,
    pipeline::Limits,
    starts::Starts,
    workers::Workers,
};

/// For attempts to close their files and report.
const GOODBYE: Duration = Duration::from_secs(10);
/// For the attempts of a lost lease to say that they let go. Nobody waits for it, and an outage may go on for longer than a
/// lease: what is said late is void, or spares a failure.
const FAREWELL: Duration = Duration::from_secs(60);

/// A runner's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Recordings lie in `recordings/{scenario}/{run}.mp4` below it, files of results beside them.
    pub data: PathBuf,
    /// Scenarios at the same time.
    pub capacity: usize,
    pub limits: Limits,
    /// What cameras' passwords and webhooks' secrets are encrypted with; none: none can be read.
    pub secret_key: Option<SecretKey>,
}

impl Config {
    pub fn new(data: PathBuf) -> Self {
        Self { data, capacity: 16, limits: Limits::default(), secret_key: None }
    }

    /// Where a run's annotated video lies once the run has ended.
    pub fn recordings(&self) -> PathBuf {
        self.data.join("recordings")
    }
}

/// What ends a runner.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    #[error("the streams are not as they have to be")]
    Streams(#[from] StreamsError),
    #[error("can't use the folder {path} for recordings: give another one by --data")]
    Folder { path: PathBuf, source: std::io::Error },
}

/// What all leases of a process share.
struct Base {
    config: Config,
    recordings: PathBuf,
    control: Nats,
    frames: Nats,
    log: Arc<Follower>,
    workers: Arc<Workers>,
    hooks: Arc<Hooks>,
    peers: Peers,
}

/// Runs until `shutdown`. `frames` is a connection of its own for frames and their results.
pub async fn run(config: Config, control: Nats, frames: Nats, shutdown: CancellationToken) -> Result<(), RunnerError> {
    streams::ensure_at_start(&control).await?;
    let recordings = config.recordings();
    tokio::fs::create_dir_all(&recordings)
        .await
        .map_err(|source| RunnerError::Folder { path: recordings.clone(), source })?;
    let log = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        log = Follower::start(control.clone()) => Arc::new(log),
    };
    let _erasing = AbortOnDropHandle::new(tokio::spawn(erase::follow(control.clone(), recordings.clone())));
    let workers = Arc::new(Workers::listen(frames.clone()));
    let peers = Peers::listen(control.clone());
    let hooks = Arc::new(Hooks::start(control.clone(), config.secret_key.clone()));
    let base = Base {
        config,
        recordings,
        control: control.clone(),
        frames: frames.clone(),
        log,
        workers,
        hooks: hooks.clone(),
        peers,
    };
    // A lease that was lost is not taken up again: the runner begins anew under another name, and the old one's attempts
    // say goodbye meanwhile.
    let mut farewells = JoinSet::new();
    while !shutdown.is_cancelled() {
        serve(&base, &shutdown, &mut farewells).await;
        while farewells.try_join_next().is_some() {}
    }
    let parting = async { while farewells.join_next().await.is_some() {} };
    if tokio::time::timeout(GOODBYE, parting).await.is_err() {
        warn!("some scenarios were not let go in time");
    }
    hooks.stop().await;
    control.flush().await;
    frames.flush().await;
    Ok(())
}

/// Serves under one lease, until it is lost or `shutdown`.
async fn serve(base: &Base, shutdown: &CancellationToken, farewells: &mut JoinSet<()>) {
    let board = Board::new(RunnerId::generate(), base.config.capacity);
    let lease = tokio::select! {
        () = shutdown.cancelled() => return,
        lease = board.appear(&base.control) => lease,
    };
    let shared = Arc::new(Shared {
        control: base.control.clone(),
        frames: base.frames.clone(),
        board,
        lease,
        log: base.log.clone(),
        workers: base.workers.clone(),
        hooks: base.hooks.clone(),
        recordings: base.recordings.clone(),
        limits: base.config.limits,
        secret_key: base.config.secret_key.clone(),
        stop: CancellationToken::new(),
    });
    info!(runner = %shared.board.runner(), capacity = base.config.capacity, "ready for scenarios");
    let mut attempts = JoinSet::new();
    // Signs of life go on until the last scenario is let go.
    let quiet = CancellationToken::new();
    let beat = {
        let (shared, quiet) = (shared.clone(), quiet.clone());
        tokio::spawn(async move { shared.board.beat_until(&shared.control, &quiet, &shared.lease).await })
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = shared.lease.lost() => {}
        () = compete(&shared, &base.peers, &mut attempts) => {}
    }
    shared.board.retire();
    shared.stop.cancel();
    let ended = async move { while attempts.join_next().await.is_some() {} };
    if shutdown.is_cancelled() && shared.lease.holds() {
        if tokio::time::timeout(GOODBYE, ended).await.is_err() {
            warn!("some scenarios were not let go in time");
        }
    } else {
        farewells.spawn(async move {
            // Bounded: at the end of it the log has long given the scenarios to others.
            let _ = tokio::time::timeout(FAREWELL, ended).await;
        });
    }
    quiet.cancel();
    if let Err(error) = beat.await {
        warn!(%error, "the signs of life broke");
    }
    if shared.lease.holds()
        && let Err(error) = nodes::remove_runner(&shared.control, shared.board.runner()).await
    {
        warn!(error = chain(&error), "can't take the runner's key away: it expires");
    }
}

/// Takes starts one at a time, each only when there is a slot for it. Never returns.
async fn compete(shared: &Arc<Shared>, peers: &Peers, attempts: &mut JoinSet<()>) {
    let mut starts = Starts::new(shared.control.clone());
    loop {
        let Ok(slot) = shared.board.slots().clone().acquire_owned().await else {
            // Slots are never closed.
            return std::future::pending().await;
        };
        while attempts.try_join_next().is_some() {}
        let offer = loop {
            let offer = starts.next().await;
            let (board, busy) = (&shared.board, shared.board.busy());
            // Once only, so that a start never goes round.
            if offer.is_first() && peers.should_have(board.runner(), busy, board.capacity()) {
                offer.hand_back().await;
            } else {
                break offer;
            }
        };
        let shared = shared.clone();
        attempts.spawn(async move {
            attempt::run(&shared, offer).await;
            drop(slot);
        });
    }
}
