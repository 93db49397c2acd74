//! One frame at a time: takes it, has it analysed, sends the answer, acknowledges.
//!
//! It computes on a thread that may block, alone or as the first of a team.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_nats::jetstream::AckKind;
use kadr_shared::{
    message::{
        detection::{RawOutcome, RawResult, Timing},
        frame::FrameHeader,
    },
    nats::Nats,
    subjects,
};
use tokio::{task::spawn_blocking, time::timeout};
use tracing::{debug, error};

use super::{NETWORK_PATIENCE, identity::Identity, models::chain, puller::Frame, queues::Queues};
use crate::detector::{Criteria, Picture};

pub(super) struct Lane {
    nats: Nats,
}

impl Lane {
    pub(super) fn new(nats: Nats) -> Self {
        Self { nats }
    }

    /// Until the queues are closed and empty.
    pub(super) async fn run(self, queues: Arc<Queues<Frame>>) {
        while let Some(frame) = queues.take().await {
            self.serve(frame).await;
        }
    }

    async fn serve(&self, frame: Frame) {
        let queue = since(frame.published);
        let (identity, outcome, kind) = match FrameHeader::parse(&frame.headers, &frame.body) {
            Ok(header) => {
                let identity = Identity::of(&header);
                let outcome = self.analyse(&frame, header, queue).await;
                (Some(identity), outcome.unwrap_or_else(|error| RawOutcome::Refused { error }), AckKind::Ack)
            }
            // It will never be readable: nobody is to be given it again.
            Err(error) => {
                debug!(model = %frame.slot.model().name, %error, "a frame can't be read");
                (Identity::read(&frame.headers), RawOutcome::Refused { error: error.to_string() }, AckKind::Term)
            }
        };
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

    /// What is in the frame; an error says why it can't be told, now or ever.
    async fn analyse(&self, frame: &Frame, header: FrameHeader, queue: Duration) -> Result<RawOutcome, String> {
        let criteria = Criteria::of(frame.slot.model(), &header).map_err(|e| chain(&e))?;
        let detector = frame.slot.detector().await?;
        let body = frame.body.clone();
        let analysed = spawn_blocking(move || {
            let picture = Picture { planes: &body, letterbox: header.letterbox(), colour: header.colour };
            detector.detect(&picture, &criteria).map(|found| (found, detector.stamp().clone()))
        });
        // A panic must not end the lane: the frame's answer says it instead.
        let found = analysed.await.map_err(|error| {
            error!(%error, "the analysis of a frame panicked");
            "the analysis of the frame panicked".to_owned()
        })?;
        let (found, model) = found.map_err(|e| chain(&e))?;
        let timing_ms = Timing { queue: millis(queue), inference: millis(found.inference) };
        Ok(RawOutcome::Analysed { model, detections: found.detections, timing_ms })
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

/// By the wall clocks of the server and of this machine; zero where they disagree.
fn since(published: i128) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let elapsed = i128::try_from(now).unwrap_or(i128::MAX).saturating_sub(published);
    Duration::from_nanos(u64::try_from(elapsed).unwrap_or(0))
}

/// To the microsecond.
fn millis(span: Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}
