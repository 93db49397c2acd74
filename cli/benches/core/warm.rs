//! How long an orchestrator takes from its start to its first decision on a log that is there, and its memory then.

use std::{
    process::{Command as Program, Stdio},
    time::Instant,
};

use kadr_shared::{domain::Command, log, subjects};
use serde_json::json;

use crate::{
    load::{scenario, send, settings, write_log},
    print, round,
    server::Server,
};

/// Events of one scenario in the log.
const EACH: usize = 100;

pub(crate) async fn run(events: usize) {
    let (server, nats) = Server::start(false).await;
    let writing = Instant::now();
    write_log(&nats, events / EACH, events).await;
    let written = writing.elapsed().as_secs_f64();
    let end = nats.jetstream.get_stream(subjects::EVENTS).await.unwrap().cached_info().state.clone();

    // It is answered when the whole log has been read, and not before.
    send(&nats, &scenario(usize::MAX), "k".into(), Command::Create { settings: settings("/data/clip.mp4") }).await;
    let mut tail = log::tail(&nats, end.last_sequence + 1);
    let begun = Instant::now();
    let mut orchestrator = Program::new(env!("CARGO_BIN_EXE_kadr"))
        .args(["orchestrator", "--nats", &server.url])
        .env("KADR_LOG", "warn")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    tail.next().await;
    let seconds = begun.elapsed().as_secs_f64();
    let status = std::fs::read_to_string(format!("/proc/{}/status", orchestrator.id())).unwrap_or_default();
    let megabytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().split(' ').next().and_then(|kb| kb.parse::<f64>().ok()).map(|kb| round(kb / 1024.0))
    };
    print(json!({
        "bench": "orchestrator warm", "events": end.messages, "scenarios": events / EACH,
        "log_bytes": end.bytes, "written_s": round(written), "warm_s": round(seconds),
        "events_per_s": (end.messages as f64 / seconds).round(),
        "rss_mb": megabytes("VmRSS:"), "peak_mb": megabytes("VmHWM:"),
    }));
    let _ = orchestrator.kill();
    let _ = orchestrator.wait();
}
