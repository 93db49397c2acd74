//! From a command's request to its projected state: what a caller of the API waits, at a steady rate.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use kadr_api::{Api, Place};
use kadr_shared::{catalog::Catalog, domain::Command, log, nats::Nats};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    load::{scenario, send, settings},
    percentile, print, round,
    server::Server,
};

const SCENARIOS: usize = 250;
const RATE: u32 = 500;
const REQUESTS: u32 = 10_000;

pub(crate) async fn run() {
    let (server, nats) = Server::start(true).await;
    let folder = TempDir::with_prefix("kadr-bench-").unwrap();
    let shutdown = CancellationToken::new();
    let connect = |name| Nats::connect(&server.url, name);
    let config = kadr_orchestrator::Config { name: "bench".into() };
    let orchestrator =
        tokio::spawn(kadr_orchestrator::run(config, connect("orchestrator").await.unwrap(), shutdown.clone()));
    let api = Api::bind(api_config(&folder), connect("api").await.unwrap()).await.unwrap();
    let address = api.local_addr();
    let serving = tokio::spawn(api.run(shutdown.clone()));
    for number in 0..SCENARIOS {
        send(&nats, &scenario(number), "create".into(), Command::Create { settings: settings("/data/clip.mp4") }).await;
    }
    let mut tail = log::tail(&nats, 1);
    for _ in 0..SCENARIOS {
        tail.next().await;
    }

    let client = reqwest::Client::new();
    let mut requests = JoinSet::new();
    let begun = Instant::now();
    for number in 0..REQUESTS {
        let due = begun + number * (Duration::from_secs(1) / RATE);
        tokio::time::sleep_until(due.into()).await;
        let id = scenario(number as usize % SCENARIOS);
        // A scenario is started in one round and stopped in the next: always something to decide, half a second apart.
        let command = if (number as usize / SCENARIOS).is_multiple_of(2) { "start" } else { "stop" };
        let request =
            client.post(format!("http://{address}/v1/scenarios/{id}/commands")).json(&json!({ "command": command }));
        requests.spawn(async move {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let body: serde_json::Value = answer.json().await.unwrap();
            // From when it was due: a queue in front of the API counts too.
            (due.elapsed().as_secs_f64() * 1e3, status == 202 && body["accepted_at_seq"].is_u64())
        });
    }
    let answers = requests.join_all().await;
    let accepted = answers.iter().filter(|(_, accepted)| *accepted).count();
    let mut waits: Vec<f64> = answers.iter().map(|(wait, _)| *wait).collect();
    waits.sort_by(f64::total_cmp);
    shutdown.cancel();
    serving.await.unwrap().unwrap();
    orchestrator.await.unwrap().unwrap();
    print(json!({
        "bench": "command to projected state", "sync": "always", "per_s": RATE, "requests": REQUESTS, "accepted": accepted,
        "p50_ms": round(percentile(&waits, 0.5)), "p99_ms": round(percentile(&waits, 0.99)),
        "max_ms": round(percentile(&waits, 1.0)),
    }));
}

pub(crate) fn api_config(folder: &TempDir) -> kadr_api::Config {
    kadr_api::Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        rtsp: None,
        database: Place::in_folder(folder.path()),
        catalog: Catalog::find::<&std::path::Path>(&[]).unwrap(),
        secret_key: None,
    }
}
