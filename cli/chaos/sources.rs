//! What scenarios watch: clips made by ffmpeg, a picture, a file that is not there; and the settings that name them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::plan::FILES;

/// Frames of each clip whose results are counted.
const FRAMES: u64 = 60;
const CLIPS: usize = 4;
const LONG_FRAMES: u64 = 400;
const SEED: u64 = 1;

/// How many frames the source of a scenario of this name has.
pub fn frames(name: &str) -> Option<u64> {
    match name.split('-').next() {
        Some("clip") => Some(FRAMES),
        Some("image") => Some(1),
        Some("long") => Some(LONG_FRAMES),
        _ => None,
    }
}

pub struct Sources {
    folder: PathBuf,
    pub models: PathBuf,
    model: String,
}

impl Sources {
    pub fn make(folder: &Path) -> Result<Self> {
        let (models, folder) = (folder.join("models"), folder.join("clips"));
        std::fs::create_dir_all(&folder)?;
        std::fs::create_dir_all(&models)?;
        let model = kadr_inference::testkit::write_tiny_model(&models, SEED).to_string();
        let h264 = "-c:v libx264 -preset ultrafast -bf 2 -g 12 -pix_fmt yuv420p";
        for clip in 0..CLIPS {
            let input = format!("testsrc2=s=160x{}:r=25", 96 + 16 * clip);
            ffmpeg(&folder.join(format!("clip-{clip}.mp4")), &input, &format!("-frames:v {FRAMES} {h264}"))?;
        }
        ffmpeg(&folder.join("long.mp4"), "testsrc2=s=64x48:r=25", &format!("-frames:v {LONG_FRAMES} {h264}"))?;
        ffmpeg(&folder.join("dot.jpg"), "testsrc2=s=64x48:r=25", "-frames:v 1 -pix_fmt yuvj420p")?;
        Ok(Self { folder, models, model })
    }

    /// A scenario's name: its number and what it watches.
    pub fn name(&self, scenario: usize) -> String {
        match kind(scenario) {
            Source::Clip => format!("clip-{scenario}"),
            Source::Missing => format!("missing-{scenario}"),
            Source::Image => format!("image-{scenario}"),
            Source::Long => format!("long-{scenario}"),
        }
    }

    /// Settings for it; `variant` makes them differ.
    pub fn settings(&self, scenario: usize, variant: u32) -> Value {
        let (file, size) = match kind(scenario) {
            Source::Clip => (format!("clip-{}.mp4", scenario % CLIPS), "320x256"),
            Source::Missing => ("missing.mp4".to_owned(), "64x64"),
            Source::Image => ("dot.jpg".to_owned(), "64x64"),
            Source::Long => ("long.mp4".to_owned(), "320x256"),
        };
        let restart = match (kind(scenario), variant % 4) {
            // A run that is to be counted must outlive all kills.
            (Source::Clip, _) => json!({"policy": "on_failure", "limit": 50}),
            (_, 0) => json!({"policy": "never", "limit": 5}),
            (_, limit) => json!({"policy": "on_failure", "limit": limit}),
        };
        json!({
            "source": {"url": self.folder.join(file)},
            "model": self.model,
            "analysis": {"input_size": size, "confidence": f64::from(variant) / 1000.0},
            "outputs": {"video": false},
            "restart": restart,
        })
    }
}

#[derive(Clone, Copy)]
enum Source {
    Clip,
    Missing,
    Image,
    Long,
}

const fn kind(scenario: usize) -> Source {
    if scenario < FILES {
        return Source::Clip;
    }
    match scenario % 20 {
        0..9 => Source::Missing,
        9..17 => Source::Image,
        _ => Source::Long,
    }
}

fn ffmpeg(file: &Path, input: &str, options: &str) -> Result<()> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-v", "error", "-y", "-f", "lavfi", "-i", input]);
    let output = command.args(options.split_whitespace()).arg(file).output().context("ffmpeg can't be started")?;
    ensure!(output.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
