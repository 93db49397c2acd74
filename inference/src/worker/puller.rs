//! Takes the frames of one model and class from the server, as the queue has room for them.
//!
//! The stream is kept in memory, so that it and its consumers are gone after a server's restart: whatever goes wrong, the
//! puller makes both again and goes on.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    consumer::{AckPolicy, PullConsumer, pull},
    message::Acker,
};
use bytes::Bytes;
use futures::StreamExt;
use kadr_shared::{
    nats::Nats,
    streams,
    subjects::{self, FrameClass},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    ACK_WAIT, NETWORK_PATIENCE,
    keeper::Keeper,
    models::{Slot, chain},
};

/// A pull waits at the server for so long, and is told so often that it is still there.
const PULL_EXPIRES: Duration = Duration::from_secs(5);
const PULL_HEARTBEAT: Duration = Duration::from_secs(1);

/// Between tries to get at the stream, ever longer.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// What has run for so long is in order: the next trouble is a new one.
const STEADY: Duration = Duration::from_secs(10);

/// A frame that ended so many workers is not given to one more. Its runner sends it again after a while, as it does with one
/// that is lost, so that it is not forgotten either.
const MAX_DELIVERIES: i64 = 5;

/// Files' frames that are asked for at a time: far from the server a round trip takes as long as many frames' analysis, and
/// with fewer a worker there would be idle. Cameras' are not to wait in one worker's hands while another one is free.
const FILES_AHEAD: usize = 16;

/// Frames that all workers of a model may have in hand together.
const MAX_IN_HAND: i64 = 4096;

/// A frame in hand.
pub(super) struct Frame {
    pub(super) headers: async_nats::HeaderMap,
    pub(super) body: Bytes,
    /// Nanoseconds since 1970, by the server's clock.
    pub(super) published: i128,
    pub(super) acker: Arc<Acker>,
    pub(super) slot: Arc<Slot>,
    pub(super) class: FrameClass,
}

pub(super) struct Puller {
    nats: Nats,
    slot: Arc<Slot>,
    class: FrameClass,
    /// Messages a pull.
    ahead: usize,
    keeper: Arc<Keeper>,
}

impl Puller {
    /// `ahead`: as many frames as keep the lanes busy where the server is near.
    pub(super) fn new(nats: Nats, slot: Arc<Slot>, class: FrameClass, ahead: usize, keeper: Arc<Keeper>) -> Self {
        let ahead = match class {
            FrameClass::Live => ahead,
            FrameClass::Batch => ahead.max(FILES_AHEAD),
        };
        Self { nats, slot, class, ahead, keeper }
    }

    /// Until `shutdown` or the queue is closed. A frame that was taken is still queued.
    pub(super) async fn run(self, queue: mpsc::Sender<Frame>, shutdown: CancellationToken) {
        let consumer = subjects::frames_consumer(&self.slot.model().name, self.class);
        let mut retry = RETRY_FIRST;
        loop {
            let begun = Instant::now();
            let ended = self.pull(&consumer, &queue, &shutdown).await;
            if begun.elapsed() > STEADY {
                retry = RETRY_FIRST;
            }
            match ended {
                Ok(()) => return,
                Err(error) if retry == RETRY_FIRST => {
                    warn!(consumer, error, "pulling frames is interrupted, trying again");
                }
                Err(error) => debug!(consumer, error, "still can't pull frames"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(retry) => {}
            }
            retry = (retry * 2).min(RETRY_MOST);
        }
    }

    /// Pulls until `shutdown` (that is `Ok`) or trouble, in words.
    async fn pull(&self, name: &str, queue: &mpsc::Sender<Frame>, shutdown: &CancellationToken) -> Result<(), String> {
        let mut connections = self.nats.connections();
        let mut messages = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            opened = tokio::time::timeout(2 * NETWORK_PATIENCE, self.open(name)) => {
                opened.map_err(|_| "the server does not answer".to_owned())??
            }
        };
        debug!(consumer = name, "pulling frames");
        // Frames that have come and found no room. They are kept alive from the first moment, so that they are taken off
        // the connection at once; there are no more of them than were asked for.
        let mut waiting = VecDeque::new();
        loop {
            let message = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                room = queue.reserve(), if !waiting.is_empty() => {
                    let Ok(room) = room else { return Ok(()) };
                    if let Some(frame) = waiting.pop_front() {
                        room.send(frame);
                    }
                    continue;
                }
                message = messages.next(), if waiting.len() < self.ahead => {
                    message.ok_or("the pull ended")?.map_err(|e| chain(&e))?
                }
                // Stream and consumer may be gone, and the pull with them.
                Ok(()) = connections.changed() => return Err("the connection was replaced".to_owned()),
            };
            let published = match message.info() {
                Ok(info) => info.published.unix_timestamp_nanos(),
                Err(error) => return Err(format!("a message does not say where it comes from: {error}")),
            };
            let (message, acker) = message.split();
            let acker = self.keeper.hold(acker);
            let headers = message.headers.unwrap_or_default();
            let frame =
                Frame { headers, body: message.payload, published, acker, slot: self.slot.clone(), class: self.class };
            waiting.push_back(frame);
        }
    }

    /// The pull on the shared consumer; makes the consumer, and if need be the stream.
    async fn open(&self, name: &str) -> Result<pull::Stream, String> {
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            description: Some("workers of this model share it".into()),
            filter_subject: subjects::frames_of(&self.slot.model().name, self.class),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: MAX_DELIVERIES,
            max_ack_pending: MAX_IN_HAND,
            ..pull::Config::default()
        };
        let jetstream = &self.nats.jetstream;
        let create = || jetstream.create_consumer_on_stream(config.clone(), subjects::FRAMES);
        let consumer: PullConsumer = match create().await {
            Ok(consumer) => consumer,
            Err(_) => {
                streams::ensure(&self.nats).await.map_err(|e| chain(&e))?;
                create().await.map_err(|e| chain(&e))?
            }
        };
        consumer
            .stream()
            .max_messages_per_batch(self.ahead)
            .heartbeat(PULL_HEARTBEAT)
            .expires(PULL_EXPIRES)
            .messages()
            .await
            .map_err(|e| chain(&e))
    }
}
