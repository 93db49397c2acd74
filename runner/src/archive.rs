//! A scenario's recording: pictures in, messages of some seconds stored in order, the oldest taken away.
//!
//! Whoever has pictures never waits here: storing is a task's, with a bound; what finds no room is left out, and told as trouble.
//! Which pictures they are is not known here, and what becomes of them neither: the API makes clips of them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_nats::jetstream::{
    consumer::{AckPolicy, pull},
    message::PublishMessage,
};
use futures::StreamExt;
use kadr_shared::{
    id::ScenarioId,
    message::{
        recording::{self, Span},
        video::AccessUnit,
    },
    nats::Nats,
    publish::{Stored, publish},
    settings::Record,
    subjects,
    telemetry::chain,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::meter::{Meter, Trouble};

/// A message is closed at the first key frame after this time.
const SPAN_MS: f64 = 2_000.0;
/// And before it has more bytes than this, wherever it is: the server takes 8 MB.
const MOST_BYTES: usize = 4 << 20;
/// Messages that wait to be stored.
const WAITING: usize = 16;
/// One is tried to be stored for so long.
const PATIENCE: Duration = Duration::from_secs(30);
const TRY: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);

/// Takes a recording's pictures. Dropped, it stores what it has.
pub(crate) struct Archive {
    waiting: mpsc::Sender<Vec<AccessUnit>>,
    meter: Arc<Meter>,
    units: Vec<AccessUnit>,
    bytes: usize,
}

impl Archive {
    /// What it has is stored when `tasks` are done.
    pub(crate) fn open(
        nats: Nats,
        scenario: ScenarioId,
        record: Record,
        meter: Arc<Meter>,
        tasks: &TaskTracker,
    ) -> Self {
        let (waiting, queue) = mpsc::channel(WAITING);
        let keeper = Keeper { nats, scenario, record, meter: meter.clone(), kept: None };
        tasks.spawn(keeper.work(queue));
        Self { waiting, meter, units: Vec::new(), bytes: 0 }
    }

    /// The next picture, in the order in which pictures are coded.
    pub(crate) fn push(&mut self, unit: AccessUnit) {
        let full = self.bytes + unit.body.len() > MOST_BYTES;
        let long = self.units.first().is_some_and(|first| {
            let other = first.stream != unit.stream;
            unit.key && (other || unit.pts_ms - first.pts_ms >= SPAN_MS)
        });
        if full || long {
            self.flush();
        }
        // Nothing can be made of pictures before the first key frame.
        if self.units.is_empty() && self.bytes == 0 && !unit.key && !full {
            return;
        }
        self.bytes += unit.body.len();
        self.units.push(unit);
    }

    fn flush(&mut self) {
        self.bytes = 0;
        let units = std::mem::take(&mut self.units);
        if !units.is_empty() && self.waiting.try_send(units).is_err() {
            self.meter.trouble(Trouble::Recording, Some("recording: NATS is too slow, video is left out".to_owned()));
        }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Stores messages, and keeps no more than is to be kept.
struct Keeper {
    nats: Nats,
    scenario: ScenarioId,
    record: Record,
    meter: Arc<Meter>,
    /// What is stored, oldest first: sequence and bytes. None: not known yet.
    kept: Option<VecDeque<(u64, u64)>>,
}

impl Keeper {
    async fn work(mut self, mut queue: mpsc::Receiver<Vec<AccessUnit>>) {
        while let Some(units) = queue.recv().await {
            let (Some(span), Ok(Some(body))) = (Span::of(&units), recording::pack(&units)) else { continue };
            let bytes = body.len() as u64;
            let stored = timeout(PATIENCE, async {
                loop {
                    let message = PublishMessage::build()
                        .headers(span.headers())
                        .payload(body.clone())
                        .ttl(self.record.keep_days.span());
                    let subject = subjects::recordings(&self.scenario);
                    let error = match timeout(TRY, publish(&self.nats.jetstream, subject, message)).await {
                        Ok(Ok(Stored::At(seq))) => return seq,
                        Ok(Ok(other)) => format!("{other:?}"),
                        Ok(Err(error)) => chain(&error),
                        Err(_) => "no answer from NATS".to_owned(),
                    };
                    self.meter.trouble(Trouble::Recording, Some(format!("can't store the recording: {error}")));
                    tokio::time::sleep(RETRY).await;
                }
            });
            match stored.await {
                Ok(seq) => {
                    self.meter.trouble(Trouble::Recording, None);
                    self.keep(seq, bytes).await;
                }
                Err(_) => warn!(scenario = %self.scenario, "a part of the recording could not be stored"),
            }
        }
    }

    /// Takes the oldest away where there is too much.
    async fn keep(&mut self, seq: u64, bytes: u64) {
        let Some(most) = self.record.keep_bytes else { return };
        let mut kept = match self.kept.take() {
            Some(kept) => kept,
            None => match timeout(TRY, list(&self.nats, &self.scenario, seq)).await {
                Ok(Ok(kept)) => kept,
                Ok(Err(error)) => return debug!(scenario = %self.scenario, %error, "can't list recordings"),
                Err(_) => return debug!(scenario = %self.scenario, "can't list recordings in time"),
            },
        };
        kept.push_back((seq, bytes));
        let mut total: u64 = kept.iter().map(|(_, bytes)| bytes).sum();
        let mut from = None;
        // The newest stays, however large it is.
        while total > most.get() && kept.len() > 1 {
            let Some((_, bytes)) = kept.pop_front() else { break };
            total -= bytes;
            from = kept.front().map(|(seq, _)| *seq);
        }
        if let Some(from) = from
            && let Err(error) = self.purge(from).await
        {
            // They are looked for anew with the next message.
            return debug!(scenario = %self.scenario, error, "can't take the oldest recordings away");
        }
        self.kept = Some(kept);
    }

    /// Takes away what is before a sequence.
    async fn purge(&self, from: u64) -> Result<(), String> {
        let purge = async {
            let stream = self.nats.jetstream.get_stream_no_info(subjects::RECORDINGS).await.map_err(|e| chain(&e))?;
            let filter = subjects::recordings(&self.scenario);
            stream.purge().filter(filter).sequence(from).await.map_err(|e| chain(&e))
        };
        timeout(TRY, purge).await.map_err(|_| "no answer from NATS".to_owned())?.map(drop)
    }
}

/// Sequences and bytes of what is stored before a sequence.
async fn list(nats: &Nats, scenario: &ScenarioId, before: u64) -> Result<VecDeque<(u64, u64)>, async_nats::Error> {
    let config = pull::Config {
        filter_subject: subjects::recordings(scenario),
        ack_policy: AckPolicy::None,
        headers_only: true,
        inactive_threshold: TRY,
        ..pull::Config::default()
    };
    let consumer = nats.jetstream.create_consumer_on_stream(config, subjects::RECORDINGS).await?;
    let mut kept = VecDeque::new();
    let mut messages = consumer.stream().messages().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        let info = message.info()?;
        if info.stream_sequence >= before {
            break;
        }
        let size = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Size"));
        kept.push_back((info.stream_sequence, size.and_then(|size| size.as_str().parse().ok()).unwrap_or(0)));
        if info.pending == 0 {
            break;
        }
    }
    Ok(kept)
}
