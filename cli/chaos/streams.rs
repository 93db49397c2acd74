//! Reads streams whole, straight from NATS: what the checks go by.

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures::StreamExt;
use serde_json::Value;
use tokio::time::timeout;

pub const INBOX: &str = "KADR_INBOX";
pub const EVENTS: &str = "KADR_EVENTS";
pub const DETECTIONS: &str = "KADR_DETECTIONS";

/// The longest wait for one message of a stream that is said to have it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message as it is stored. Times are milliseconds since 1970 by the server's clock.
#[derive(Debug, Clone)]
pub struct Message {
    pub seq: u64,
    pub at: i64,
    pub subject: String,
    pub body: Value,
    /// Of a stored result: the fence of whoever stored it.
    pub fence: Option<u64>,
}

impl Message {
    pub fn new(message: &jetstream::Message) -> Result<Self> {
        let info = message.info().map_err(|error| anyhow::anyhow!("{error}"))?;
        let at = i64::try_from(info.published.unix_timestamp_nanos() / 1_000_000)?;
        let (seq, subject) = (info.stream_sequence, message.subject.to_string());
        let body = serde_json::from_slice(&message.payload).unwrap_or(Value::Null);
        let fence = message.headers.as_ref().and_then(|h| h.get("Kadr-Fence")?.as_str().parse().ok());
        Ok(Self { seq, at, subject, body, fence })
    }

    /// A part of the subject.
    pub fn token(&self, number: usize) -> &str {
        self.subject.split('.').nth(number).unwrap_or_default()
    }

    pub fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn number(&self, pointer: &str) -> Option<u64> {
        self.body.pointer(pointer).and_then(Value::as_u64)
    }
}

/// All that a stream holds, in its order.
pub async fn read(context: &jetstream::Context, name: &str) -> Result<Vec<Message>> {
    let stream = context.get_stream(name).await.with_context(|| format!("can't read stream {name}"))?;
    let state = &stream.cached_info().state;
    let (count, last) = (state.messages, state.last_sequence);
    let mut messages = Vec::new();
    if count == 0 {
        return Ok(messages);
    }
    let consumer = stream.create_consumer(OrderedConfig::default()).await?;
    let mut feed = consumer.messages().await?;
    loop {
        let next = timeout(PATIENCE, feed.next()).await.with_context(|| format!("stream {name} stops short"))?;
        let message = Message::new(&next.with_context(|| format!("stream {name} ends early"))??)?;
        let seq = message.seq;
        messages.push(message);
        if seq >= last {
            return Ok(messages);
        }
    }
}
