//! Starts that nobody will claim because they are lost: taken from the runners' queue, but no claim came of it.
//!
//! A start that waits for a free runner is still in the queue, or in a runner's hand; one below the queue's
//! acknowledged end is not.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_nats::jetstream::consumer::{Consumer, pull};
use futures::future::BoxFuture;
use kadr_shared::{
    domain::Wait,
    domain::{Phase, State},
    id::ScenarioId,
    nats::Nats,
    subjects,
    telemetry::chain,
};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::{book::Book, decide::Signal};

/// A start is not looked into before it has waited for so long.
const WORRY: Duration = Duration::from_secs(3);
/// Between two looks at the queue.
const LOOK: Duration = Duration::from_secs(1);
/// A claim that was stored before its start was acknowledged is decided on in this time.
const SETTLING: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Claims {
    nats: Nats,
    looked: Instant,
    look: Option<BoxFuture<'static, Option<u64>>>,
    /// Starts that were seen to be acknowledged, and since when.
    acknowledged: HashMap<ScenarioId, (u64, Instant)>,
}

impl Claims {
    pub(crate) fn new(nats: Nats) -> Self {
        Self { nats, looked: Instant::now(), look: None, acknowledged: HashMap::new() }
    }

    /// Begins a look at the queue if some start has waited for long.
    pub(crate) fn worry(&mut self, book: &Book, now: Instant) {
        if self.look.is_some() || now.duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        if waiting(book, now).next().is_none() {
            self.acknowledged.clear();
            return;
        }
        let nats = self.nats.clone();
        self.look = Some(Box::pin(async move {
            match timeout(PATIENCE, acknowledged_end(&nats)).await {
                Ok(Ok(end)) => Some(end),
                Ok(Err(error)) => {
                    // Without any runner there is no queue yet.
                    debug!(error, "can't look at the runners' queue");
                    None
                }
                Err(_) => None,
            }
        }));
    }

    /// The sequence up to which starts are acknowledged, once the look is done. May be dropped at any await.
    pub(crate) async fn looked(&mut self) -> u64 {
        let Some(look) = &mut self.look else { return std::future::pending().await };
        let end = look.await;
        self.look = None;
        match end {
            Some(end) => end,
            None => std::future::pending().await,
        }
    }

    /// The starts that are lost.
    pub(crate) fn lost(&mut self, end: u64, book: &Book, now: Instant) -> Vec<(ScenarioId, Signal)> {
        let mut lost = Vec::new();
        let mut acknowledged = HashMap::new();
        for (scenario, start) in waiting(book, now).filter(|(_, start)| *start <= end) {
            let known = self.acknowledged.get(scenario).filter(|(of, _)| *of == start);
            let since = known.map_or(now, |(_, since)| *since);
            if now.duration_since(since) >= SETTLING {
                warn!(%scenario, start, "a start was taken but never claimed: it is offered again");
                lost.push((scenario.clone(), Signal::StartLost { start }));
            }
            acknowledged.insert(scenario.clone(), (start, since));
        }
        self.acknowledged = acknowledged;
        lost
    }
}

/// Scenarios that have waited long for a claim, with their starts.
fn waiting(book: &Book, now: Instant) -> impl Iterator<Item = (&ScenarioId, u64)> {
    book.running().filter_map(move |(scenario, state): (&ScenarioId, &State)| match state.phase {
        Phase::InitStartup { wait: Wait::Runner { start } } if book.timers().waiting(scenario, now) >= WORRY => {
            Some((scenario, start))
        }
        _ => None,
    })
}

async fn acknowledged_end(nats: &Nats) -> Result<u64, String> {
    let stream = nats.jetstream.get_stream_no_info(subjects::EVENTS).await.map_err(|e| chain(&e))?;
    let consumer: Consumer<pull::Config> =
        stream.get_consumer(subjects::STARTS_CONSUMER).await.map_err(|error| error.to_string())?;
    Ok(consumer.cached_info().ack_floor.stream_sequence)
}
