//! A scenario's recording: pictures in, messages of some seconds stored in order, the oldest taken away.
//!
//! Whoever has pictures never waits here: storing is a task's, with a bound; what finds no room is left out, and told as trouble.
//! Which pictures they are is not known here, and what becomes of them neither: the API makes clips of them.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

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
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::meter::{Meter, Trouble};

/// A message is closed at the first key frame after this time.
const SPAN_MS: f64 = 2_000.0;
/// And before it has more bytes than this, wherever it is: the server takes 8 MB.
const MOST_BYTES: usize = 4 << 20;
/// What has come is stored after this time, also where nothing follows it: the camera may be away for long.
const QUIET: Duration = Duration::from_secs(5);
/// Messages that wait to be stored.
const WAITING: usize = 16;
/// One is tried to be stored for so long.
const PATIENCE: Duration = Duration::from_secs(30);
const TRY: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);
/// The end of a recording is waited for so long.
const GOODBYE: Duration = Duration::from_secs(1);

/// What stores a run's recordings in the background, until the run is let go.
#[derive(Clone, Default)]
pub(crate) struct Storing {
    tasks: TaskTracker,
    over: CancellationToken,
}

impl Storing {
    /// No more pictures will come, and all who took them are dropped: what is left is stored, if that is quick. Whoever has
    /// the scenario next, or deletes it, must not be met by what comes later.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        if timeout(GOODBYE, self.tasks.wait()).await.is_err() {
            warn!("the end of a recording could not be stored in time");
        }
        self.over.cancel();
    }

    /// Somebody else has the scenario: nothing more is stored.
    pub(crate) fn abandon(&self) {
        self.over.cancel();
    }
}

/// Takes a recording's pictures. Dropped, it stores what it has.
pub(crate) struct Archive {
    waiting: mpsc::Sender<Vec<AccessUnit>>,
    meter: Arc<Meter>,
    units: Vec<AccessUnit>,
    bytes: usize,
    /// A key frame came, and all that followed it was taken.
    whole: bool,
    /// When the last picture came.
    pushed: Instant,
}

impl Archive {
    pub(crate) fn open(nats: Nats, scenario: ScenarioId, record: Record, meter: Arc<Meter>, storing: &Storing) -> Self {
        let (waiting, queue) = mpsc::channel(WAITING);
        let keeper = Keeper { nats, scenario, record, meter: meter.clone(), kept: None };
        let over = storing.over.clone();
        storing.tasks.spawn(async move { over.run_until_cancelled_owned(keeper.work(queue)).await });
        Self { waiting, meter, units: Vec::new(), bytes: 0, whole: false, pushed: Instant::now() }
    }

    /// The next picture, in the order in which pictures are coded.
    pub(crate) fn push(&mut self, unit: AccessUnit) {
        let full = self.bytes + unit.body.len() > MOST_BYTES;
        let long = self
            .units
            .first()
            .is_some_and(|first| first.stream != unit.stream || unit.key && unit.pts_ms - first.pts_ms >= SPAN_MS);
        if full || long {
            self.flush();
        }
        // Nothing can be made of pictures before the first key frame, or behind one that is missing.
        self.whole |= unit.key;
        if !self.whole {
            return;
        }
        self.bytes += unit.body.len();
        self.units.push(unit);
        self.pushed = Instant::now();
    }

    /// Nothing comes just now: what has come some time ago is stored.
    pub(crate) fn rest(&mut self) {
        if self.pushed.elapsed() >= QUIET {
            self.flush();
        }
    }

    /// Stores what has come.
    pub(crate) fn flush(&mut self) {
        self.bytes = 0;
        let units = std::mem::take(&mut self.units);
        if !units.is_empty() && self.waiting.try_send(units).is_err() {
            self.whole = false;
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
            // A repeat, because an acknowledgement was lost, is known by this.
            let first = units.first().map(|unit| (unit.run, unit.stream, unit.pts_ms.to_bits()));
            let Some((run, stream, shown)) = first else { continue };
            let id = format!("{run}-{stream}-{shown:x}");
            let stored = timeout(PATIENCE, async {
                loop {
                    let message = PublishMessage::build()
                        .headers(span.headers())
                        .message_id(&id)
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

#[cfg(test)]
mod tests {
    use kadr_shared::{
        id::RunId,
        settings::Outputs,
        testkit::{PATIENCE, TestServer, eventually},
        time::Timestamp,
    };

    use super::*;

    fn unit(run: RunId, seconds: u32) -> AccessUnit {
        AccessUnit {
            run,
            stream: 1,
            group: 0,
            key: true,
            pts_ms: f64::from(seconds) * 1000.0,
            captured_at: Timestamp::from_millis(i64::from(seconds) * 1000),
            size: "64x64".parse().unwrap(),
            body: vec![0; 1000].into(),
        }
    }

    /// Records so many seconds, a key frame a second; gives when each message that is kept begins, in seconds.
    async fn kept(nats: &Nats, scenario: &str, keep_bytes: Option<u64>, seconds: std::ops::Range<u32>) -> Vec<i64> {
        let scenario: ScenarioId = scenario.parse().unwrap();
        let outputs: Outputs =
            serde_json::from_value(serde_json::json!({"record": {"keep_bytes": keep_bytes}})).unwrap();
        let meter = Arc::new(Meter::new(scenario.clone(), RunId::from_u128(7), 1));
        let storing = Storing::default();
        let mut archive = Archive::open(nats.clone(), scenario.clone(), outputs.record.unwrap(), meter, &storing);
        let run = RunId::generate();
        seconds.for_each(|second| archive.push(unit(run, second)));
        drop(archive);
        storing.tasks.close();
        timeout(PATIENCE, storing.tasks.wait()).await.unwrap();
        begins(nats, &scenario).await
    }

    /// When each message that is stored begins, in seconds.
    async fn begins(nats: &Nats, scenario: &ScenarioId) -> Vec<i64> {
        let stream = nats.jetstream.get_stream(subjects::RECORDINGS).await.unwrap();
        let mut begin = Vec::new();
        for (seq, _) in list(nats, scenario, u64::MAX).await.unwrap() {
            let message = stream.get_raw_message(seq).await.unwrap();
            begin.push(Span::parse(&message.headers).unwrap().from.as_millis() / 1000);
        }
        begin
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_came_is_stored_before_anything_follows() {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        let outputs: Outputs = serde_json::from_value(serde_json::json!({"record": {}})).unwrap();
        let meter = Arc::new(Meter::new("gate".parse().unwrap(), RunId::from_u128(7), 1));
        let storing = Storing::default();
        let scenario: ScenarioId = "gate".parse().unwrap();
        let mut archive = Archive::open(nats.clone(), scenario.clone(), outputs.record.unwrap(), meter, &storing);
        let run = RunId::generate();
        archive.push(AccessUnit { key: false, ..unit(run, 0) });
        archive.push(unit(run, 1));
        archive.flush();
        // What follows goes on without a key frame; another size's pictures are no part of it.
        archive.push(AccessUnit { key: false, ..unit(run, 2) });
        archive.push(AccessUnit { stream: 2, ..unit(run, 3) });
        archive.flush();
        let stored = eventually("three messages", || async {
            let stored = list(&nats, &scenario, u64::MAX).await.ok()?;
            (stored.len() == 3).then_some(())
        });
        stored.await;
        assert_eq!(begins(&nats, &scenario).await, [1, 2, 3], "the first picture follows on nothing");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_oldest_goes_where_there_is_too_much_also_of_an_earlier_attempt() {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        // Two pictures a message, and some hundred bytes that tell of them.
        assert_eq!(kept(&nats, "other", None, 0..8).await, [0, 2, 4, 6]);
        assert_eq!(kept(&nats, "gate", Some(7_500), 0..12).await, [6, 8, 10]);
        assert_eq!(kept(&nats, "gate", Some(7_500), 100..102).await, [8, 10, 100]);
        assert_eq!(kept(&nats, "gate", Some(1), 200..202).await, [200], "the newest stays");
        assert_eq!(kept(&nats, "other", None, 8..8).await, [0, 2, 4, 6], "others are left alone");
    }
}
