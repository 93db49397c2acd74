//! A run's results in a file of text, as the stream tells them. How a file is taken up again stands in [`text`].

mod text;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use kadr_shared::{
    csv, detections,
    id::{RunId, ScenarioId},
    message::detection::FrameDetections,
    moment::Moment,
    nats::Nats,
    settings::TextFormat,
    subjects,
    tail::Tail,
    telemetry::chain,
    time::Timestamp,
};
use tokio::{
    io::AsyncWriteExt,
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use self::text::End;
use super::Outputs;
use crate::meter::{Meter, Trouble};

/// After a failure the file is taken up again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// Lines that are written at once.
const BATCH: usize = 64 << 10;
/// What clocks may differ by, when a place in the stream is looked for by a time: an hour, in milliseconds. What lies
/// before the place is read and passed over.
const CLOCKS: i64 = 3_600_000;

/// A file that is being written.
pub(super) struct File {
    nats: Nats,
    scenario: ScenarioId,
    path: PathBuf,
    /// Up to which sequence of the stream it is.
    reached: watch::Receiver<u64>,
    task: AbortOnDropHandle<()>,
}

impl File {
    /// Begins to write it, or goes on where it ends.
    pub(super) fn follow(outputs: &Outputs, format: TextFormat) -> Self {
        let Outputs { scenario, run, folder, nats, meter, .. } = outputs;
        let path = folder.join(format!("{run}.{}", format.extension()));
        let (progress, reached) = watch::channel(0);
        let writer = Writer {
            nats: nats.clone(),
            scenario: scenario.clone(),
            run: *run,
            format,
            path: path.clone(),
            meter: meter.clone(),
            progress,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(writer.run()));
        Self { nats: nats.clone(), scenario: scenario.clone(), path, reached, task }
    }

    /// Waits until it holds what is stored now, until `end` at most.
    pub(super) async fn complete(mut self, end: Instant) {
        let complete = async {
            let last = detections::last(&self.nats, &self.scenario).await.ok()??;
            self.reached.wait_for(|reached| *reached >= last).await.ok().map(drop)
        };
        match timeout_at(end, complete).await {
            Ok(Some(())) => {}
            // Nothing is stored, or it can't be found out.
            Ok(None) => {}
            Err(_) => {
                warn!(scenario = %self.scenario, file = %self.path.display(), "not all results could be written in time")
            }
        }
        self.task.abort();
    }
}

struct Writer {
    nats: Nats,
    scenario: ScenarioId,
    run: RunId,
    format: TextFormat,
    path: PathBuf,
    meter: Arc<Meter>,
    progress: watch::Sender<u64>,
}

impl Writer {
    async fn run(self) {
        loop {
            let error = match self.write().await {
                Ok(never) => match never {},
                Err(error) => format!("can't write results into {}: {error}", self.path.display()),
            };
            warn!(scenario = %self.scenario, error, "trying again");
            self.meter.trouble(Trouble::Writing, Some(error));
            sleep(RETRY).await;
        }
    }

    /// Writes until it can't.
    async fn write(&self) -> Result<std::convert::Infallible, String> {
        let (path, format) = (self.path.clone(), self.format);
        let opened = tokio::task::spawn_blocking(move || {
            // Asked before: opening it may cut off a part of a line.
            let written = std::fs::metadata(&path).and_then(|file| file.modified()).ok();
            Ok::<_, std::io::Error>((text::open(&path, format)?, written))
        });
        let ((file, end), written) = opened.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let since_epoch = written.and_then(|written| written.duration_since(SystemTime::UNIX_EPOCH).ok());
        let written = since_epoch.map(|since| Timestamp::EPOCH.after(since));
        let mut file = tokio::fs::File::from_std(file);
        let from = self.place(&end, written).await.map_err(|e| chain(&e))?;
        let subject = subjects::detections(&self.scenario);
        let mut tail = Tail::new(self.nats.jetstream.clone(), subjects::DETECTIONS, subject, from);
        let mut lines = String::new();
        if format == TextFormat::Csv && end.is_empty {
            lines.push_str(csv::HEADER);
        }
        loop {
            let entry = tail.next().await;
            let result: FrameDetections = match serde_json::from_slice(&entry.message.payload) {
                Ok(result) => result,
                Err(error) => {
                    warn!(scenario = %self.scenario, seq = entry.seq, %error, "a stored result can't be read");
                    continue;
                }
            };
            if result.run == self.run && result.frame >= end.next {
                match format {
                    TextFormat::Csv => lines.push_str(&csv::lines(&result)),
                    // As it is stored: one line.
                    TextFormat::Jsonl => {
                        lines.push_str(&String::from_utf8_lossy(&entry.message.payload));
                        lines.push('\n');
                    }
                }
            }
            if entry.pending > 0 && lines.len() < BATCH {
                continue;
            }
            file.write_all(lines.as_bytes()).await.map_err(|e| e.to_string())?;
            file.flush().await.map_err(|e| e.to_string())?;
            lines.clear();
            self.meter.trouble(Trouble::Writing, None);
            self.progress.send_replace(entry.seq);
        }
    }

    /// Where in the stream to go on: not behind the first result that is not in the file.
    async fn place(&self, end: &End, written: Option<Timestamp>) -> Result<u64, detections::DetectionsError> {
        // Asked first: what is stored after it lies behind it.
        let last = detections::last(&self.nats, &self.scenario).await?.unwrap_or(0);
        // Frames of images may say any time; what is in the file was stored before it was last written.
        let taken = end.taken.map(|taken| written.map_or(taken, |written| taken.min(written)));
        let Some(since) = taken.or_else(|| self.run.made_at()) else { return Ok(1) };
        let since = Timestamp::from_millis(since.as_millis() - CLOCKS);
        Ok(detections::first(&self.nats, &self.scenario, Moment::Time(since)).await?.unwrap_or(last + 1))
    }
}
