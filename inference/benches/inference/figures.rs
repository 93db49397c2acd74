//! Figures, and the lines that tell them.

use serde_json::Value;

/// Prints a line with the machine's load, without which it says little.
pub(crate) fn print(mut line: Value) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    line["load"] = load.split(' ').next().and_then(|one| one.parse::<f64>().ok()).into();
    println!("{line}");
}

pub(crate) fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |above: usize| sorted.get((sorted.len() - above) / 2).copied().unwrap_or(f64::NAN);
    (middle(0) + middle(1)) / 2.0
}

/// To three places.
pub(crate) fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
