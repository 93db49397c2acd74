//! Reading a stream in order, from a position, for ever.
//!
//! The client's ordered consumer starts over from everything if it is recreated before its first message, notices the loss
//! of its consumer (with the node that it lay on) after half a minute, and ends on some errors. A [`Tail`] has a
//! short-lived consumer of its own, which it makes anew from its own position whenever anything is unclear: no gap, no
//! repeat, whatever happens underneath. A cluster that has lost the leader of its metadata makes no consumer for some
//! seconds, while streams have theirs: meanwhile messages are asked for one by one.

use std::time::Duration;

use async_nats::jetstream::{
    self, Message,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    stream::LastRawMessageErrorKind,
};
use futures::{StreamExt, future::BoxFuture};
use time::OffsetDateTime;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tracing::{debug, warn};

/// Between two tries to get at the stream.
const RETRY: Duration = Duration::from_millis(150);
/// A stream in memory that is silent for so long is looked at: another one may have taken its place.
const SILENCE: Duration = Duration::from_secs(1);
/// For that look.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// For making a consumer, ever longer up to [`ASK_TIMEOUT`]: one that was put on a node that can't keep it (its disk is full)
/// is never answered for, and the next may be put on another.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// A consumer is made in some milliseconds. One that takes so long may take long.
const UNUSUAL: Duration = Duration::from_millis(250);
/// The server says so often that it has nothing; twice as long without a word, and the consumer is taken for lost.
const HEARTBEAT: Duration = Duration::from_millis(750);
/// A request for messages waits at the server for so long.
const PULL: Duration = Duration::from_secs(10);
/// Messages a request.
const BATCH: usize = 500;
/// The server takes a consumer away that nobody has asked for so long.
const FORGOTTEN: Duration = Duration::from_secs(20);

/// A reader of a stream's messages on one subject filter.
pub struct Tail {
    jetstream: jetstream::Context,
    stream: &'static str,
    filter: String,
    next: u64,
    reading: Option<Reading>,
    /// A consumer that is being made.
    opening: Option<Opening>,
    /// Consumers in a row that could not be made.
    failures: u32,
    /// The last message was asked for by itself, and there may be another one.
    by_hand: bool,
    /// For a stream in memory: when it was made. Another one begins anew.
    made: Option<OffsetDateTime>,
    /// The last message that was there before.
    before: u64,
    volatile: bool,
}

type Opening = BoxFuture<'static, Result<pull::Stream, async_nats::Error>>;

struct Reading {
    messages: pull::Stream,
    /// Messages that this consumer has given: the next one's number is one higher, or one was lost on its way.
    delivered: u64,
}

/// A message with its place in the stream.
#[derive(Debug)]
pub struct Entry {
    pub seq: u64,
    pub time: crate::time::Timestamp,
    /// Messages on the filter that were behind it when it was sent; 0: it was the last.
    pub pending: u64,
    /// Of a stream in memory: it was there before its reader came.
    pub past: bool,
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
            reading: None,
            opening: None,
            failures: 0,
            by_hand: false,
            made: None,
            before: 0,
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
                // Sequences begin again in a stream that was made anew.
                Ok(Some(_)) if self.volatile => {
                    self.next = 1;
                    self.reading = None;
                }
                Ok(Some(_) | None) => {}
                Err(error) => {
                    self.reading = None;
                    warn!(stream = self.stream, filter = self.filter, error = %error, "reading is interrupted, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn poll(&mut self) -> Result<Option<Entry>, async_nats::Error> {
        let reading = match &mut self.reading {
            Some(reading) => reading,
            None => match self.open().await {
                Some(messages) => {
                    let messages = messages?;
                    self.failures = 0;
                    self.reading.insert(Reading { messages, delivered: 0 })
                }
                None => return self.ask().await,
            },
        };
        let next = if self.volatile {
            match timeout(SILENCE, reading.messages.next()).await {
                Ok(next) => next,
                // A consumer that begins behind the end of a stream that was made anew hears nothing, and no error.
                Err(_) => {
                    let stream = timeout(ASK_TIMEOUT, self.jetstream.get_stream(self.stream)).await??;
                    if self.made != Some(stream.cached_info().created) {
                        self.reading = None;
                    }
                    return Ok(None);
                }
            }
        } else {
            reading.messages.next().await
        };
        let message = match next {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                debug!(stream = self.stream, filter = self.filter, %error, "the consumer is lost, making another one");
                self.reading = None;
                return Ok(None);
            }
            None => {
                self.reading = None;
                return Ok(None);
            }
        };
        let info = message.info()?;
        let (seq, time, pending) = (info.stream_sequence, info.published.into(), info.pending);
        if info.consumer_sequence != reading.delivered + 1 {
            debug!(stream = self.stream, filter = self.filter, seq, "a message was lost on its way, asking again");
            self.reading = None;
            return Ok(None);
        }
        reading.delivered += 1;
        Ok(Some(Entry { seq, time, pending, past: seq <= self.before, message }))
    }

    /// Goes on making a consumer. `None`: after a while there is none yet, or it could not be made.
    async fn open(&mut self) -> Option<Result<pull::Stream, async_nats::Error>> {
        if self.volatile {
            let opened = timeout(self.patience(), self.open_volatile()).await;
            return Some(opened.unwrap_or_else(|late| Err(late.into())));
        }
        let opening = match &mut self.opening {
            Some(opening) => opening,
            None => {
                let (patience, rest) = (self.patience(), if self.failures > 1 { RETRY } else { Duration::ZERO });
                let consumer = self.consumer();
                self.opening.insert(Box::pin(async move {
                    tokio::time::sleep(rest).await;
                    timeout(patience, consumer).await?
                }))
            }
        };
        let usual = if self.by_hand { Duration::ZERO } else { UNUSUAL };
        tokio::select! {
            biased;
            opened = opening => {
                self.opening = None;
                match opened {
                    Ok(messages) => Some(Ok(messages)),
                    Err(error) => {
                        warn!(stream = self.stream, filter = self.filter, %error, "no consumer could be made, trying again");
                        None
                    }
                }
            }
            () = tokio::time::sleep(usual) => None,
        }
    }

    /// For the next try to make a consumer.
    fn patience(&mut self) -> Duration {
        let patience = OPEN_TIMEOUT.saturating_mul(self.failures + 1).min(ASK_TIMEOUT);
        self.failures = (self.failures + 1).min(10);
        patience
    }

    /// The next message by itself: it takes a leader of the stream, and nothing else.
    async fn ask(&mut self) -> Result<Option<Entry>, async_nats::Error> {
        self.by_hand = false;
        let read = async {
            let stream = self.jetstream.get_stream_no_info(self.stream).await?;
            Ok::<_, async_nats::Error>(stream.get_first_raw_message_by_subject(&self.filter, self.next).await)
        };
        let message = match timeout(OPEN_TIMEOUT, read).await?? {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.by_hand = true;
        let (seq, time) = (message.sequence, message.time.into());
        let message = async_nats::Message {
            subject: message.subject,
            reply: None,
            length: message.payload.len(),
            payload: message.payload,
            headers: Some(message.headers),
            status: None,
            description: None,
        };
        // Whether it is the last one is not known.
        let message = Message { message, context: self.jetstream.clone() };
        Ok(Some(Entry { seq, time, pending: 1, past: false, message }))
    }

    async fn open_volatile(&mut self) -> Result<pull::Stream, async_nats::Error> {
        let stream = self.jetstream.get_stream(self.stream).await?;
        let info = stream.cached_info();
        match self.made.replace(info.created) {
            None => self.before = info.state.last_sequence,
            // Whatever is in another one came while this reader was there.
            Some(made) if made != info.created => (self.next, self.before) = (1, 0),
            Some(_) => {}
        }
        self.consumer().await
    }

    /// A consumer from the next message on.
    fn consumer(&self) -> impl Future<Output = Result<pull::Stream, async_nats::Error>> + Send + use<> {
        let config = pull::Config {
            filter_subject: self.filter.clone(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next },
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGOTTEN,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let (jetstream, stream) = (self.jetstream.clone(), self.stream);
        async move {
            let consumer: PullConsumer = jetstream.create_consumer_on_stream(config, stream).await?;
            let stream = consumer.stream().max_messages_per_batch(BATCH).heartbeat(HEARTBEAT).expires(PULL);
            Ok(stream.messages().await?)
        }
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
