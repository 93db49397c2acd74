//! `kadr analyze` as a user runs it, and how fast it was by what it leaves behind.
//!
//! The peers leave out the loading of the model and their first frame. So kadr's time begins when the log says that the first
//! result is stored (`activated`), and ends when it says that the source has ended, which the runner tells once the video's
//! file is closed and has its name (`source_ended`). The frames that had been sent for analysis by that beginning are not
//! counted, although most of their work was still to come.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Instant,
};

use kadr_inference::fast::Precision;
use kadr_shared::{message::detection::FrameDetections, time::Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    MODEL, Task,
    figures::{Run, Whole},
};

/// The kernel's clock ticks a second, as it shows them to processes.
const TICKS: f64 = 100.0;

pub(crate) struct Kadr<'a> {
    task: &'a Task,
    /// The weights, and what int8 is calibrated by.
    models: PathBuf,
    out: PathBuf,
}

impl<'a> Kadr<'a> {
    /// In a folder of models of its own: whatever calibration lies beside the user's weights is left alone.
    pub(crate) fn new(task: &'a Task, folder: &Path) -> Self {
        let (models, out) = (folder.join("models"), folder.join("out"));
        std::fs::create_dir(&models).unwrap();
        std::fs::write(models.join(&task.weights.file.file), &task.weights.bytes).unwrap();
        Self { task, models, out }
    }

    /// Calibrates int8 on the reference data's clips but the one that is measured: numbers that were made for its frames
    /// would flatter what is found in them.
    pub(crate) fn calibrate(&self) -> Result<(), String> {
        let fixtures =
            self.task.fixtures.as_ref().ok_or("there are no clips to calibrate on: KADR_FIXTURES is not set")?;
        let entries = std::fs::read_dir(fixtures.join("clips")).map_err(|error| format!("no clips: {error}"))?;
        let mut clips: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        clips.retain(|clip| {
            clip.extension().is_some_and(|e| e == "mp4") && clip.file_name() != self.task.clip.file_name()
        });
        clips.sort();
        if clips.is_empty() {
            return Err(format!("{} has no clips but the measured one", fixtures.join("clips").display()));
        }
        let mut command = self.command(&["models", "calibrate", MODEL]);
        clips.iter().for_each(|clip| {
            command.arg("--clip").arg(clip);
        });
        done(&mut command);
        Ok(())
    }

    pub(crate) fn run(&self, precision: Precision) -> Run {
        let mut command = self.command(&["analyze", "--model", MODEL, "--precision", &precision.to_string()]);
        command.arg("--out").arg(&self.out).arg(&self.task.clip);
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        done(&mut command);
        let (seconds, cpu_seconds) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);

        let events: Vec<Value> = lines(&self.out.join("events.jsonl"));
        let time = |of: &str| -> Timestamp {
            let mut times = events.iter().filter(|event| event["type"] == of).map(|event| &event["time"]);
            let (Some(time), None) = (times.next(), times.next()) else { panic!("a run with one {of}: {events:?}") };
            serde_json::from_value(time.clone()).expect("an event's time")
        };
        let (first, last) = (time("activated"), time("source_ended"));
        let results: Vec<FrameDetections> = lines(&self.out.join("detections.jsonl"));
        assert_eq!(results.len() as u64, self.task.frames, "every frame is analysed");
        Run {
            frames: results.iter().filter(|result| result.captured_at > first).count() as u64,
            seconds: last.since(first).as_secs_f64(),
            whole: Some(Whole {
                seconds,
                cpu_seconds,
                objects: results.iter().map(|result| result.detections.len()).sum(),
            }),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kadr"));
        command.args(arguments).arg("--models").arg(&self.models);
        command
    }
}

fn done(command: &mut Command) {
    let Output { status, stderr, .. } = command.output().expect("kadr starts");
    assert!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr));
}

fn lines<T: DeserializeOwned>(file: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(file).expect("what analyze wrote");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// What processes that were waited for have used, their own children included: kadr waits for its NATS server.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // `cutime` and `cstime`, fields 16 and 17 of all. The second is the name, which may hold anything.
    let behind_the_name = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    behind_the_name.skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}
