//! Recorded video of scenarios: what there is, and a clip of it as fragmented MP4. Runners record; nothing is coded here.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use kadr_shared::{
    id::ScenarioId,
    message::{
        recording::{self, Span},
        video::AccessUnit,
    },
    nats::Nats,
    subjects,
    telemetry::chain,
    time::Timestamp,
};
use time::OffsetDateTime;
use tokio::time::{error::Elapsed, timeout};
use tracing::{debug, warn};

use crate::video::fmp4;

/// A question to NATS that takes longer has failed.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// The server forgets a consumer that nobody asks for so long: a player whose buffer is full takes nothing for a while.
const FORGET: Duration = Duration::from_secs(600);
/// The same where everything is taken at once.
const FORGET_SOON: Duration = Duration::from_secs(10);
/// Messages are stored some seconds after they begin, and cameras' clocks may be wrong by less than this.
const CLOCKS: Duration = Duration::from_secs(75);
/// Messages with less between them are one recording.
const GAP: Duration = Duration::from_secs(3);
/// A picture is shown no longer than this in a clip, in ticks: five seconds. Where a camera was away, the clip goes on.
const LONGEST_SHOWN: u64 = 450_000;
/// Of the last one nobody knows how long it is shown, in ticks: a twenty-fifth of a second.
const LAST_SHOWN: u64 = 3_600;

/// Recordings that can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordingsError {
    #[error("NATS does not tell in time what is recorded")]
    Silent(#[from] Elapsed),
    #[error("what is recorded can't be read")]
    Read(#[from] async_nats::Error),
}

/// The spans of time that are recorded, in their order.
pub(crate) async fn spans(nats: &Nats, scenario: &ScenarioId) -> Result<Vec<Span>, RecordingsError> {
    let mut reader = Reader::open(nats, scenario, DeliverPolicy::All, true).await?;
    let mut spans: Vec<Span> = Vec::new();
    while let Some((span, _)) = reader.next().await? {
        match spans.last_mut() {
            Some(last) if span.from.since(last.to) < GAP => last.to = last.to.max(span.to),
            _ => spans.push(span),
        }
    }
    Ok(spans)
}

/// A clip from the key frame at or before `from` up to `to`. `None`: nothing of it is recorded.
///
/// It ends where the camera's pictures become others (another size), and with its run: the rest is another clip.
pub(crate) async fn clip(
    nats: &Nats,
    scenario: &ScenarioId,
    from: Timestamp,
    to: Timestamp,
) -> Result<Option<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>>, RecordingsError> {
    let earliest = i128::from(from.as_millis()) - i128::try_from(CLOCKS.as_millis()).unwrap_or_default();
    let start = OffsetDateTime::from_unix_timestamp_nanos(earliest * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let policy = DeliverPolicy::ByStartTime { start_time: start };
    let reader = Reader::open(nats, scenario, policy, false).await?;
    let mut clip = Clip { reader, from, to, first: None, before: Vec::new(), next: None, number: 0, over: false };
    clip.next = clip.read().await?;
    if clip.next.is_none() {
        return Ok(None);
    }
    let fragments = futures::stream::unfold(clip, |mut clip| async move {
        match clip.fragment().await {
            Ok(fragment) => fragment.map(|bytes| (Ok(bytes), clip)),
            // The answer has begun: it is cut off, so that nobody takes it for whole.
            Err(error) => {
                warn!(error = chain(&error), "a clip is cut off");
                clip.over = true;
                Some((Err(std::io::Error::other(error)), clip))
            }
        }
    });
    Ok(Some(fragments))
}

/// A clip that is being made.
struct Clip {
    reader: Reader,
    from: Timestamp,
    to: Timestamp,
    first: Option<AccessUnit>,
    /// Before it has begun: the latest key frame, and what follows on it, which may fill several messages.
    before: Vec<AccessUnit>,
    /// Read, but not packed: how long its predecessor is shown follows from it.
    next: Option<Vec<AccessUnit>>,
    number: u32,
    over: bool,
}

impl Clip {
    /// The next message's pictures that belong to it.
    async fn read(&mut self) -> Result<Option<Vec<AccessUnit>>, RecordingsError> {
        while let Some((span, body)) = self.reader.next().await? {
            if span.from > self.to {
                // Clocks may have been set: what is stored just behind may be earlier.
                if span.from.since(self.to) > CLOCKS {
                    return Ok(None);
                }
                continue;
            }
            if self.first.is_some() && span.to < self.from {
                continue;
            }
            let mut units = recording::unpack(body).map_err(async_nats::Error::from)?;
            if self.first.is_none() {
                self.before = follow(std::mem::take(&mut self.before), units);
                let keys = || self.before.iter().enumerate().filter(|(_, unit)| unit.key);
                if span.to < self.from {
                    let latest = keys().next_back().map_or(self.before.len(), |(at, _)| at);
                    self.before.drain(..latest);
                    continue;
                }
                // From the last key frame at or before the moment that was asked for.
                let begin = keys().rev().find(|(_, unit)| unit.captured_at <= self.from).or_else(|| keys().next());
                let Some((begin, _)) = begin else { continue };
                units = self.before.split_off(begin);
                self.before = Vec::new();
                self.first = units.first().cloned();
            } else if !self.goes_on(&units) {
                return Ok(None);
            }
            let end = units.iter().position(|unit| unit.captured_at > self.to).unwrap_or(units.len());
            units.truncate(end.max(1));
            return Ok(Some(units));
        }
        Ok(None)
    }

    /// Whether pictures can be shown by the beginning that was written.
    fn goes_on(&self, units: &[AccessUnit]) -> bool {
        let (Some(first), Some(unit)) = (&self.first, units.first()) else { return false };
        // Times of another run begin anew.
        let like_it = unit.stream == first.stream || unit.key && unit.parameter_sets() == first.parameter_sets();
        unit.run == first.run && like_it
    }

    async fn fragment(&mut self) -> Result<Option<Bytes>, RecordingsError> {
        if self.over {
            return Ok(None);
        }
        let Some(mut units) = self.next.take() else { return Ok(None) };
        self.next = self.read().await?;
        let Some(first) = &self.first else { return Ok(None) };
        let base = first.pts_ms;
        let shown = |unit: &AccessUnit| fmp4::ticks((unit.pts_ms - base).max(0.0));
        let last = units.iter().map(shown).max().unwrap_or_default();
        let next = self.next.as_ref().and_then(|units| units.iter().map(shown).min());
        let end = next.filter(|next| *next > last).unwrap_or(last + LAST_SHOWN).min(last + LONGEST_SHOWN);
        let mut bytes = Vec::new();
        if self.number == 0 {
            bytes = fmp4::beginning(first).map_err(async_nats::Error::from)?;
        }
        self.number += 1;
        units.iter_mut().for_each(|unit| unit.pts_ms = (unit.pts_ms - base).max(0.0));
        let units: Vec<_> = units.into_iter().map(std::sync::Arc::new).collect();
        bytes.extend(fmp4::fragment(&units, self.number, end).map_err(async_nats::Error::from)?);
        Ok(Some(bytes.into()))
    }
}

/// A message's pictures behind those before them; by themselves, if they don't follow on them.
fn follow(mut before: Vec<AccessUnit>, units: Vec<AccessUnit>) -> Vec<AccessUnit> {
    let follows = before.last().zip(units.first()).is_some_and(|(last, next)| {
        (last.run, last.stream) == (next.run, next.stream) && next.captured_at.since(last.captured_at) < GAP
    });
    let bytes: usize = before.iter().map(|unit| unit.body.len()).sum();
    if !follows || bytes > MOST_BEFORE {
        return units;
    }
    before.extend(units);
    before
}

/// Reads what is stored of one scenario, in order, up to the end.
struct Reader {
    consumer: PullConsumer,
    left: u64,
    batch: Vec<(Span, Bytes)>,
}

/// Between a key frame and the moment that is asked for there are no more bytes than this.
const MOST_BEFORE: usize = 64 << 20;
/// Messages a request: some are megabytes large.
const BATCH: usize = 4;
const BATCH_OF_HEADERS: usize = 500;

impl Reader {
    async fn open(
        nats: &Nats,
        scenario: &ScenarioId,
        deliver_policy: DeliverPolicy,
        headers_only: bool,
    ) -> Result<Self, RecordingsError> {
        let config = pull::Config {
            deliver_policy,
            filter_subject: subjects::recordings(scenario),
            ack_policy: AckPolicy::None,
            headers_only,
            inactive_threshold: if headers_only { FORGET_SOON } else { FORGET },
            max_batch: i64::try_from(if headers_only { BATCH_OF_HEADERS } else { BATCH }).unwrap_or(1),
            ..pull::Config::default()
        };
        let create = nats.jetstream.create_consumer_on_stream(config, subjects::RECORDINGS);
        let consumer = timeout(ASK_DEADLINE, create).await?.map_err(async_nats::Error::from)?;
        let left = consumer.cached_info().num_pending;
        Ok(Self { consumer, left, batch: Vec::new() })
    }

    async fn next(&mut self) -> Result<Option<(Span, Bytes)>, RecordingsError> {
        while self.batch.is_empty() && self.left > 0 {
            let most = usize::try_from(self.consumer.cached_info().config.max_batch).unwrap_or(1).max(1);
            let left_before = self.left;
            let batch = async {
                let mut batch = Vec::new();
                let mut messages =
                    self.consumer.fetch().max_messages(most).messages().await.map_err(async_nats::Error::from)?;
                while let Some(message) = messages.next().await {
                    let message = message?;
                    let left = message.info()?.pending;
                    match Span::parse(&message.headers.clone().unwrap_or_default()) {
                        Ok(span) => batch.push((span, message.payload.clone())),
                        Err(error) => debug!(%error, "a recording can't be read; another version's, perhaps"),
                    }
                    self.left = left;
                    if left == 0 {
                        break;
                    }
                }
                Ok::<_, async_nats::Error>(batch)
            };
            let mut batch = timeout(ASK_DEADLINE, batch).await??;
            batch.reverse();
            // Nothing came at all: it was taken away meanwhile.
            if self.left == left_before {
                self.left = 0;
            }
            self.batch = batch;
        }
        Ok(self.batch.pop())
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use kadr_shared::{id::RunId, message::video::push_nal, testkit::TestServer};

    use super::*;

    const SECOND: i64 = 1_000;

    /// Taken at this second, and full of its number.
    fn unit(begin: i64, second: u8, key: bool) -> AccessUnit {
        let mut body = Vec::new();
        if key {
            push_nal(&mut body, &[0x67, 0x42, 0xc0, 0x1f, 1]);
            push_nal(&mut body, &[0x68, 0xce]);
        }
        push_nal(&mut body, &[vec![if key { 0x65 } else { 0x41 }], vec![0xe0 + second; 20]].concat());
        AccessUnit {
            run: RunId::from_u128(1),
            stream: 1,
            group: 0,
            key,
            pts_ms: f64::from(second) * 1000.0,
            captured_at: Timestamp::from_millis(begin + i64::from(second) * SECOND),
            size: "64x64".parse().unwrap(),
            body: body.into(),
        }
    }

    #[tokio::test]
    async fn a_moment_is_found_far_behind_its_key_frame() {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        let scenario: ScenarioId = "gate".parse().unwrap();
        let begin = Timestamp::now().as_millis();
        // Three messages, and key frames in the first and the last of them.
        for (from, to) in [(0, 4), (4, 8), (8, 12)] {
            let units: Vec<_> = (from..to).map(|second| unit(begin, second, matches!(second, 0 | 2 | 10))).collect();
            let headers = Span::of(&units).unwrap().headers();
            let body = recording::pack(&units).unwrap().unwrap();
            let subject = subjects::recordings(&scenario);
            nats.jetstream.publish_with_headers(subject, headers, body).await.unwrap().await.unwrap();
        }
        let seconds = async |from: i64, to: i64| {
            let at = |second: i64| Timestamp::from_millis(begin + second * SECOND);
            let clip = clip(&nats, &scenario, at(from), at(to)).await.unwrap()?;
            let bytes = clip.try_collect::<Vec<_>>().await.unwrap().concat();
            let has = |second: &u8| bytes.windows(20).any(|window| window == vec![0xe0 + second; 20]);
            Some((0..12).filter(has).collect::<Vec<u8>>())
        };
        assert_eq!(seconds(5, 6).await, Some(vec![2, 3, 4, 5, 6]), "the key frame is in another message");
        assert_eq!(seconds(9, 9).await, Some((2..=9).collect()));
        assert_eq!(seconds(1, 3).await, Some((0..=3).collect()));
        assert_eq!(seconds(11, 20).await, Some(vec![10, 11]));
        assert_eq!(seconds(600, 601).await, None);
    }
}
