//! What an analysis leaves behind: `annotated.mp4`, `detections.jsonl` (and `.csv`), `events.jsonl`, and a few lines on the
//! screen.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kadr_shared::{csv, id::ScenarioId, message::detection::FrameDetections, nats::Nats, subjects, tail::Tail};
use serde::Serialize;
use tokio::time::timeout;

use super::watch::End;
use crate::client::Client;

/// Between two stored results that are known to be there.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Outputs {
    video: bool,
    files: Vec<PathBuf>,
    objects: BTreeMap<String, u64>,
}

impl Outputs {
    pub async fn write(
        client: &Client,
        nats: &Nats,
        id: &ScenarioId,
        end: &End,
        recordings: &Path,
        out: &Path,
        csv: bool,
    ) -> Result<Self> {
        let events = client.all_events(id, 1).await?;
        let events_file = out.join("events.jsonl");
        let mut lines = Lines::create(&events_file)?;
        for event in &events {
            lines.write(event)?;
        }
        lines.finish()?;

        let detections_file = out.join("detections.jsonl");
        let mut lines = Lines::create(&detections_file)?;
        let mut files = vec![detections_file, events_file];
        let mut table = None;
        if csv {
            let file = out.join("detections.csv");
            table = Some(Lines::create(&file)?);
            files.insert(1, file);
        }
        let objects = copy_detections(nats, id, end.frames, &mut lines, table.as_mut()).await?;
        lines.finish()?;
        if let Some(table) = table {
            table.finish()?;
        }
        let video = out.join("annotated.mp4");
        let recorded = recording(&recordings.join(id.as_str()));
        let has_video = recorded.is_some();
        match recorded {
            Some(recorded) => {
                std::fs::rename(&recorded, &video).with_context(|| format!("can't write {}", video.display()))?;
                files.insert(0, video);
            }
            // One of an earlier analysis would be taken for this one's.
            None => match std::fs::remove_file(&video) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("can't remove the old {}", video.display()));
                }
                _ => {}
            },
        }
        Ok(Self { video: has_video, files, objects })
    }

    pub const fn has_video(&self) -> bool {
        self.video
    }

    pub fn summary(&self, end: &End) {
        let of = end.of.filter(|&of| of != end.frames).map_or_else(String::new, |of| format!(" of {of}"));
        let seconds = end.took.as_secs_f64();
        let fps = if seconds > 0.0 { end.frames as f64 / seconds } else { 0.0 };
        println!("frames   {}{of} in {seconds:.1} s ({fps:.1} fps)", end.frames);
        let mut objects: Vec<_> = self.objects.iter().collect();
        objects.sort_by_key(|(label, count)| (std::cmp::Reverse(**count), label.as_str()));
        let objects: Vec<_> = objects.iter().map(|(label, count)| format!("{label} {count}")).collect();
        println!("objects  {}", if objects.is_empty() { "none".to_owned() } else { objects.join(", ") });
        for (i, file) in self.files.iter().enumerate() {
            println!("{} {}", if i == 0 { "files   " } else { "        " }, file.display());
        }
        println!("go on    make up   (REST and OpenAPI on this machine, until Ctrl-C)");
    }
}

/// Copies the run's stored results in order; counts objects by label.
async fn copy_detections(
    nats: &Nats,
    id: &ScenarioId,
    frames: u64,
    lines: &mut Lines,
    mut table: Option<&mut Lines>,
) -> Result<BTreeMap<String, u64>> {
    if let Some(table) = &mut table {
        table.text(csv::HEADER)?;
    }
    let mut tail = Tail::new(nats.jetstream.clone(), subjects::DETECTIONS, subjects::detections(id), 1);
    let mut objects = BTreeMap::new();
    for frame in 0..frames {
        let entry = timeout(READ_TIMEOUT, tail.next())
            .await
            .with_context(|| format!("the stored result of frame {frame} is missing"))?;
        let result: FrameDetections =
            serde_json::from_slice(&entry.message.payload).context("a stored result can't be read")?;
        ensure!(result.frame == frame, "the stored results go from frame {frame} to {}", result.frame);
        for detection in &result.detections {
            *objects.entry(detection.label.clone()).or_insert(0) += 1;
        }
        lines.write(&result)?;
        if let Some(table) = &mut table {
            table.text(&csv::lines(&result))?;
        }
    }
    Ok(objects)
}

/// The only recording in a scenario's folder.
fn recording(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries.filter_map(|entry| Some(entry.ok()?.path())).find(|path| path.extension().is_some_and(|e| e == "mp4"))
}

/// A file of lines.
struct Lines {
    path: PathBuf,
    file: std::io::BufWriter<std::fs::File>,
}

impl Lines {
    fn create(path: &Path) -> Result<Self> {
        let file = std::fs::File::create(path).with_context(|| format!("can't write {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file: std::io::BufWriter::new(file) })
    }

    fn write<T: Serialize>(&mut self, value: &T) -> Result<()> {
        let line = serde_json::to_string(value).context("can't be written as JSON")?;
        self.text(&(line + "\n"))
    }

    fn text(&mut self, lines: &str) -> Result<()> {
        self.file.write_all(lines.as_bytes()).with_context(|| format!("can't write {}", self.path.display()))
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush().with_context(|| format!("can't write {}", self.path.display()))
    }
}
