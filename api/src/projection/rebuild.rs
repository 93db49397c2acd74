//! Building the tables anew from the log, all at once: what a user asks for, and what shows how fast it goes.

use std::time::{Duration, Instant};

use kadr_shared::{nats::Nats, streams};
use tokio::time::timeout;

use super::{ENSURE_DEADLINE, Failed, ProjectionError, Reader, in_time, log_end};
use crate::{
    error::ApiError,
    place::Place,
    read_model::{ReadModel, Use, WriteError, Writer},
};

/// The log's next events must come within this time: it is known that there are some.
const NEXT_DEADLINE: Duration = Duration::from_secs(30);

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Up to where the tables are.
    pub seq: u64,
    /// The log's last sequence when it began.
    pub of: u64,
}

/// A rebuild that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Events that this rebuild read. (APIs that share the database may have written some of them.)
    pub events: u64,
    /// Up to where the tables are.
    pub seq: u64,
    pub took: Duration,
}

/// Throws the tables away and makes them anew from the log, up to its end at the beginning. A file must not be in use by
/// an API. On a server APIs go on meanwhile: they see the tables go back and come up again, and help.
///
/// May be given up at any await: an API goes on where the tables are.
pub async fn rebuild(place: &Place, nats: &Nats, progress: impl Fn(Progress)) -> Result<Rebuilt, ApiError> {
    let model = ReadModel::open(place, Use::Alone).await?;
    let rebuilt = run(&model, nats, progress).await;
    model.close().await;
    rebuilt.map_err(ApiError::Rebuild)
}

async fn run(model: &ReadModel, nats: &Nats, progress: impl Fn(Progress)) -> Result<Rebuilt, ProjectionError> {
    let begun = Instant::now();
    timeout(ENSURE_DEADLINE, streams::ensure(nats)).await.map_err(|_| ProjectionError::Silent)??;
    model.prepare().await?;
    let log = log_end(nats, 0).await?;
    let mut writer = Writer::new(model.clone());
    in_time(writer.begin_anew(&log.stream)).await?;

    let (mut reader, mut at, mut events) = (Reader::start(nats, 0), 0, 0);
    progress(Progress { seq: at, of: log.last });
    while at < log.last {
        let next = timeout(NEXT_DEADLINE, reader.next()).await;
        let stretch = next.map_err(|_| ProjectionError::Dry)?;
        if stretch.batch.last > stretch.batch.after {
            match in_time(writer.apply(&log.stream, &stretch.batch)).await {
                Ok(seq) => at = seq,
                // Two rebuild at once: where the other one is, there this one goes on.
                Err(Failed::Write(WriteError::Moved { .. })) => {
                    at = in_time(writer.claim(&log.stream, false)).await?.seq;
                    reader = Reader::start(nats, at);
                    continue;
                }
                Err(failed) => return Err(failed.into()),
            }
            events += stretch.batch.events.len() as u64;
            progress(Progress { seq: at, of: log.last });
        }
        if let Some(error) = stretch.unreadable {
            return Err(error);
        }
    }
    Ok(Rebuilt { events, seq: at, took: begun.elapsed() })
}
