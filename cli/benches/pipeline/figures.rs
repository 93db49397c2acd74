//! Runs of contestants, and the lines that tell of them.

use kadr_inference::fast::Precision;
use serde_json::{Value, json};

use crate::{MODEL, Task};

/// Whoever takes part.
pub(crate) struct Contestant {
    /// `kadr`, or what a peer calls itself.
    pub(crate) name: String,
    pub(crate) precision: Precision,
    /// One a round.
    pub(crate) runs: Vec<Run>,
}

/// One clip, from the first frame's result to the written file.
pub(crate) struct Run {
    /// Those that were begun and done in `seconds`.
    pub(crate) frames: u64,
    pub(crate) seconds: f64,
    /// What is known of kadr alone.
    pub(crate) whole: Option<Whole>,
}

/// The whole process, from its start to its end.
pub(crate) struct Whole {
    pub(crate) seconds: f64,
    /// Of all cores together, NATS included.
    pub(crate) cpu_seconds: f64,
    /// Found in all frames.
    pub(crate) objects: usize,
}

impl Run {
    fn fps(&self) -> f64 {
        self.frames as f64 / self.seconds
    }
}

impl Contestant {
    pub(crate) fn is(&self, name: &str, precision: Precision) -> bool {
        self.name == name && self.precision == precision
    }

    fn median(&self, figure: impl Fn(&Run) -> f64) -> f64 {
        median(&self.runs.iter().map(figure).collect::<Vec<_>>())
    }

    /// kadr is compared with the better of its peers, which compute in f32 whatever kadr's precision is.
    pub(crate) fn line(&self, task: &Task, all: &[Self]) -> Value {
        let mut line = json!({
            "bench": "pipeline", "peer": self.name, "clip": task.clip.file_name().unwrap().to_string_lossy(),
            "model": MODEL, "input": task.input.to_string(), "precision": self.precision.to_string(),
            "threads": task.threads, "frames": task.frames, "counted": self.median(|run| run.frames as f64),
            "seconds": round(self.median(|run| run.seconds)), "fps": round(self.median(Run::fps)),
            "fps_of_rounds": self.runs.iter().map(|run| round(run.fps())).collect::<Vec<_>>(),
        });
        let wholes: Vec<&Whole> = self.runs.iter().filter_map(|run| run.whole.as_ref()).collect();
        let Some(last) = wholes.last() else { return line };
        let of_wholes =
            |figure: fn(&Whole) -> f64| median(&wholes.iter().map(|whole| figure(whole)).collect::<Vec<_>>());
        let seconds = of_wholes(|whole| whole.seconds);
        line["process_seconds"] = round(seconds).into();
        line["process_fps"] = round(task.frames as f64 / seconds).into();
        line["process_cpu_ms_a_frame"] = round(of_wholes(|whole| whole.cpu_seconds) * 1e3 / task.frames as f64).into();
        line["objects"] = last.objects.into();
        let peers = all.iter().filter(|one| one.runs.iter().all(|run| run.whole.is_none()));
        if let Some(best) = peers.map(|peer| peer.median(Run::fps)).max_by(f64::total_cmp) {
            line["ratio_best_peer"] = round(self.median(Run::fps) / best).into();
        }
        line
    }
}

/// Prints a line with the machine's load, without which it says little.
pub(crate) fn print(mut line: Value) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    line["load"] = load.split(' ').next().and_then(|one| one.parse::<f64>().ok()).into();
    println!("{line}");
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |above: usize| sorted.get((sorted.len() - above) / 2).copied().unwrap_or(f64::NAN);
    (middle(0) + middle(1)) / 2.0
}

/// To three places.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
