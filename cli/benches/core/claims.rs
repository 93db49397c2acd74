//! A thousand scenarios started at once: how long until runners have all of them.

use std::process::Command as Program;

use futures::{StreamExt, stream};
use kadr_shared::{
    domain::{Command, EventData},
    id::RunnerId,
    log,
    nats::Nats,
    subjects,
    tail::Tail,
};
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    load::{scenario, send, settings},
    print, round,
    server::Server,
};

const SCENARIOS: usize = 1000;
const RUNNERS: usize = 4;
const CAPACITY: usize = 300;

pub(crate) async fn run() {
    let (server, nats) = Server::start(true).await;
    let folder = TempDir::with_prefix("kadr-bench-").unwrap();
    let image = folder.path().join("picture.png");
    let made = Program::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=s=64x64", "-frames:v", "1"])
        .arg(&image)
        .status();
    assert!(made.expect("ffmpeg is installed").success());
    let shutdown = CancellationToken::new();
    let connect = |name| Nats::connect(&server.url, name);
    let config = kadr_orchestrator::Config { name: "bench".into() };
    let mut services = vec![tokio::spawn(flat(kadr_orchestrator::run(
        config,
        connect("orchestrator").await.unwrap(),
        shutdown.clone(),
    )))];
    let source = settings(&image.display().to_string());
    stream::iter(0..SCENARIOS)
        .for_each_concurrent(100, |number| {
            let create = Command::Create { settings: source.clone() };
            let nats = &nats;
            async move {
                send(nats, &scenario(number), "create".into(), create).await;
            }
        })
        .await;
    let mut tail = log::tail(&nats, 1);
    for _ in 0..SCENARIOS {
        tail.next().await;
    }
    for number in 0..RUNNERS {
        let config = kadr_runner::Config {
            capacity: CAPACITY,
            ..kadr_runner::Config::new(folder.path().join(format!("runner-{number}")))
        };
        let (control, frames) = (connect("runner").await.unwrap(), connect("runner-frames").await.unwrap());
        services.push(tokio::spawn(flat(kadr_runner::run(config, control, frames, shutdown.clone()))));
    }
    // All of them are there before the first start is.
    let mut beats = Tail::volatile(nats.jetstream.clone(), subjects::NODES_STREAM, subjects::RUNNERS_ALL);
    let mut alive = std::collections::BTreeSet::new();
    while alive.len() < RUNNERS {
        alive.extend(subjects::runner_in(&beats.next().await.message.subject));
    }

    let first = std::sync::atomic::AtomicU64::new(u64::MAX);
    stream::iter(0..SCENARIOS)
        .for_each_concurrent(100, |number| {
            let (nats, first) = (&nats, &first);
            async move {
                let input = send(nats, &scenario(number), "start".into(), Command::Start).await;
                first.fetch_min(input, std::sync::atomic::Ordering::Relaxed);
            }
        })
        .await;
    let mut inbox = Tail::new(nats.jetstream.clone(), subjects::INBOX, subjects::INBOX_ALL, first.into_inner());
    let asked = inbox.next().await.time;
    let mut claims: std::collections::HashMap<RunnerId, usize> = std::collections::HashMap::new();
    let mut waits = Vec::new();
    while waits.len() < SCENARIOS {
        let event = log::read_data(&tail.next().await).unwrap();
        if let EventData::RunnerAssigned { runner, .. } = event.data {
            *claims.entry(runner).or_default() += 1;
            waits.push(event.time.since(asked).as_secs_f64());
        }
    }
    waits.sort_by(f64::total_cmp);
    shutdown.cancel();
    for service in services {
        service.await.unwrap();
    }
    let mut spread: Vec<_> = claims.into_values().collect();
    spread.sort_unstable();
    print(json!({
        "bench": "1,000 starts at once", "sync": "always", "runners": RUNNERS, "capacity": CAPACITY,
        "half_claimed_s": round(waits[SCENARIOS / 2]), "all_claimed_s": round(waits[SCENARIOS - 1]), "spread": spread,
    }));
}

async fn flat<E: std::fmt::Debug>(service: impl Future<Output = Result<(), E>>) {
    service.await.unwrap();
}
