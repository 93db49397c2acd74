//! Looks on while things break: whether the streams have a leader with a quorum, whether an orchestrator lives, who
//! leads, and what every process holds of memory and open files. By its own connections, independent of kadr.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use async_nats::{Client, ConnectOptions};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{
    now,
    process::Kind,
    spans::{Cause, Span},
    world::World,
};

/// What must be writable for kadr to promise anything.
const STREAMS: [&str; 3] = ["KADR_INBOX", "KADR_EVENTS", "KV_KADR_NODES"];
/// What must work for frames to be analysed and their results to be stored.
const FRAMES: [&str; 2] = ["KADR_FRAMES", "KADR_DETECTIONS"];
/// Of files, for the harness's model.
const FRAMES_CONSUMER: &str = "KADR_FRAMES.tiny-batch";
/// What must have all its copies before the next node is hit.
const COPIES: [&str; 5] = ["KADR_INBOX", "KADR_EVENTS", "KV_KADR_NODES", "KADR_DETECTIONS", "KADR_FRAMES"];
const PERIOD: Duration = Duration::from_millis(100);
/// A leader that does not answer for so long does not answer.
const ANSWER: Duration = Duration::from_millis(300);
/// A follower that its leader has not heard of for so long is away (they speak once a second).
const SILENCE_NS: u64 = 2_500_000_000;
/// A look that came so late shows that this machine had no time for anybody.
const STARVED_MS: i64 = 1_000;

/// What a process holds, once a second.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub at: i64,
    pub rss_kib: u64,
    pub files: u64,
}

pub struct Watch {
    world: Arc<World>,
    /// One to each node, so that the end of one does not hide the others.
    pub clients: Vec<Client>,
    leader: AtomicU32,
    current: AtomicBool,
    spans: Mutex<Vec<Span>>,
    held: Mutex<BTreeMap<(String, usize), Vec<Held>>>,
}

impl Watch {
    pub async fn start(world: Arc<World>) -> Result<Arc<Self>> {
        let mut clients = Vec::new();
        for url in world.nats() {
            let options = ConnectOptions::new()
                .name("chaos-watch")
                .retry_on_initial_connect()
                .connection_timeout(Duration::from_secs(2))
                .request_timeout(Some(ANSWER * 3))
                .reconnect_delay_callback(|_| Duration::from_millis(100));
            clients.push(options.connect(url).await?);
        }
        Ok(Arc::new(Self {
            world,
            clients,
            leader: AtomicU32::new(0),
            current: AtomicBool::new(false),
            spans: Mutex::default(),
            held: Mutex::default(),
        }))
    }

    /// The process that leads, as its key says.
    pub fn leader(&self) -> Option<u32> {
        Some(self.leader.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    pub fn all_copies_are_current(&self) -> bool {
        self.current.load(Ordering::Relaxed)
    }

    /// When kadr could not be expected to do anything, so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn held(&self) -> BTreeMap<(String, usize), Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks on. Never returns.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(
            self.look_at_streams(),
            self.look_at_frames(),
            self.look_at_copies(),
            self.look_at_leader(),
            self.look_at_processes()
        );
    }

    async fn look_at_streams(&self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut preferred = 0;
        let mut last = now();
        loop {
            ticks.tick().await;
            let at = now();
            let orchestrator = self.world.one_can_work(Kind::Orchestrator);
            let worker = self.world.one_can_work(Kind::Inference);
            let quorum = self.quorum(STREAMS, &mut preferred).await;
            let until = now();
            self.mark(Cause::Quorum, !quorum, at, until);
            self.mark(Cause::Orchestrator, !orchestrator, at, until);
            self.mark(Cause::Worker, !worker, at, until);
            // The look itself may take as long as all nodes may take to answer; the pause before it may not.
            self.mark(Cause::Starved, at - last > STARVED_MS, last, at);
            last = until;
        }
    }

    /// Begins, prolongs or leaves a span: it lasts from the first bad look to the end of the next good one.
    pub fn mark(&self, cause: Cause, bad: bool, at: i64, until: i64) {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let open = spans.iter_mut().rev().find(|span| span.cause == cause && span.open);
        match (open, bad) {
            (Some(span), _) => {
                span.until = until;
                span.open = bad;
            }
            (None, true) => spans.push(Span { cause, from: at, until, open: true }),
            (None, false) => {}
        }
    }

    /// Whether each of the streams has a leader that answers and hears a majority.
    async fn quorum<const N: usize>(&self, streams: [&str; N], preferred: &mut usize) -> bool {
        let mut good = [false; N];
        for attempt in 0..self.clients.len() {
            let node = (*preferred + attempt) % self.clients.len();
            let Some(client) = self.clients.get(node) else { continue };
            let answers = futures::future::join_all(streams.iter().map(|stream| info(client, stream))).await;
            for (good, answer) in good.iter_mut().zip(answers) {
                *good |= answer.is_some_and(|info| has_majority(&info));
            }
            if good.iter().all(|good| *good) {
                *preferred = node;
                return true;
            }
        }
        false
    }

    async fn look_at_frames(&self) {
        let mut ticks = interval(PERIOD * 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut preferred = 0;
        loop {
            ticks.tick().await;
            let at = now();
            let mut good = self.quorum(FRAMES, &mut preferred).await;
            if let Some(client) = self.clients.get(preferred) {
                good &= ask(client, format!("$JS.API.CONSUMER.INFO.{FRAMES_CONSUMER}")).await.is_some();
            }
            self.mark(Cause::Frames, !good, at, now());
        }
    }

    async fn look_at_copies(&self) {
        loop {
            tokio::time::sleep(PERIOD * 5).await;
            let mut current = false;
            for client in &self.clients {
                let answers = futures::future::join_all(COPIES.iter().map(|stream| info(client, stream))).await;
                current |= answers.iter().all(|info| info.as_ref().is_some_and(all_current));
            }
            self.current.store(current, Ordering::Relaxed);
        }
    }

    async fn look_at_leader(&self) {
        let request = r#"{"last_by_subj": "$KV.KADR_NODES.leader"}"#;
        loop {
            tokio::time::sleep(PERIOD * 3).await;
            for client in &self.clients {
                let asked = client.request("$JS.API.STREAM.MSG.GET.KV_KADR_NODES", request.into());
                let Ok(Ok(answer)) = timeout(ANSWER, asked).await else { continue };
                self.leader.store(leader_in(&answer.payload).unwrap_or(0), Ordering::Relaxed);
                break;
            }
        }
    }

    async fn look_at_processes(&self) {
        let mut ticks = interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            for slot in self.world.slots() {
                let Some(pid) = slot.pid() else { continue };
                let Some(held) = held_by(pid) else { continue };
                let key = (slot.name.clone(), slot.lives().len().saturating_sub(1));
                self.held.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().push(held);
            }
        }
    }
}

/// What a stream's leader says of it.
async fn info(client: &Client, stream: &str) -> Option<Value> {
    ask(client, format!("$JS.API.STREAM.INFO.{stream}")).await
}

async fn ask(client: &Client, subject: String) -> Option<Value> {
    let asked = client.request(subject, "".into());
    let answer = timeout(ANSWER, asked).await.ok()?.ok()?;
    let info: Value = serde_json::from_slice(&answer.payload).ok()?;
    info.get("error").is_none().then_some(info)
}

fn replicas(info: &Value) -> Option<&Vec<Value>> {
    info.pointer("/cluster/replicas")?.as_array()
}

fn has_majority(info: &Value) -> bool {
    // One server alone is its own majority.
    let Some(replicas) = replicas(info) else { return true };
    let heard = |replica: &&Value| {
        replica.get("offline").and_then(Value::as_bool) != Some(true)
            && replica.get("active").and_then(Value::as_u64).is_some_and(|active| active < SILENCE_NS)
    };
    let copies = replicas.len() + 1;
    2 * (1 + replicas.iter().filter(heard).count()) > copies
}

fn all_current(info: &Value) -> bool {
    replicas(info).is_none_or(|replicas| {
        replicas.iter().all(|r| {
            r.get("current").and_then(Value::as_bool) == Some(true)
                && r.get("offline").and_then(Value::as_bool) != Some(true)
        })
    })
}

/// The process number at the end of the leader's name.
fn leader_in(answer: &[u8]) -> Option<u32> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let data = base64(answer.pointer("/message/data")?.as_str()?)?;
    let beat: Value = serde_json::from_slice(&data).ok()?;
    let name = beat.get("orchestrator")?.as_str()?;
    name.split('-').find_map(|part| part.parse().ok())
}

/// What the server's raw answers are written in.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for c in text.bytes().filter(|c| *c != b'=') {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

fn held_by(pid: u32) -> Option<Held> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let rss_kib = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Held { at: now(), rss_kib, files })
}
