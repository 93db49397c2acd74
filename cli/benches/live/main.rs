//! `make bench-live`: what watching cameras costs and how far behind it is, a JSON line for each figure.
//!
//! - [`glass`]: from the camera's frame to the annotated one at a player, and how much of that is kadr's;
//! - [`first`]: how long a new viewer waits for its first picture;
//! - [`load`]: how many cameras this machine carries at five analysed frames a second, and what binds it; what one costs that
//!   nobody watches;
//! - [`soak`]: memory over many reconnects (`soak` as argument, `MINUTES`).
//!
//! Cameras are GStreamer's, players are ffmpeg: nothing that is measured is judged by kadr's own eyes. Nothing here is a test: no
//! figure fails. It needs `KADR_FIXTURES` (the camera) and a model, and tells how loaded the machine was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that can't go on must say so")]

mod first;
mod glass;
mod load;
mod soak;
mod system;

use serde_json::{Value, json};

use self::system::System;

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        if wanted("glass") {
            glass::measure().await;
        }
        if wanted("first") {
            first::measure().await;
        }
        if wanted("idle") {
            load::idle().await;
        }
        if wanted("cameras") {
            load::cameras().await;
        }
        if only.iter().any(|only| only == "soak") {
            soak::measure().await;
        }
    });
}

/// Prints one figure, with the machine's load.
fn print(mut line: Value) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    line["load"] = load.split(' ').next().and_then(|load| load.parse::<f64>().ok()).into();
    println!("{line}");
}

/// The value below which this part (0 to 1) of the values lies.
fn quantile(values: &mut [f64], part: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((last as f64 * part).round() as usize).copied()
}

fn rounded(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |value| json!((value * 10.0).round() / 10.0))
}
