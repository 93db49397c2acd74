//! Reading a scenario's stored results: a page of them, or for as long as somebody listens.

use std::{pin::Pin, time::Duration};

use futures::{Stream, stream};
use kadr_shared::{
    detections::{self, DetectionsError},
    filter::Selection,
    id::ScenarioId,
    message::detection::FrameDetections,
    nats::Nats,
    subjects,
    tail::{Entry, Tail},
    telemetry::chain,
};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// For a page, from its first result to its last.
const PAGE_DEADLINE: Duration = Duration::from_secs(5);
/// Results that are looked through for a page.
const LOOKED_THROUGH: usize = 10_000;
/// For one message.
const ASK_DEADLINE: Duration = Duration::from_secs(2);

/// A result and where it is stored.
pub(crate) type Found = (u64, FrameDetections);

/// Some of the stored results, and where to go on; none: that is all that is stored now.
pub(crate) struct Page {
    pub(crate) found: Vec<Found>,
    pub(crate) next: Option<u64>,
}

/// The page of at most `limit` results from a sequence on.
pub(crate) async fn page(
    nats: &Nats,
    scenario: &ScenarioId,
    from: u64,
    limit: usize,
    mut selection: Selection,
) -> Result<Page, DetectionsError> {
    let mut page = Page { found: Vec::new(), next: None };
    let Some(end) = detections::last(nats, scenario).await?.filter(|end| *end >= from) else { return Ok(page) };
    resume(nats, scenario, from, &mut selection).await?;
    let mut tail = tail(nats, scenario, from);
    let mut reached = from;
    let read = async {
        for _ in 0..LOOKED_THROUGH {
            let entry = tail.next().await;
            let seq = entry.seq;
            reached = seq + 1;
            if seq <= end {
                page.found.extend(pass(&entry, &mut selection));
            }
            page.next = (seq < end).then_some(seq + 1);
            if page.next.is_none() || page.found.len() == limit {
                return;
            }
        }
    };
    let read = timeout(PAGE_DEADLINE, read).await;
    if let Err(late) = read {
        // What is rare takes long to find: as far as it was looked through, it is a page.
        if reached == from {
            return Err(late.into());
        }
        page.next = Some(reached);
    }
    Ok(page)
}

/// A scenario's results as they come, each of those that are wanted once and in order.
pub(crate) type Live = Pin<Box<dyn Stream<Item = Found> + Send>>;

/// Results from a sequence on, those that are stored already included; none: those to come. They end with `closing`.
pub(crate) async fn live(
    nats: &Nats,
    scenario: &ScenarioId,
    from: Option<u64>,
    mut selection: Selection,
    closing: CancellationToken,
    permit: OwnedSemaphorePermit,
) -> Result<Live, DetectionsError> {
    let from = match from {
        Some(from) => from,
        // Now and not when it is first read.
        None => detections::last(nats, scenario).await?.unwrap_or(0) + 1,
    };
    resume(nats, scenario, from, &mut selection).await?;
    let listener = (tail(nats, scenario, from), selection, closing, permit);
    Ok(Box::pin(stream::unfold(listener, |mut listener| async move {
        let (tail, selection, closing, _) = &mut listener;
        loop {
            let entry = tokio::select! {
                () = closing.cancelled() => return None,
                entry = tail.next() => entry,
            };
            if let Some(found) = pass(&entry, selection) {
                return Some((found, listener));
            }
        }
    })))
}

fn tail(nats: &Nats, scenario: &ScenarioId, from: u64) -> Tail {
    Tail::new(nats.jetstream.clone(), subjects::DETECTIONS, subjects::detections(scenario), from)
}

fn pass(entry: &Entry, selection: &mut Selection) -> Option<Found> {
    match serde_json::from_slice(&entry.message.payload) {
        Ok(result) => selection.pass(result).map(|result| (entry.seq, result)),
        Err(error) => {
            warn!(seq = entry.seq, %error, "a stored result can't be read; another version's, perhaps");
            None
        }
    }
}

/// Goes on behind the result that lies before a sequence, if it is one of the scenario's.
async fn resume(
    nats: &Nats,
    scenario: &ScenarioId,
    from: u64,
    selection: &mut Selection,
) -> Result<(), DetectionsError> {
    if from < 2 {
        return Ok(());
    }
    let ask = async {
        let stream = nats.jetstream.get_stream_no_info(subjects::DETECTIONS).await?;
        Ok::<_, async_nats::Error>(stream.get_raw_message(from - 1).await)
    };
    match timeout(ASK_DEADLINE, ask).await?? {
        Ok(before) if before.subject.as_str() == subjects::detections(scenario) => {
            if let Ok(result) = serde_json::from_slice(&before.payload) {
                selection.resume(result);
            }
        }
        Ok(_) => {}
        // It is not there any more, or not yet.
        Err(error) => tracing::debug!(seq = from - 1, error = chain(&error), "no result before this one"),
    }
    Ok(())
}
