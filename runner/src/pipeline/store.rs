//! Storing results: each frame's once, in order, without holes, by the assigned runner only.
//!
//! Every append expects the subject's last sequence, and carries the fence: a conflict is looked into, never overwritten.

use std::time::Duration;

use async_nats::jetstream::{
    message::{PublishMessage, StreamMessage},
    stream::LastRawMessageErrorKind,
};
use kadr_shared::{
    id::{RunId, ScenarioId},
    message::detection::{Detection, FrameDetections},
    nats::Nats,
    publish::{Stored, publish},
    subjects,
    tail::Tail,
    telemetry::chain,
    time::Timestamp,
};
use tracing::warn;

use super::Stops;
use crate::{
    meter::{Meter, Trouble},
    patience::{REQUEST, RETRY, answered},
};

/// The fence of whoever stored a result.
const FENCE: &str = "Kadr-Fence";
/// A stored result that is to be read must come in this time; then it is asked whether it is still there.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The end of a scenario's stored results.
pub(super) struct Store {
    nats: Nats,
    scenario: ScenarioId,
    run: RunId,
    fence: u64,
    /// The subject's last sequence; 0: it is empty.
    last: u64,
    /// Frames of this run that are stored.
    frames: u64,
    /// When the last one of them is shown, and when it was taken.
    shown: Option<(f64, Timestamp)>,
}

/// Why a result can't be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the scenario was given to another runner")]
    Fenced,
    #[error("stopped before it was known to be stored")]
    Stopped,
    #[error("a stored result can't be read")]
    Unreadable(#[source] serde_json::Error),
    #[error("a result can't be written as JSON")]
    Write(#[source] serde_json::Error),
}

/// The last stored message: its place, its fence and what it says.
struct Last {
    seq: u64,
    fence: u64,
    result: FrameDetections,
}

impl Store {
    /// Looks where the stored results end. Waits for the server if it has to.
    pub(super) async fn open(nats: Nats, scenario: ScenarioId, run: RunId, fence: u64) -> Result<Self, StoreError> {
        let mut store = Self { nats, scenario, run, fence, last: 0, frames: 0, shown: None };
        store.look().await?;
        Ok(store)
    }

    /// One more than the number of the run's last stored frame. Of a file all before it are stored, of a camera those that
    /// were not dropped.
    pub(super) const fn frames(&self) -> u64 {
        self.frames
    }

    /// When a camera's frame that is taken now is shown, in milliseconds after the run's first one.
    pub(super) fn next_shown_ms(&self) -> f64 {
        self.shown.map_or(0.0, |(shown_ms, taken)| shown_ms + Timestamp::now().since(taken).as_secs_f64() * 1000.0)
    }

    /// Stores the result of the next frame. One that is there already is left as it is. While the server does not store
    /// it, it tries again and says so, until `stop`: then the result may or may not be stored.
    pub(super) async fn append(
        &mut self,
        result: &FrameDetections,
        stop: &Stops,
        meter: &Meter,
    ) -> Result<(), StoreError> {
        let payload = serde_json::to_vec(result).map_err(StoreError::Write)?;
        while self.frames <= result.frame {
            // The clock is asked each time: what waited for long may have lost its lease.
            if !stop.none() {
                return Err(StoreError::Stopped);
            }
            let message = PublishMessage::build()
                .payload(payload.clone().into())
                .header(FENCE, self.fence.to_string())
                .expected_last_subject_sequence(self.last);
            let stored = publish(&self.nats.jetstream, subjects::detections(&self.scenario), message);
            let error = match answered(&self.nats, REQUEST, stored).await {
                Some(Ok(Stored::At(seq))) => {
                    self.last = seq;
                    self.frames = result.frame + 1;
                    meter.trouble(Trouble::Storing, None);
                    continue;
                }
                Some(Ok(Stored::Conflict | Stored::SubjectFull)) => {
                    self.look().await?;
                    continue;
                }
                Some(Err(error)) => chain(&error),
                None => "no answer from NATS".to_owned(),
            };
            warn!(scenario = %self.scenario, error, "can't store a result, trying again");
            meter.trouble(Trouble::Storing, Some(format!("can't store results: {error}")));
            tokio::select! {
                () = stop.any() => return Err(StoreError::Stopped),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        Ok(())
    }

    /// The run's stored results from the first on, for a later attempt to draw from.
    pub(super) fn replay(&self) -> Replay {
        let subject = subjects::detections(&self.scenario);
        let tail = Tail::new(self.nats.jetstream.clone(), subjects::DETECTIONS, subject, 1);
        Replay {
            tail,
            nats: self.nats.clone(),
            scenario: self.scenario.clone(),
            run: self.run,
            next: None,
            over: false,
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        match self.read_last().await? {
            None => (self.last, self.frames, self.shown) = (0, 0, None),
            Some(last) if last.fence > self.fence => return Err(StoreError::Fenced),
            Some(last) => {
                self.last = last.seq;
                let ours = last.result.run == self.run;
                self.frames = if ours { last.result.frame + 1 } else { 0 };
                self.shown = ours.then_some((last.result.pts_ms, last.result.captured_at));
            }
        }
        Ok(())
    }

    async fn read_last(&self) -> Result<Option<Last>, StoreError> {
        match last_message(&self.nats, &self.scenario).await {
            Some(message) => parse(&message).map(Some),
            None => Ok(None),
        }
    }
}

/// A scenario's last stored result. Waits for the server if it has to.
async fn last_message(nats: &Nats, scenario: &ScenarioId) -> Option<StreamMessage> {
    let subject = subjects::detections(scenario);
    loop {
        let read = async {
            let stream = nats.jetstream.get_stream_no_info(subjects::DETECTIONS).await.ok()?;
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => Some(Some(message)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Some(None),
                Err(_) => None,
            }
        };
        if let Some(Some(last)) = answered(nats, REQUEST, read).await {
            return last;
        }
        warn!(%scenario, "can't read the stored results' end, trying again");
        tokio::time::sleep(RETRY).await;
    }
}

fn parse(message: &StreamMessage) -> Result<Last, StoreError> {
    let fence = message.headers.get(FENCE).and_then(|v| v.as_str().parse().ok()).unwrap_or(0);
    let result = serde_json::from_slice(&message.payload).map_err(StoreError::Unreadable)?;
    Ok(Last { seq: message.sequence, fence, result })
}

/// A run's stored results, in order.
pub(super) struct Replay {
    tail: Tail,
    nats: Nats,
    scenario: ScenarioId,
    run: RunId,
    /// Read, but of a later frame than was asked for.
    next: Option<FrameDetections>,
    /// There are no more.
    over: bool,
}

impl Replay {
    /// What was found in a frame; `None` if it was not analysed, or its result is so old that it was evicted. Frames are asked
    /// for in order, and only below the stored results' end.
    pub(super) async fn of(&mut self, frame: u64) -> Result<Option<Vec<Detection>>, StoreError> {
        while !self.over {
            let result = match self.next.take() {
                Some(result) => result,
                None => match tokio::time::timeout(READ_TIMEOUT, self.tail.next()).await {
                    Ok(entry) => serde_json::from_slice(&entry.message.payload).map_err(StoreError::Unreadable)?,
                    // The end was there; it may have been evicted since.
                    Err(_) => {
                        self.over = last_message(&self.nats, &self.scenario).await.is_none();
                        continue;
                    }
                },
            };
            if result.run != self.run || result.frame < frame {
                continue;
            }
            if result.frame == frame {
                return Ok(Some(result.detections));
            }
            self.next = Some(result);
            break;
        }
        Ok(None)
    }
}
