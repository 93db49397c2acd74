//! The projection: follows the log and writes what it says into the read model.
//!
//! Events and checkpoint are committed together, so after any end it goes on where it was. It never skips an event: what
//! it can't read stops it, loudly. It tells its position to those who wait for it.

use std::time::Duration;

use async_nats::jetstream::context::GetStreamError;
use kadr_shared::{
    domain::EventError,
    log,
    nats::Nats,
    streams::{self, StreamsError},
    subjects,
    tail::{Entry, Tail},
    telemetry::chain,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, error::Elapsed, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::read_model::{Checkpoint, Projected, ReadModel, WriteError};

/// The most events in a transaction: a rebuild is fast, and a commit stays short.
const BATCH: usize = 256;
/// How long a batch waits for events that are said to follow.
const LINGER: Duration = Duration::from_millis(100);
/// How often it is checked that the log is still the same one.
const CHECK: Duration = Duration::from_secs(2);
/// A commit that takes longer has failed.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// A question to NATS that takes longer has failed.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// Setting up all streams takes several questions.
const ENSURE_DEADLINE: Duration = Duration::from_secs(20);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Where the projection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    /// What is committed.
    pub(crate) seq: u64,
    pub(crate) following: Following,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Following {
    Starting,
    Yes,
    /// It will try again.
    Interrupted(String),
    /// It will not go on: the log holds what this version can't read.
    Halted(String),
}

/// The log as it is in the server now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// Which log: the moment of the stream's making.
    stream: String,
    pub(crate) last: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProjectionError {
    #[error("NATS does not tell about the log in time")]
    Silent(#[from] Elapsed),
    #[error("can't read about the log")]
    Stream(#[from] GetStreamError),
    #[error(transparent)]
    Streams(#[from] StreamsError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Event(#[from] EventError),
}

impl ProjectionError {
    /// Whether trying again can't help.
    const fn is_final(&self) -> bool {
        matches!(self, Self::Event(_))
    }
}

/// Asks for the end of the log, within a deadline.
pub(crate) async fn log_end(nats: &Nats) -> Result<LogEnd, ProjectionError> {
    let stream = timeout(ASK_DEADLINE, nats.jetstream.get_stream(subjects::EVENTS)).await??;
    let info = stream.cached_info();
    Ok(LogEnd { stream: info.created.unix_timestamp_nanos().to_string(), last: info.state.last_sequence })
}

/// What ended a stretch of following in order.
enum End {
    Shutdown,
    /// It is another log now.
    Recreated,
}

/// Follows the log into the read model.
pub(crate) struct Projection {
    nats: Nats,
    model: ReadModel,
    position: watch::Sender<Position>,
}

impl Projection {
    pub(crate) fn new(nats: Nats, model: ReadModel) -> (Self, watch::Receiver<Position>) {
        let (position, receiver) = watch::channel(Position { seq: 0, following: Following::Starting });
        (Self { nats, model, position }, receiver)
    }

    /// Runs until the shutdown, through outages and failures.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut retry = FIRST_RETRY;
        loop {
            let before = self.position.borrow().seq;
            let error = match self.follow(&shutdown).await {
                Ok(End::Shutdown) => return,
                Ok(End::Recreated) => continue,
                Err(error) => error,
            };
            let reason = chain(&error);
            if error.is_final() {
                error!(error = %reason, "the projection stops: the log holds what this version can't read");
                self.position.send_modify(|p| p.following = Following::Halted(reason));
                return;
            }
            // Only what got on begins again with short waits: a full disk is found at the first commit of every try.
            if self.position.borrow().seq > before {
                retry = FIRST_RETRY;
            }
            warn!(error = %reason, again_in = ?retry, "the projection is interrupted");
            self.position.send_modify(|p| p.following = Following::Interrupted(reason));
            if timeout(retry, shutdown.cancelled()).await.is_ok() {
                return;
            }
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    /// Follows from the checkpoint on. Everything that was not committed is read again by the next call.
    async fn follow(&self, shutdown: &CancellationToken) -> Result<End, ProjectionError> {
        let checkpoint = tokio::select! {
            () = shutdown.cancelled() => return Ok(End::Shutdown),
            checkpoint = self.start() => checkpoint?,
        };
        let mut tail = log::tail(&self.nats, checkpoint.seq + 1);
        let mut batch = Vec::with_capacity(BATCH);
        let mut check = interval_at(Instant::now() + CHECK, CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(End::Shutdown),
                // The batch outlives this choice: what was read before another branch won stays in it.
                () = fill(&mut tail, &mut batch) => {
                    self.commit(&batch).await?;
                    batch.clear();
                }
                _ = check.tick() => {
                    if self.is_another(&checkpoint).await {
                        return Ok(End::Recreated);
                    }
                }
            }
        }
    }

    /// Makes the checkpoint fit the log: if it is another log's, everything begins anew.
    async fn start(&self) -> Result<Checkpoint, ProjectionError> {
        timeout(ENSURE_DEADLINE, streams::ensure(&self.nats)).await??;
        let log = log_end(&self.nats).await?;
        let mut checkpoint = self.model.checkpoint().await?;
        if checkpoint.stream != log.stream || checkpoint.seq > log.last {
            if !checkpoint.stream.is_empty() {
                warn!(was_at = checkpoint.seq, end = log.last, "the tables are not of this log: they are rebuilt");
            }
            self.model.begin_anew(&log.stream).await?;
            checkpoint = Checkpoint { stream: log.stream, seq: 0 };
        }
        info!(seq = checkpoint.seq, of = log.last, "following the log");
        self.position.send_replace(Position { seq: checkpoint.seq, following: Following::Yes });
        Ok(checkpoint)
    }

    /// Whether the log is another one than that of the checkpoint. If that can't be told now, the next check will.
    async fn is_another(&self, checkpoint: &Checkpoint) -> bool {
        use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
        match log_end(&self.nats).await {
            Ok(log) => log.stream != checkpoint.stream || log.last < self.position.borrow().seq,
            Err(ProjectionError::Stream(e)) => {
                matches!(e.kind(), GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
            }
            Err(error) => {
                debug!(error = %chain(&error), "can't check which log it is");
                false
            }
        }
    }

    async fn commit(&self, entries: &[Entry]) -> Result<(), ProjectionError> {
        let mut events = Vec::with_capacity(entries.len());
        let mut seen = None;
        let mut unreadable = None;
        for entry in entries {
            match read(entry) {
                Ok(event) => events.extend(event),
                Err(error) => {
                    unreadable = Some(error);
                    break;
                }
            }
            seen = Some(entry.seq);
        }
        // What comes before an unreadable one is good.
        if let Some(last) = seen {
            match timeout(WRITE_DEADLINE, self.model.apply(&events)).await? {
                // Written by a version whose states can't be read: fold them again.
                Err(error @ WriteError::State { .. }) => {
                    self.model.begin_anew("").await?;
                    return Err(error.into());
                }
                other => other?,
            }
            self.position.send_replace(Position { seq: last, following: Following::Yes });
        }
        unreadable.map_or(Ok(()), Err)
    }
}

/// `None`: a message that is none of kadr's. It can't be taken away, and it must not stop everything for ever.
fn read(entry: &Entry) -> Result<Option<Projected>, ProjectionError> {
    let event = match log::read(entry) {
        Ok(event) => event,
        Err(foreign) => {
            error!(seq = entry.seq, error = %chain(&foreign), "the log holds a message that is none of kadr's");
            return Ok(None);
        }
    };
    let data = event.parse()?;
    Ok(Some(Projected { event, data }))
}

/// Reads on until the batch is full or nothing more is there. May be dropped at any await: the batch keeps what it has.
async fn fill(tail: &mut Tail, batch: &mut Vec<Entry>) {
    if batch.is_empty() {
        batch.push(tail.next().await);
    }
    while batch.len() < BATCH && batch.last().is_some_and(|entry| entry.pending > 0) {
        match timeout(LINGER, tail.next()).await {
            Ok(entry) => batch.push(entry),
            Err(_) => return,
        }
    }
}
