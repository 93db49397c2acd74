//! A frame at a time, or a GPU's batch: takes it, has it analysed, sends the answers, acknowledges.
//!
//! A thread of the [`Crew`] computes, alone or as the first of a team ([`Cores`] says how large).

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_nats::jetstream::AckKind;
use futures::future::join_all;
use kadr_shared::{
    message::{
        detection::{RawOutcome, RawResult, Timing},
        frame::FrameHeader,
    },
    nats::Nats,
    subjects::{self, FrameClass},
};
use tokio::time::timeout;
use tracing::{debug, error};

use super::{
    NETWORK_PATIENCE,
    cores::Cores,
    crew::Crew,
    identity::Identity,
    models::{Slot, chain},
    puller::Frame,
    queues::Queues,
};
use crate::detector::{Criteria, Picture};

pub(super) struct Lane {
    nats: Nats,
    /// Frames that are analysed together, if they are there.
    batch: usize,
    cores: Arc<Cores>,
    crew: Arc<Crew>,
}

/// What is to be done with a frame.
enum Turn {
    Analysis(Ready),
    Answer { frame: Frame, identity: Option<Identity>, outcome: RawOutcome, kind: AckKind },
}

/// A frame that is to be analysed.
struct Ready {
    frame: Frame,
    header: FrameHeader,
    criteria: Criteria,
    queue: Duration,
}

impl Lane {
    pub(super) const fn new(nats: Nats, batch: usize, cores: Arc<Cores>, crew: Arc<Crew>) -> Self {
        Self { nats, batch, cores, crew }
    }

    /// Until the queues are closed and empty.
    pub(super) async fn run(self, queues: Arc<Queues<Frame>>) {
        loop {
            let frames = queues.take(self.batch).await;
            if frames.is_empty() {
                return;
            }
            self.serve(frames).await;
        }
    }

    async fn serve(&self, frames: Vec<Frame>) {
        // Before it is asked how old they are: that they wait for threads makes them older. Of several, one of a camera's makes haste.
        let live = frames.iter().any(|frame| frame.class == FrameClass::Live);
        let class = if live { FrameClass::Live } else { FrameClass::Batch };
        let share = self.cores.take(class).await;
        let mut ready: Vec<Ready> = Vec::with_capacity(frames.len());
        for frame in frames {
            match Turn::of(frame) {
                Turn::Analysis(one) => ready.push(one),
                Turn::Answer { frame, identity, outcome, kind } => self.answer(&frame, identity, outcome, kind).await,
            }
        }
        while let Some(first) = ready.first() {
            let slot = first.frame.slot.clone();
            let (of_it, others) = ready.into_iter().partition(|r| Arc::ptr_eq(&r.frame.slot, &slot));
            ready = others;
            self.analyse(&slot, of_it, share.threads).await;
        }
    }

    /// Frames of one model.
    async fn analyse(&self, slot: &Slot, ready: Vec<Ready>, threads: NonZeroUsize) {
        let frames: Vec<_> =
            ready.iter().map(|r| (r.frame.body.clone(), r.header.letterbox(), r.header.colour)).collect();
        let criteria: Vec<_> = ready.iter().map(|r| r.criteria.clone()).collect();
        let analysed = match slot.detector().await {
            Err(reason) => Err(reason),
            Ok(detector) => self
                .crew
                .run(move || {
                    let pictures = frames.iter().zip(criteria).map(|((planes, letterbox, colour), criteria)| {
                        (Picture { planes, letterbox: *letterbox, colour: *colour }, criteria)
                    });
                    let found = detector.detect_all(&pictures.collect::<Vec<_>>(), threads);
                    (found, detector.stamp().clone())
                })
                .await
                // A panic must not end the lane: the frames' answers say it instead.
                .map_err(|error| {
                    error!(%error, "the analysis of a frame panicked");
                    "the analysis of the frame panicked".to_owned()
                }),
        };
        let outcomes: Vec<_> = match analysed {
            Err(error) => ready.iter().map(|_| RawOutcome::Refused { error: error.clone() }).collect(),
            Ok((found, model)) => ready
                .iter()
                .zip(found)
                .map(|(ready, found)| match found {
                    Ok(found) => {
                        let timing_ms = Timing { queue: millis(ready.queue), inference: millis(found.inference) };
                        RawOutcome::Analysed { model: model.clone(), detections: found.detections, timing_ms }
                    }
                    Err(error) => RawOutcome::Refused { error: chain(&error) },
                })
                .collect(),
        };
        let answers = ready.iter().zip(outcomes);
        let answers = answers.map(|(ready, outcome)| {
            self.answer(&ready.frame, Some(Identity::of(&ready.header)), outcome, AckKind::Ack)
        });
        join_all(answers).await;
    }

    /// Sends the answer, if it is known to whom, and acknowledges the frame once it is sent.
    async fn answer(&self, frame: &Frame, identity: Option<Identity>, outcome: RawOutcome, kind: AckKind) {
        frame.slot.count(&outcome);
        if let Some(identity) = identity
            && let Err(error) = self.publish(identity, outcome).await
        {
            // Not acknowledged: it is delivered again.
            debug!(error, "a result could not be sent");
            return;
        }
        match timeout(NETWORK_PATIENCE, frame.acker.ack_with(kind)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "a frame could not be acknowledged"),
            Err(_) => debug!("a frame could not be acknowledged in time"),
        }
    }

    async fn publish(&self, identity: Identity, outcome: RawOutcome) -> Result<(), String> {
        let Identity { scenario, run, fence, frame } = identity;
        let subject = subjects::results(&scenario, run);
        let result = RawResult { scenario, run, fence, frame, outcome };
        let body = serde_json::to_vec(&result).map_err(|e| chain(&e))?;
        match timeout(NETWORK_PATIENCE, self.nats.client.publish(subject, body.into())).await {
            Ok(sent) => sent.map_err(|e| chain(&e)),
            Err(_) => Err("the connection does not take it".to_owned()),
        }
    }
}

impl Turn {
    fn of(frame: Frame) -> Self {
        let header = match FrameHeader::parse(&frame.headers, &frame.body) {
            Ok(header) => header,
            Err(error) => {
                debug!(model = %frame.slot.model().name, %error, "a frame can't be read");
                let (identity, outcome) =
                    (Identity::read(&frame.headers), RawOutcome::Refused { error: error.to_string() });
                // It will never be readable: nobody is to be given it again.
                return Self::Answer { frame, identity, outcome, kind: AckKind::Term };
            }
        };
        let queue = since(frame.published);
        let answer =
            |frame, outcome| Self::Answer { frame, identity: Some(Identity::of(&header)), outcome, kind: AckKind::Ack };
        if header.patience.is_some_and(|patience| queue > patience) {
            return answer(frame, RawOutcome::Late { after_ms: millis(queue) });
        }
        match Criteria::of(frame.slot.model(), &header) {
            Ok(criteria) => Self::Analysis(Ready { frame, header, criteria, queue }),
            Err(error) => answer(frame, RawOutcome::Refused { error: chain(&error) }),
        }
    }
}

/// By the wall clocks of the server and of this machine, which have to agree to within a second; zero where this one is behind.
fn since(published: i128) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let elapsed = i128::try_from(now).unwrap_or(i128::MAX).saturating_sub(published);
    Duration::from_nanos(u64::try_from(elapsed).unwrap_or(0))
}

/// To the microsecond.
fn millis(span: Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}
