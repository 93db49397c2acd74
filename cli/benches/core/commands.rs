//! Commands decided and appended a second by one orchestrator; beside it the same appends without any deciding.

use std::time::Instant;

use futures::{StreamExt, stream};
use kadr_shared::{
    domain::{Cause, Command, EventData},
    log,
    nats::Nats,
    publish::Stored,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    load::{scenario, send, settings},
    print, round,
    server::Server,
};

const SCENARIOS: usize = 1024;
/// Commands of each scenario: the first creates it.
const EACH: usize = 40;
/// The peer's appends under way.
const WINDOW: usize = 64;

pub(crate) async fn run(always: bool) {
    let (server, nats) = Server::start(always).await;
    let peer = raw_appends(&nats).await;
    drop(server);

    let (server, nats) = Server::start(always).await;
    let inputs = stream::iter(0..SCENARIOS).map(|number| fill(&nats, number)).buffer_unordered(512);
    inputs.collect::<Vec<()>>().await;

    let shutdown = CancellationToken::new();
    let own = Nats::connect(&server.url, "orchestrator").await.unwrap();
    let config = kadr_orchestrator::Config { name: "bench".into() };
    let orchestrator = tokio::spawn(kadr_orchestrator::run(config, own, shutdown.clone()));
    let mut tail = log::tail(&nats, 1);
    let (mut answered, mut events, mut first, mut last) = (0, 0_u64, None, None);
    while answered < SCENARIOS * EACH {
        let event = log::read_data(&tail.next().await).unwrap();
        events += 1;
        answered += usize::from(event.cause.input.is_some());
        first.get_or_insert(event.time);
        last = Some(event.time);
    }
    let seconds = last.unwrap().since(first.unwrap()).as_secs_f64();
    shutdown.cancel();
    orchestrator.await.unwrap().unwrap();
    let rate = answered as f64 / seconds;
    print(json!({
        "bench": "commands", "sync": if always { "always" } else { "default" }, "scenarios": SCENARIOS, "commands": answered,
        "events": events, "commands_per_s": rate.round(), "events_per_s": (events as f64 / seconds).round(),
        "peer": "appends with expected sequences, window 64", "peer_per_s": peer.round(),
        "ratio": round(events as f64 / seconds / peer * 100.0) / 100.0,
    }));
}

async fn fill(nats: &Nats, number: usize) {
    let id = scenario(number);
    for command in 0..EACH {
        let what = match command {
            0 => Command::Create { settings: settings("/data/clip.mp4") },
            n if n % 4 == 1 => Command::Start,
            n if n % 4 == 2 => Command::Stop,
            _ => Command::Reconfigure { settings: settings("/data/other.mp4") },
        };
        send(nats, &id, format!("k{command}"), what).await;
    }
}

/// Appends a second of one client that decides nothing.
async fn raw_appends(nats: &Nats) -> f64 {
    let begun = Instant::now();
    let lanes = stream::iter(0..SCENARIOS).for_each_concurrent(WINDOW, |number| async move {
        let (id, mut last) = (scenario(number), 0);
        for _ in 0..EACH {
            let data = EventData::ScenarioReconfigured { settings: settings("/data/clip.mp4") };
            let cause = Cause { input: Some(1), id: "k".into() };
            match log::append(nats, &id, last, cause, "bench".into(), &data).await.unwrap() {
                Stored::At(seq) => last = seq,
                other => panic!("{other:?}"),
            }
        }
    });
    lanes.await;
    (SCENARIOS * EACH) as f64 / begun.elapsed().as_secs_f64()
}
