//! Reading a stream in order, from a position, for ever.
//!
//! The client's ordered consumer starts over from everything if it is recreated before its first message, and ends on
//! some errors. A [`Tail`] keeps its own position: no gap, no repeat, whatever happens underneath.

use std::time::Duration;

use async_nats::jetstream::{
    self, Message,
    consumer::{
        DeliverPolicy,
        pull::{Ordered, OrderedConfig},
    },
};
use futures::StreamExt;
use time::OffsetDateTime;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tracing::warn;

/// Between two tries to get at the stream.
const RETRY: Duration = Duration::from_millis(250);
/// A stream in memory that is silent for so long is looked at: another one may have taken its place.
const SILENCE: Duration = Duration::from_secs(1);
/// For that look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// A reader of a stream's messages on one subject filter.
pub struct Tail {
    jetstream: jetstream::Context,
    stream: &'static str,
    filter: String,
    next: u64,
    messages: Option<Ordered>,
    /// For a stream in memory: when it was made. Another one begins anew.
    made: Option<OffsetDateTime>,
    volatile: bool,
}

/// A message with its place in the stream.
#[derive(Debug)]
pub struct Entry {
    pub seq: u64,
    pub time: crate::time::Timestamp,
    /// Messages on the filter that were behind it when it was sent; 0: it was the last.
    pub pending: u64,
    pub message: Message,
}

impl Tail {
    /// Reads from sequence `from` on, which need not exist yet.
    pub fn new(jetstream: jetstream::Context, stream: &'static str, filter: impl Into<String>, from: u64) -> Self {
        Self {
            jetstream,
            stream,
            filter: filter.into(),
            next: from.max(1),
            messages: None,
            made: None,
            volatile: false,
        }
    }

    /// Reads a stream that is kept in memory from its beginning, and from the beginning of the one that replaces it
    /// after the server was restarted.
    pub fn volatile(jetstream: jetstream::Context, stream: &'static str, filter: impl Into<String>) -> Self {
        Self { volatile: true, ..Self::new(jetstream, stream, filter, 1) }
    }

    /// Reads in a task of its own, at most `capacity` messages ahead of whoever takes them.
    pub fn spawn(mut self, capacity: usize) -> Feed {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let task = tokio::spawn(async move { while sender.send(self.next().await).await.is_ok() {} });
        Feed { receiver, task }
    }

    /// The next message. Waits as long as there is none; survives the loss of consumer, connection and server.
    ///
    /// May be dropped at any await: nothing is lost.
    pub async fn next(&mut self) -> Entry {
        loop {
            match self.poll().await {
                Ok(Some(entry)) if entry.seq >= self.next => {
                    self.next = entry.seq + 1;
                    return entry;
                }
                // The client goes on by itself in a stream that was made anew, where sequences begin again.
                Ok(Some(_)) if self.volatile => {
                    self.next = 1;
                    self.messages = None;
                }
                Ok(Some(_) | None) => {}
                Err(error) => {
                    self.messages = None;
                    warn!(stream = self.stream, filter = self.filter, error = %error, "reading is interrupted, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn poll(&mut self) -> Result<Option<Entry>, async_nats::Error> {
        let messages = match &mut self.messages {
            Some(messages) => messages,
            None => {
                if self.volatile {
                    let made = self.jetstream.get_stream(self.stream).await?.cached_info().created;
                    if self.made.replace(made).is_some_and(|before| before != made) {
                        self.next = 1;
                    }
                }
                let config = OrderedConfig {
                    filter_subject: self.filter.clone(),
                    deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next },
                    ..OrderedConfig::default()
                };
                let consumer = self.jetstream.create_consumer_on_stream(config, self.stream).await?;
                self.messages.insert(consumer.messages().await?)
            }
        };
        let next = if self.volatile {
            match timeout(SILENCE, messages.next()).await {
                Ok(next) => next,
                // A consumer that begins behind the end of a stream that was made anew hears nothing, and no error.
                Err(_) => {
                    let stream = timeout(LOOK_TIMEOUT, self.jetstream.get_stream(self.stream)).await??;
                    if self.made != Some(stream.cached_info().created) {
                        self.messages = None;
                    }
                    return Ok(None);
                }
            }
        } else {
            messages.next().await
        };
        let Some(message) = next else {
            self.messages = None;
            return Ok(None);
        };
        let message = message?;
        let info = message.info()?;
        let (seq, time, pending) = (info.stream_sequence, info.published.into(), info.pending);
        Ok(Some(Entry { seq, time, pending, message }))
    }
}

/// A [`Tail`] that reads ahead. Reading ends when it is dropped.
pub struct Feed {
    receiver: mpsc::Receiver<Entry>,
    task: JoinHandle<()>,
}

impl Feed {
    /// The next message; waits as long as there is none. May be dropped at any await: nothing is lost.
    pub async fn next(&mut self) -> Entry {
        match self.receiver.recv().await {
            Some(entry) => entry,
            // The reading task never ends by itself; at the runtime's end there is nothing more to say.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}
