//! Memory and open files of every process that lived long enough are level: the last third of its life is as the middle.

use serde_json::json;

use super::{Evidence, Findings};
use crate::process::Kind;

const CHECK: &str = "memory and open files are level";
/// What a process does first does not count, and a shorter life says nothing.
const WARM_UP_MS: i64 = 20_000;
const LEAST_MS: i64 = 90_000;

/// How much more the last third may hold: a part of the middle's, and something besides.
struct Tolerance {
    part: f64,
    rss_kib: u64,
    files: u64,
}

const fn tolerance(kind: Kind) -> Tolerance {
    match kind {
        // A server keeps parts of its streams in memory, and its garbage until it is collected.
        Kind::Nats => Tolerance { part: 0.35, rss_kib: 48 << 10, files: 40 },
        // What its files in hand take, of which there may be more at a run's end than in its middle, and what the allocator
        // keeps of that: docs/reliability.md has figures.
        Kind::Runner => Tolerance { part: 0.20, rss_kib: 40 << 10, files: 12 },
        _ => Tolerance { part: 0.20, rss_kib: 16 << 10, files: 12 },
    }
}

pub fn check(evidence: &Evidence, findings: &mut Findings) {
    let mut figures = serde_json::Map::new();
    for ((name, life), samples) in &evidence.held {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { continue };
        let Some(process) = evidence.processes.iter().find(|process| process.name == *name) else { continue };
        let from = first.at + WARM_UP_MS;
        if last.at - from < LEAST_MS {
            continue;
        }
        let third = (last.at - from) / 3;
        let median = |from: i64, until: i64, of: fn(&crate::watch::Held) -> u64| {
            let mut found: Vec<_> = samples.iter().filter(|s| s.at >= from && s.at < until).map(of).collect();
            found.sort_unstable();
            found.get(found.len() / 2).copied().unwrap_or(0)
        };
        let both = |of| (median(from + third, from + 2 * third, of), median(from + 2 * third, last.at + 1, of));
        let (rss, files) = (both(|held| held.rss_kib), both(|held| held.files));
        let allowed = tolerance(process.kind);
        let limit = |before: u64, more: u64| before + more + (before as f64 * allowed.part) as u64;
        if rss.1 > limit(rss.0, allowed.rss_kib) || files.1 > limit(files.0, allowed.files) {
            let text = format!("{name}, life {life}: {} to {} KiB, {} to {} files", rss.0, rss.1, files.0, files.1);
            findings.violated(CHECK, text, &[]);
        }
        let seconds = (last.at - first.at) / 1000;
        let figure = json!({"seconds": seconds, "rss_kib": [rss.0, rss.1], "files": [files.0, files.1]});
        figures.insert(format!("{name}.{life}"), figure);
    }
    findings.figure("level_lives", figures.len());
    findings.figure("level", figures);
}
