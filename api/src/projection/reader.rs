//! Reading the log ahead of the tables: parsing goes on while a commit does, and what came meanwhile is the next batch.
//! So a commit is small when little happens, and large when much does.

use std::time::Duration;

use kadr_shared::{
    log,
    nats::Nats,
    tail::{Entry, Tail},
    telemetry::chain,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tracing::error;

use super::ProjectionError;
use crate::read_model::{Batch, Projected};

/// The most events in a transaction: a rebuild is fast, and a commit stays short.
const BATCH: usize = 16_384;
/// How long a batch waits for events that are said to follow.
const LINGER: Duration = Duration::from_millis(50);

/// A batch, and what comes right behind it if that can't be read.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    pub(super) batch: Batch,
    pub(super) unreadable: Option<ProjectionError>,
}

/// Reads ahead, one stretch at a time. Reading ends when it is dropped.
pub(super) struct Reader {
    stretches: mpsc::Receiver<Stretch>,
    task: JoinHandle<()>,
}

impl Reader {
    /// Reads what comes after sequence `after`.
    pub(super) fn start(nats: &Nats, after: u64) -> Self {
        let (sender, stretches) = mpsc::channel(1);
        let task = tokio::spawn(read(log::tail(nats, after + 1), after, sender));
        Self { stretches, task }
    }

    /// The next stretch; waits as long as nothing happens. May be dropped at any await: nothing is lost.
    pub(super) async fn next(&mut self) -> Stretch {
        match self.stretches.recv().await {
            Some(stretch) => stretch,
            // After what it could not read there is nothing more to say.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(mut tail: Tail, mut after: u64, sender: mpsc::Sender<Stretch>) {
    loop {
        let mut stretch = Stretch::default();
        (stretch.batch.after, stretch.batch.last) = (after, after);
        let mut more = stretch.take(&tail.next().await);
        let until = Instant::now() + LINGER;
        // What is said to follow belongs to it; then whatever comes until the tables are free for it.
        while more && !stretch.is_full() {
            match timeout_at(until, tail.next()).await {
                Ok(entry) => more = stretch.take(&entry),
                Err(_) => break,
            }
        }
        let permit = loop {
            tokio::select! {
                biased;
                permit = sender.reserve() => match permit {
                    Ok(permit) => break permit,
                    Err(_) => return,
                },
                entry = tail.next(), if !stretch.is_full() => drop(stretch.take(&entry)),
            }
        };
        after = stretch.batch.last;
        let ends = stretch.unreadable.is_some();
        permit.send(stretch);
        if ends {
            return;
        }
    }
}

impl Stretch {
    fn is_full(&self) -> bool {
        self.unreadable.is_some() || self.batch.events.len() >= BATCH
    }

    /// Takes a message in; whether more are said to follow.
    fn take(&mut self, entry: &Entry) -> bool {
        match projected(entry) {
            Ok(event) => {
                self.batch.events.extend(event);
                self.batch.last = entry.seq;
                entry.pending > 0
            }
            Err(error) => {
                self.unreadable = Some(error);
                false
            }
        }
    }
}

/// `None`: a message that is none of kadr's. It can't be taken away, and it must not stop everything for ever.
fn projected(entry: &Entry) -> Result<Option<Projected>, ProjectionError> {
    let event = match log::read(entry) {
        Ok(event) => event,
        Err(foreign) => {
            error!(seq = entry.seq, error = %chain(&foreign), "the log holds a message that is none of kadr's");
            return Ok(None);
        }
    };
    let data = event.parse()?;
    let line = serde_json::to_string(&event).map_err(|source| ProjectionError::Line { seq: event.seq, source })?;
    Ok(Some(Projected { event, data, line }))
}
