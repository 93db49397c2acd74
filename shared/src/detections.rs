//! Stored detections of one scenario: where they begin and end. What a message holds stands in
//! [`message::detection`](crate::message::detection).

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::LastRawMessageErrorKind,
};
use futures::StreamExt;
use time::OffsetDateTime;
use tokio::time::{error::Elapsed, timeout};

use crate::{id::ScenarioId, moment::Moment, nats::Nats, subjects};

/// A question that takes longer has failed.
const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// The server forgets the consumer that a time is looked up by after this.
const FORGET: Duration = Duration::from_secs(10);

/// It could not be found out what is stored.
#[derive(Debug, thiserror::Error)]
pub enum DetectionsError {
    #[error("NATS does not tell in time which detections are stored: see that it runs")]
    Silent(#[from] Elapsed),
    #[error("can't read which detections are stored: see that kadr runs on this NATS server")]
    Read(#[from] async_nats::Error),
}

/// The sequence of the last one; none: none are stored.
pub async fn last(nats: &Nats, scenario: &ScenarioId) -> Result<Option<u64>, DetectionsError> {
    let ask = async {
        let stream = nats.jetstream.get_stream_no_info(subjects::DETECTIONS).await?;
        match stream.get_last_raw_message_by_subject(&subjects::detections(scenario)).await {
            Ok(message) => Ok(Some(message.sequence)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(async_nats::Error::from(error)),
        }
    };
    Ok(timeout(ASK_DEADLINE, ask).await??)
}

/// The sequence of the first one at a moment or behind it; none: there is none yet. Of a sequence, that very one, which
/// may be another scenario's.
pub async fn first(nats: &Nats, scenario: &ScenarioId, from: Moment) -> Result<Option<u64>, DetectionsError> {
    let start_time = match from {
        Moment::Seq(seq) => return Ok(Some(seq.max(1))),
        Moment::Time(time) => OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.as_millis()) * 1_000_000)
            .map_err(async_nats::Error::from)?,
    };
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartTime { start_time },
        filter_subject: subjects::detections(scenario),
        ack_policy: AckPolicy::None,
        inactive_threshold: FORGET,
        ..pull::Config::default()
    };
    let ask = async {
        let consumer = nats.jetstream.create_consumer_on_stream(config, subjects::DETECTIONS).await?;
        if consumer.cached_info().num_pending == 0 {
            return Ok(None);
        }
        let mut found = consumer.fetch().max_messages(1).expires(FORGET).messages().await?;
        match found.next().await {
            Some(message) => Ok::<_, async_nats::Error>(Some(message?.info()?.stream_sequence)),
            None => Ok(None),
        }
    };
    Ok(timeout(ASK_DEADLINE, ask).await??)
}
