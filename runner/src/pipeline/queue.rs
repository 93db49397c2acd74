//! The queue of frames for inference, as one scenario sees it: putting frames in, and asking whether they are still there.

use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use futures::TryStreamExt;
use kadr_shared::{
    id::{ModelName, ScenarioId},
    message::frame::FrameHeader,
    nats::Nats,
    publish::{Stored, publish},
    subjects::{self, FrameClass},
    telemetry::chain,
};

use crate::patience::{REQUEST, answered};

/// What became of a frame.
pub(super) enum Put {
    Queued,
    /// The scenario has as many frames there as it may.
    Full,
    /// In words.
    Failed(String),
}

pub(super) struct Queue {
    nats: Nats,
    subject: String,
}

impl Queue {
    pub(super) fn new(nats: Nats, model: &ModelName, class: FrameClass, scenario: &ScenarioId) -> Self {
        Self { nats, subject: subjects::frame(model, class, scenario) }
    }

    /// Does not hold the queue up: several can be on their way.
    pub(super) fn put(&self, header: &FrameHeader, body: Bytes) -> impl Future<Output = Put> + use<> {
        let message = PublishMessage::build().headers(header.to_headers()).payload(body);
        let (nats, subject) = (self.nats.clone(), self.subject.clone());
        async move {
            match answered(&nats, REQUEST, publish(&nats.jetstream, subject, message)).await {
                Some(Ok(Stored::At(_))) => Put::Queued,
                Some(Ok(Stored::SubjectFull | Stored::Conflict)) => Put::Full,
                Some(Err(error)) => Put::Failed(chain(&error)),
                None => Put::Failed("no answer from NATS".to_owned()),
            }
        }
    }

    /// Frames of the scenario that wait or are in a worker's hand; none: that can't be told now, or there is no queue.
    pub(super) async fn waiting(&self) -> Option<usize> {
        let count = async {
            let stream = self.nats.jetstream.get_stream_no_info(subjects::FRAMES).await.ok()?;
            let counts: Vec<(String, usize)> =
                stream.info_with_subjects(&self.subject).await.ok()?.try_collect().await.ok()?;
            Some(counts.iter().map(|(_, count)| count).sum())
        };
        answered(&self.nats, REQUEST, count).await.flatten()
    }
}
