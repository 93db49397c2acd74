//! Events a second from the log into the API's tables, from nothing.

use std::time::Instant;

use kadr_api::Place;
use kadr_shared::subjects;
use serde_json::json;
use tempfile::TempDir;

use crate::{load::write_log, print, round, server::Server};

pub(crate) async fn run(events: usize) {
    let (_server, nats) = Server::start(false).await;
    write_log(&nats, events / 100, events).await;
    let messages = nats.jetstream.get_stream(subjects::EVENTS).await.unwrap().cached_info().state.messages;
    let folder = TempDir::with_prefix("kadr-bench-").unwrap();
    let begun = Instant::now();
    let rebuilt = kadr_api::rebuild(&Place::in_folder(folder.path()), &nats, |_| {}).await.unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(rebuilt.events, messages);
    print(json!({
        "bench": "projection rebuild", "store": "sqlite", "events": messages, "seconds": round(seconds),
        "events_per_s": (messages as f64 / seconds).round(),
    }));
}
