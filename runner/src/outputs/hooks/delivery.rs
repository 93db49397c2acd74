//! Delivering one scenario's results: what is at hand, in order, until it is taken.
//!
//! The consumer gives one message. With it in hand nobody else gets one, so that what is stored behind it can be read and
//! sent along; then the consumer is set behind the last of it. A request that fails is tried again after a pause, which the
//! server keeps, as it counts the tries: by whichever runner is there then.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message, consumer::PullConsumer, stream::LastRawMessageErrorKind};
use futures::StreamExt;
use kadr_shared::{
    filter::Selection, id::ScenarioId, message::detection::FrameDetections, secret, settings::Webhook, subjects,
};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use super::{
    Shared, WANTED, is_missing,
    request::{Batch, Receiver},
};
use crate::patience::{REQUEST, answered};

/// Pauses between tries, each twice as long as the one before, give or take a half: many receivers that were away together
/// are not asked together.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(300);
/// How long one request for a result waits at the server.
const PULL: Duration = Duration::from_secs(5);
/// The server says within this time after it that there was nothing.
const PULL_SLACK: Duration = Duration::from_secs(1);
/// Without a new result for so long, the next look finds them.
const IDLE: u32 = 12;
/// How often a message in hand says so.
const PROGRESS: Duration = Duration::from_secs(3);
/// Results that are looked through for a request.
const LOOKED_THROUGH: usize = 1000;

/// Delivers until there is nothing more for a while.
pub(super) async fn deliver(shared: &Shared, scenario: &ScenarioId) -> Result<(), async_nats::Error> {
    let stream = shared.nats.jetstream.get_stream_no_info(subjects::DETECTIONS).await?;
    let consumer: PullConsumer = timeout(REQUEST, stream.get_consumer(&subjects::webhook_consumer(scenario))).await??;
    let wanted =
        consumer.cached_info().config.metadata.get(WANTED).ok_or("the webhook's consumer is none of kadr's")?;
    let webhook: Webhook = serde_json::from_str(wanted)?;
    let secret = match (&webhook.secret, &shared.secret_key) {
        (None, _) => None,
        (Some(_), None) => {
            return Err(
                "this runner has no key to read the webhook's secret with: give all APIs and runners the same \
                        secret_key_file (KADR_SECRET_KEY_FILE)"
                    .into(),
            );
        }
        (Some(name), Some(key)) => Some(secret::read(&shared.nats, key, scenario, name).await?),
    };
    let receiver = Receiver::new(shared.client().await?.clone(), webhook.url.get().clone(), secret);
    let mut selection = Selection::new(webhook.filter());
    if let Some(last) = told_last(shared, scenario, &consumer).await? {
        selection.resume(last);
    }
    let mut delivery = Delivery { shared, scenario, wanted: wanted.clone(), consumer, receiver, selection };
    let mut idle = 0;
    while idle < IDLE {
        let message = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return Ok(()),
            message = delivery.pull() => message?,
        };
        idle = if message.is_some() { 0 } else { idle + 1 };
        if let Some(message) = message
            && !delivery.take(&message).await?
        {
            return Ok(());
        }
    }
    Ok(())
}

/// The last result that was delivered or passed over, if it is still stored.
async fn told_last(
    shared: &Shared,
    scenario: &ScenarioId,
    consumer: &PullConsumer,
) -> Result<Option<FrameDetections>, async_nats::Error> {
    let seq = consumer.cached_info().ack_floor.stream_sequence;
    if seq == 0 {
        return Ok(None);
    }
    let stream = shared.nats.jetstream.get_stream_no_info(subjects::DETECTIONS).await?;
    match timeout(REQUEST, stream.get_raw_message(seq)).await? {
        Ok(message) if message.subject.as_str() == subjects::detections(scenario) => {
            Ok(serde_json::from_slice(&message.payload).ok())
        }
        _ => Ok(None),
    }
}

struct Delivery<'a> {
    shared: &'a Shared,
    scenario: &'a ScenarioId,
    /// What is wanted, as the consumer says it.
    wanted: String,
    consumer: PullConsumer,
    receiver: Receiver,
    selection: Selection,
}

impl Delivery<'_> {
    /// The next result, if one comes; an error if the consumer is gone.
    async fn pull(&mut self) -> Result<Option<Message>, async_nats::Error> {
        let nats = &self.shared.nats;
        let request = self.consumer.batch().max_messages(1).expires(PULL).messages();
        let mut batch = answered(nats, REQUEST, request).await.ok_or("no answer from NATS")??;
        match answered(nats, PULL + PULL_SLACK, batch.next()).await {
            Some(message) => message.transpose(),
            None => Err("no answer from NATS".into()),
        }
    }

    /// Delivers a result and what is stored behind it; false: it is to begin anew, with what is wanted now.
    async fn take(&mut self, message: &Message) -> Result<bool, async_nats::Error> {
        if !self.is_up_to_date().await? {
            message.ack_with(AckKind::Nak(None)).await?;
            return Ok(false);
        }
        let mut selection = self.selection.clone();
        let batch = self.gather(message, &mut selection).await?;
        let sent = async {
            if batch.is_empty() {
                return Ok(());
            }
            let mut signs = interval(PROGRESS);
            signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let sending = self.receiver.send(self.scenario, &batch);
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    sent = &mut sending => return sent,
                    _ = signs.tick() => {
                        // If it does not arrive, another runner may send the same: once more than needed.
                        let _ = message.ack_with(AckKind::Progress).await;
                    }
                }
            }
        };
        match sent.await {
            Ok(()) => {
                self.shared.tell(self.scenario, None);
                self.selection = selection;
                self.advance(message, batch.last).await?;
            }
            Err(error) => {
                let tries = message.info().map_or(1, |info| info.delivered);
                let pause = pause(tries, fastrand::f64());
                let text = format!("the webhook takes no results: {error}");
                warn!(scenario = %self.scenario, error = text, tries, ?pause, "trying again");
                self.shared.tell(self.scenario, Some(text));
                message.ack_with(AckKind::Nak(Some(pause))).await?;
            }
        }
        Ok(true)
    }

    /// Whether the consumer still is there and wants the same.
    async fn is_up_to_date(&mut self) -> Result<bool, async_nats::Error> {
        let stream = self.shared.nats.jetstream.get_stream_no_info(subjects::DETECTIONS).await?;
        let name = subjects::webhook_consumer(self.scenario);
        match timeout(REQUEST, stream.consumer_info(&name)).await? {
            Ok(info) => Ok(info.config.metadata.get(WANTED) == Some(&self.wanted)),
            Err(error) if is_missing(&error.kind()) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What is to be sent, from the message on.
    async fn gather(&self, message: &Message, selection: &mut Selection) -> Result<Batch, async_nats::Error> {
        let info = message.info()?;
        let mut batch = Batch::new(info.stream_sequence);
        batch.add(info.stream_sequence, &message.payload, selection);
        let subject = subjects::detections(self.scenario);
        let stream = self.shared.nats.jetstream.get_stream_no_info(subjects::DETECTIONS).await?;
        for _ in 1..LOOKED_THROUGH {
            if batch.is_full() {
                break;
            }
            let next = stream.get_first_raw_message_by_subject(&subject, batch.last + 1);
            match timeout(REQUEST, next).await? {
                Ok(next) => batch.add(next.sequence, &next.payload, selection),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(batch)
    }

    /// Sets the consumer behind what was delivered.
    async fn advance(&mut self, message: &Message, last: u64) -> Result<(), async_nats::Error> {
        let only = message.info()?.stream_sequence == last;
        if only {
            return timeout(REQUEST, message.double_ack()).await?;
        }
        timeout(REQUEST, self.consumer.reset(Some(last + 1))).await??;
        Ok(())
    }
}

/// Before the next try, after so many. `chance` is from 0 to 1.
fn pause(tries: i64, chance: f64) -> Duration {
    let doublings = u32::try_from(tries.clamp(1, 20) - 1).unwrap_or(0);
    PAUSE_FIRST.saturating_mul(1 << doublings).min(PAUSE_MOST).mul_f64(chance + 0.5).min(PAUSE_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes() {
        assert_eq!(pause(1, 0.5), Duration::from_secs(1));
        assert_eq!(pause(4, 0.5), Duration::from_secs(8));
        assert_eq!(pause(2, 0.0), Duration::from_secs(1));
        assert_eq!(pause(i64::MAX, 1.0), PAUSE_MOST);
        assert_eq!(pause(0, 0.5), Duration::from_secs(1));
    }
}
