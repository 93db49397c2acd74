//! `make bench-core`: the event core's speed, a JSON line a figure.
//!
//! Names of benchmarks as arguments choose among them; without any all but `warm-10m` run. Where there is a peer (the
//! same appends without kadr), it is measured in the same run. Nothing here is a test: no figure fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that can't go on must say so")]

mod claims;
mod commands;
mod latency;
mod load;
mod rebuild;
mod server;
mod warm;

use serde_json::Value;

const ALL: [&str; 6] = ["commands", "commands-always", "latency", "claims", "rebuild", "warm-1m"];

fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // cargo adds `--bench`.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen: Vec<&str> = if chosen.is_empty() { ALL.to_vec() } else { chosen.iter().map(String::as_str).collect() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for name in chosen {
        runtime.block_on(async {
            match name {
                "commands" => commands::run(false).await,
                "commands-always" => commands::run(true).await,
                "latency" => latency::run().await,
                "claims" => claims::run().await,
                "rebuild" => rebuild::run(200_000).await,
                "warm-1m" => warm::run(1_000_000).await,
                "warm-10m" => warm::run(10_000_000).await,
                other => panic!("there is no benchmark {other}: {ALL:?}, warm-10m"),
            }
        });
    }
}

/// Prints a figure with the machine's load, without which it says little.
fn print(mut line: Value) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    line["load"] = load.split(' ').next().and_then(|one| one.parse::<f64>().ok()).into();
    println!("{line}");
}

/// To a tenth.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}
