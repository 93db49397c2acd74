//! Images that somebody publishes on a NATS subject: the API, for those that are POSTed, or another program.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{Client, Subject, Subscriber};
use futures::StreamExt;
use kadr_shared::message::image::{self, ImageReply};
use tokio::{runtime::Handle, time::timeout};
use tracing::debug;

use super::mailbox::{Arrived, Mailbox};
use crate::source::SourceError;

/// NATS has to answer in this time.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Where images are published.
#[derive(Debug, Clone)]
pub struct Published {
    pub client: Client,
    pub subject: String,
    /// Whether those who send them hear what became of each.
    pub answered: bool,
}

impl Published {
    pub(super) async fn subscribe(&self) -> Result<Subscriber, SourceError> {
        let failed = |what: String| SourceError::Session { what: format!("can't listen for images: {what}") };
        let subscriber =
            self.client.subscribe(self.subject.clone()).await.map_err(|error| failed(error.to_string()))?;
        // From here on nothing is missed.
        self.client.flush().await.map_err(|error| failed(error.to_string()))?;
        Ok(subscriber)
    }

    /// Who answers, if anybody does.
    pub(super) fn answers(&self) -> Option<&Client> {
        self.answered.then_some(&self.client)
    }

    /// Receives until the client is closed. Quick: the client's own buffer has no bound in bytes.
    pub(super) async fn receive(self, mut subscriber: Subscriber, mailbox: Mailbox, busy: Arc<AtomicU64>) {
        while let Some(message) = subscriber.next().await {
            let taken = message.headers.as_ref().and_then(image::captured_at);
            let reply = message.reply.filter(|_| self.answered);
            let arrived = Arrived { body: message.payload, at: Instant::now(), taken, reply };
            if let Some(dropped) = mailbox.put(arrived) {
                busy.fetch_add(1, Ordering::Relaxed);
                if let Some(to) = dropped.reply {
                    send(&self.client, to, &ImageReply::Busy).await;
                }
            }
        }
        mailbox.end(SourceError::Gone);
    }
}

/// Tells a sender what became of an image. Blocks, for a moment.
pub(super) fn answer(runtime: &Handle, client: &Client, to: Subject, reply: &ImageReply) {
    runtime.block_on(send(client, to, reply));
}

/// Who does not hear it asks again.
async fn send(client: &Client, to: Subject, reply: &ImageReply) {
    let body = serde_json::to_vec(reply).unwrap_or_default();
    if !matches!(timeout(DEADLINE, client.publish(to, body.into())).await, Ok(Ok(()))) {
        debug!("an image's sender can't be answered");
    }
}
