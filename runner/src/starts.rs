//! The starts that all runners share: one consumer, from which each takes one at a time.
//!
//! A start that is neither claimed nor refused in time is offered to another runner. What becomes of a start is the
//! attempt's business.

use std::time::Duration;

use async_nats::jetstream::{
    self, AckKind, ErrorCode,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    context::ConsumerInfoErrorKind,
};
use futures::StreamExt;
use kadr_shared::{
    domain::EventData,
    id::{RunId, ScenarioId},
    log,
    nats::Nats,
    settings::Settings,
    subjects::{self, STARTS_CONSUMER as CONSUMER},
    tail::Entry,
    telemetry::chain,
};
use tracing::{info, warn};

use crate::patience::{REQUEST, RETRY, answered};

/// A start that shows no sign of being tried for this long is offered to another runner.
const ACK_WAIT: Duration = Duration::from_secs(2);
/// How often a start that is being tried says so.
pub(crate) const PROGRESS: Duration = Duration::from_millis(600);
/// Starts that all runners may be trying at a time.
const IN_HAND: i64 = 10_000;
/// How long one request for a start waits at the server. Short: what a lost one would have got waits for [`ACK_WAIT`].
const PULL: Duration = Duration::from_secs(1);
/// The server says within this time after it that there was nothing; if not, the consumer's leader is gone.
const PULL_SLACK: Duration = Duration::from_millis(500);
/// A start that this version can't read is offered again after this time: another runner may be of a newer one.
const UNREADABLE: Duration = Duration::from_secs(5);

/// A start of the log.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) scenario: ScenarioId,
    pub(crate) seq: u64,
    pub(crate) run: RunId,
    pub(crate) settings: Settings,
}

/// A start that this runner was given to try.
pub(crate) struct Offer {
    pub(crate) start: Start,
    message: jetstream::Message,
}

impl Offer {
    /// Whether nobody was given it before.
    pub(crate) fn is_first(&self) -> bool {
        self.message.info().is_ok_and(|info| info.delivered == 1)
    }

    /// Done with: it is offered to nobody any more.
    pub(crate) async fn settle(&self) {
        self.answer(AckKind::Ack).await;
    }

    /// Still being tried.
    pub(crate) async fn keep(&self) {
        self.answer(AckKind::Progress).await;
    }

    /// For another runner, at once.
    pub(crate) async fn hand_back(&self) {
        self.answer(AckKind::Nak(None)).await;
    }

    async fn answer(&self, kind: AckKind) {
        answer(&self.message, kind).await;
    }
}

/// An answer that is lost, or that the connection does not take in time, leads to the start being offered again.
async fn answer(message: &jetstream::Message, kind: AckKind) {
    match tokio::time::timeout(REQUEST, message.ack_with(kind)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "can't answer for a start: it is offered again"),
        Err(_) => warn!("can't answer for a start in time: it is offered again"),
    }
}

/// The shared consumer.
pub(crate) struct Starts {
    nats: Nats,
    consumer: Option<PullConsumer>,
}

impl Starts {
    pub(crate) const fn new(nats: Nats) -> Self {
        Self { nats, consumer: None }
    }

    /// The next start. Waits as long as there is none; survives the loss of consumer, connection and server.
    pub(crate) async fn next(&mut self) -> Offer {
        loop {
            match self.pull().await {
                Ok(Some(message)) => match parse(&message) {
                    Ok(start) => return Offer { start, message },
                    Err(kind) => answer(&message, kind).await,
                },
                Ok(None) => {}
                Err(error) => {
                    warn!(error, "can't ask for starts, trying again");
                    self.consumer = None;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn pull(&mut self) -> Result<Option<jetstream::Message>, String> {
        let mut connections = self.nats.connections();
        let consumer = match &self.consumer {
            Some(consumer) => consumer,
            None => {
                let opened = answered(&self.nats, 2 * REQUEST, open(&self.nats)).await;
                self.consumer.insert(opened.ok_or("no answer from NATS")?.map_err(|e| e.to_string())?)
            }
        };
        let request = consumer.batch().max_messages(1).expires(PULL).messages();
        let mut batch =
            answered(&self.nats, REQUEST, request).await.ok_or("no answer from NATS")?.map_err(|e| chain(&e))?;
        tokio::select! {
            message = batch.next() => message.transpose().map_err(|e| e.to_string()),
            // The request went with the connection.
            Ok(()) = connections.changed() => Ok(None),
            // The server should have said by now that there was nothing: the consumer may be gone.
            () = tokio::time::sleep(PULL + PULL_SLACK) => {
                self.consumer = None;
                Ok(None)
            }
        }
    }
}

/// The consumer, made if it is missing and brought to this version's settings.
async fn open(nats: &Nats) -> Result<PullConsumer, async_nats::Error> {
    let stream = nats.jetstream.get_stream_no_info(subjects::EVENTS).await?;
    match stream.consumer_info(CONSUMER).await {
        Ok(info) => {
            let mut config: pull::Config = jetstream::consumer::FromConsumer::try_from_consumer_config(info.config)?;
            // Where it began can't be changed, and need not be.
            if config.ack_wait != ACK_WAIT || config.max_ack_pending != IN_HAND {
                info!(consumer = CONSUMER, "bringing the shared consumer to this version's settings");
                (config.ack_wait, config.max_ack_pending) = (ACK_WAIT, IN_HAND);
                return Ok(stream.update_consumer(config).await?);
            }
            stream.get_consumer(CONSUMER).await
        }
        Err(error) if is_missing(&error.kind()) => {
            let config = pull::Config {
                durable_name: Some(CONSUMER.into()),
                description: Some("runners share it: each start is offered until one has claimed it".into()),
                filter_subject: subjects::STARTS.into(),
                // A scenario's latest start makes its earlier ones void: one that was made again offers no more than these,
                // and most of them are found void by one look each.
                deliver_policy: DeliverPolicy::LastPerSubject,
                ack_policy: AckPolicy::Explicit,
                ack_wait: ACK_WAIT,
                max_ack_pending: IN_HAND,
                ..pull::Config::default()
            };
            info!(consumer = CONSUMER, "making the shared consumer");
            Ok(stream.create_consumer(config).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a consumer that was asked for does not exist.
pub(crate) fn is_missing(kind: &ConsumerInfoErrorKind) -> bool {
    match kind {
        ConsumerInfoErrorKind::NotFound => true,
        ConsumerInfoErrorKind::JetStream(error) => error.error_code() == ErrorCode::CONSUMER_NOT_FOUND,
        _ => false,
    }
}

/// The start in a message, or how it is to be answered if there is none to be had.
fn parse(message: &jetstream::Message) -> Result<Start, AckKind> {
    // Not from a consumer, or none of kadr's: nobody will ever run it.
    let info = message.info().map_err(|_| AckKind::Term)?;
    let entry = Entry {
        seq: info.stream_sequence,
        time: info.published.into(),
        pending: info.pending,
        past: false,
        message: message.clone(),
    };
    let event = log::read(&entry).map_err(|error| {
        warn!(error = chain(&error), "a start can't be read: it is put aside");
        AckKind::Term
    })?;
    match event.parse() {
        Ok(EventData::StartRequested { run, settings, .. }) => {
            Ok(Start { scenario: event.scenario, seq: event.seq, run, settings: *settings })
        }
        Ok(_) => Err(AckKind::Term),
        Err(error) => {
            warn!(error = chain(&error), "a start can't be understood: it is left to a newer runner");
            Err(AckKind::Nak(Some(UNREADABLE)))
        }
    }
}
