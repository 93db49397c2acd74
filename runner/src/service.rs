//! The runner as a service: competes for starts while it has free slots, and shows signs of life.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, PullConsumer, pull},
};
use futures::StreamExt;
use kadr_shared::{
    domain::EventData,
    id::RunnerId,
    log,
    nats::Nats,
    nodes,
    streams::{self, StreamsError},
    subjects,
    tail::Entry,
    telemetry::chain,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    attempt::{self, Shared, Start},
    board::Board,
    pipeline::Limits,
};

/// The consumer that all runners share.
const STARTS_CONSUMER: &str = "runners";
/// A start that was neither claimed nor refused in this time is offered to another runner.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// How long one request for a start waits at the server.
const PULL: Duration = Duration::from_secs(5);
/// Between two tries to get at the starts.
const RETRY: Duration = Duration::from_millis(500);
/// For attempts to close their files and report.
const GOODBYE: Duration = Duration::from_secs(10);

/// A runner's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Recordings lie in `recordings/{scenario}/{run}.mp4` below it.
    pub data: PathBuf,
    /// Scenarios at the same time.
    pub capacity: usize,
    pub limits: Limits,
}

impl Config {
    pub fn new(data: PathBuf) -> Self {
        Self { data, capacity: 16, limits: Limits::default() }
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

/// Runs until `shutdown`. `frames` is a connection of its own for frames and their results.
pub async fn run(config: Config, control: Nats, frames: Nats, shutdown: CancellationToken) -> Result<(), RunnerError> {
    streams::ensure(&control).await?;
    let recordings = config.recordings();
    tokio::fs::create_dir_all(&recordings)
        .await
        .map_err(|source| RunnerError::Folder { path: recordings.clone(), source })?;
    // A lease that was lost is not taken up again: the runner begins anew under another name.
    while !shutdown.is_cancelled() {
        let board = Board::new(RunnerId::generate(), config.capacity);
        let shared = Arc::new(Shared {
            control: control.clone(),
            frames: frames.clone(),
            board,
            recordings: recordings.clone(),
            limits: config.limits,
            stop: shutdown.child_token(),
            lease: CancellationToken::new(),
        });
        serve(shared, &shutdown).await;
    }
    control.flush().await;
    frames.flush().await;
    Ok(())
}

/// Serves under one lease, until it is lost or `shutdown`.
async fn serve(shared: Arc<Shared>, shutdown: &CancellationToken) {
    info!(runner = %shared.board.runner(), "ready for scenarios");
    let mut attempts = JoinSet::new();
    // Signs of life go on until the last scenario is let go.
    let quiet = CancellationToken::new();
    let beat = {
        let (shared, quiet) = (shared.clone(), quiet.clone());
        tokio::spawn(async move { shared.board.beat_until(&shared.control, &quiet, &shared.lease).await })
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = shared.lease.cancelled() => {}
        () = compete(&shared, &mut attempts) => {}
    }
    shared.stop.cancel();
    let ended = async { while attempts.join_next().await.is_some() {} };
    if tokio::time::timeout(GOODBYE, ended).await.is_err() {
        warn!("some scenarios were not let go in time");
    }
    quiet.cancel();
    if let Err(error) = beat.await {
        warn!(%error, "the signs of life broke");
    }
    if !shared.lease.is_cancelled()
        && let Err(error) = nodes::remove_runner(&shared.control, shared.board.runner()).await
    {
        warn!(error = chain(&error), "can't take the runner's key away: it expires");
    }
}

/// Takes starts one at a time, each only when there is a slot for it. Never returns.
async fn compete(shared: &Arc<Shared>, attempts: &mut JoinSet<()>) {
    let mut consumer = None;
    loop {
        let Ok(slot) = shared.board.slots().clone().acquire_owned().await else {
            // Slots are never closed.
            return std::future::pending().await;
        };
        while attempts.try_join_next().is_some() {}
        let (start, message) = next_start(shared, &mut consumer).await;
        let shared = shared.clone();
        attempts.spawn(async move {
            attempt::run(&shared, start, message).await;
            drop(slot);
        });
    }
}

async fn next_start(shared: &Shared, consumer: &mut Option<PullConsumer>) -> (Start, jetstream::Message) {
    loop {
        match pull_start(&shared.control, consumer).await {
            Ok(Some(message)) => {
                if let Some(start) = parse(&message) {
                    return (start, message);
                }
                // It can't be run by anybody of this version; offering it again would not help.
                if let Err(error) = message.ack_with(jetstream::AckKind::Term).await {
                    warn!(%error, "can't put an unreadable start aside");
                }
            }
            Ok(None) => {}
            Err(error) => {
                warn!(%error, "can't ask for starts, trying again");
                *consumer = None;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn pull_start(
    nats: &Nats,
    consumer: &mut Option<PullConsumer>,
) -> Result<Option<jetstream::Message>, async_nats::Error> {
    let consumer = match consumer {
        Some(consumer) => consumer,
        None => {
            let config = pull::Config {
                durable_name: Some(STARTS_CONSUMER.into()),
                filter_subject: subjects::STARTS.into(),
                ack_policy: AckPolicy::Explicit,
                ack_wait: ACK_WAIT,
                ..pull::Config::default()
            };
            let stream = nats.jetstream.get_stream_no_info(subjects::EVENTS).await?;
            consumer.insert(stream.get_or_create_consumer(STARTS_CONSUMER, config).await?)
        }
    };
    let mut batch = consumer.batch().max_messages(1).expires(PULL).messages().await?;
    batch.next().await.transpose()
}

fn parse(message: &jetstream::Message) -> Option<Start> {
    let info = message.info().ok()?;
    let entry = Entry {
        seq: info.stream_sequence,
        time: info.published.into(),
        pending: info.pending,
        message: message.clone(),
    };
    let event = log::read(&entry).inspect_err(|e| warn!(error = chain(e), "a start can't be read")).ok()?;
    match event.parse() {
        Ok(EventData::StartRequested { run, settings, .. }) => {
            Some(Start { scenario: event.scenario, seq: event.seq, run, settings: *settings })
        }
        Ok(_) => None,
        Err(error) => {
            warn!(error = chain(&error), "a start can't be understood");
            None
        }
    }
}
