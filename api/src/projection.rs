//! The projection: follows the log and writes what it says into the read model.
//!
//! Events and checkpoint are committed together, so after any end it goes on where the tables are, whoever wrote them.
//! It never skips an event: what it can't read stops it, loudly. It tells its position to those who wait for it.

mod reader;
mod rebuild;

use std::time::Duration;

use async_nats::jetstream::context::GetStreamError;
use kadr_shared::{
    domain::EventError,
    log::{self, ExtentError},
    nats::Nats,
    streams::{self, StreamsError},
    telemetry::chain,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, error::Elapsed, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::reader::{Reader, Stretch};
use crate::read_model::{OpenError, ReadModel, WriteError, Writer};

pub use rebuild::{Progress, Rebuilt, rebuild};

/// How often it is checked that the log and the tables are still the same ones.
const CHECK: Duration = Duration::from_secs(2);
/// A commit that takes longer has failed.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// A question to NATS or about the tables that takes longer has failed.
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

/// Why the tables can't follow the log.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    #[error("NATS does not tell about the log in time")]
    Silent,
    #[error("the tables take nothing in time")]
    Slow,
    #[error("the log's next event did not come in time: see that NATS runs")]
    Dry,
    #[error("can't read about the log")]
    Stream(#[from] GetStreamError),
    #[error(transparent)]
    Streams(#[from] StreamsError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Write(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Event(#[from] EventError),
    #[error("event {seq} can't be written as JSON")]
    Line { seq: u64, source: serde_json::Error },
}

impl From<WriteError> for ProjectionError {
    fn from(error: WriteError) -> Self {
        Self::Write(Box::new(error))
    }
}

impl ProjectionError {
    /// Whether trying again can't help.
    const fn is_final(&self) -> bool {
        matches!(self, Self::Event(_))
    }
}

/// Asks for the end of the log, after `read` was read of it.
pub(crate) async fn log_end(nats: &Nats, read: u64) -> Result<LogEnd, ProjectionError> {
    let extent = log::extent(nats, read, ASK_DEADLINE).await.map_err(|error| match error {
        ExtentError::Silent => ProjectionError::Silent,
        ExtentError::Stream(source) => source.into(),
    })?;
    Ok(LogEnd { stream: extent.made.unix_timestamp_nanos().to_string(), last: extent.last })
}

/// What ended a stretch of following in order.
enum End {
    Shutdown,
    /// It is another log now, or somebody has begun the tables anew.
    Moved,
}

/// Follows the log into the read model.
pub(crate) struct Projection {
    nats: Nats,
    model: ReadModel,
    writer: Writer,
    position: watch::Sender<Position>,
}

impl Projection {
    pub(crate) fn new(nats: Nats, model: ReadModel) -> (Self, watch::Receiver<Position>) {
        let (position, receiver) = watch::channel(Position { seq: 0, following: Following::Starting });
        (Self { nats, writer: Writer::new(model.clone()), model, position }, receiver)
    }

    /// Runs until the shutdown, through outages and failures.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut retry = FIRST_RETRY;
        loop {
            let before = self.position.borrow().seq;
            let error = match self.follow(&shutdown).await {
                Ok(End::Shutdown) => return,
                Ok(End::Moved) => continue,
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
    async fn follow(&mut self, shutdown: &CancellationToken) -> Result<End, ProjectionError> {
        let (stream, from) = tokio::select! {
            () = shutdown.cancelled() => return Ok(End::Shutdown),
            started = self.start() => started?,
        };
        let mut reader = Reader::start(&self.nats, from);
        let mut check = interval_at(Instant::now() + CHECK, CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(End::Shutdown),
                stretch = reader.next() => {
                    if let Some(end) = self.commit(&stream, stretch).await? {
                        return Ok(end);
                    }
                }
                _ = check.tick() => {
                    if self.has_moved(&stream).await {
                        return Ok(End::Moved);
                    }
                }
            }
        }
    }

    /// Makes the tables fit the log: which one it is, and where to go on.
    async fn start(&mut self) -> Result<(String, u64), ProjectionError> {
        let ensured = timeout(ENSURE_DEADLINE, streams::ensure(&self.nats)).await;
        ensured.map_err(|_| ProjectionError::Silent)??;
        self.model.prepare().await?;
        // The checkpoint first: another API may write what was appended since.
        let at = in_time(self.model.checkpoint()).await?;
        let log = log_end(&self.nats, at.seq).await?;
        let rewound = at.stream == log.stream && at.seq > log.last;
        let claim = in_time(self.writer.claim(&log.stream, rewound)).await?;
        if claim.anew {
            warn!(
                was_at = at.seq,
                end = log.last,
                "the tables are not of this log, or of another version: they are rebuilt"
            );
        }
        info!(seq = claim.seq, of = log.last, "following the log");
        self.position.send_replace(Position { seq: claim.seq, following: Following::Yes });
        Ok((log.stream, claim.seq))
    }

    /// Whether the log is another one, or the tables were begun anew under us. If that can't be told now, the next
    /// check will.
    async fn has_moved(&self, stream: &str) -> bool {
        use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
        let seq = self.position.borrow().seq;
        match log_end(&self.nats, seq).await {
            Ok(log) if log.stream != stream || log.last < seq => return true,
            Ok(_) => {}
            Err(ProjectionError::Stream(e)) => {
                return matches!(e.kind(), GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND);
            }
            Err(error) => debug!(error = %chain(&error), "can't check which log it is"),
        }
        match timeout(ASK_DEADLINE, self.model.checkpoint()).await {
            Ok(Ok(at)) => at.stream != stream || at.seq < seq,
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Writes a stretch of the log down, and says so.
    async fn commit(&mut self, stream: &str, stretch: Stretch) -> Result<Option<End>, ProjectionError> {
        // What comes before an unreadable event is good.
        if stretch.batch.last > stretch.batch.after {
            match in_time(self.writer.apply(stream, &stretch.batch)).await {
                Ok(seq) => drop(self.position.send_replace(Position { seq, following: Following::Yes })),
                Err(Failed::Write(WriteError::Moved { .. })) => return Ok(Some(End::Moved)),
                // Written by a version whose states can't be read: fold them again.
                Err(Failed::Write(error @ WriteError::State { .. })) => {
                    in_time(self.writer.begin_anew("")).await?;
                    return Err(error.into());
                }
                Err(failed) => return Err(failed.into()),
            }
        }
        stretch.unreadable.map_or(Ok(None), Err)
    }
}

/// How writing failed.
enum Failed {
    Late,
    Write(WriteError),
}

impl From<Failed> for ProjectionError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Late => Self::Slow,
            Failed::Write(error) => error.into(),
        }
    }
}

/// Writes within the deadline. What is given up is undone: a transaction that is dropped ends.
async fn in_time<T>(write: impl Future<Output = Result<T, WriteError>>) -> Result<T, Failed> {
    match timeout(WRITE_DEADLINE, write).await {
        Ok(done) => done.map_err(Failed::Write),
        Err(Elapsed { .. }) => Err(Failed::Late),
    }
}
