//! The writing end: a thread that draws results on their frames and records them.

use std::{
    path::{Path, PathBuf},
    thread,
};

use kadr_shared::{id::ScenarioId, message::detection::Detection, settings, telemetry::chain};
use tokio::sync::{mpsc, oneshot};

use crate::{
    overlay::{Overlay, caption},
    record::Recorder,
    source::{Frame, SourceInfo},
};

/// Frames that wait to be drawn. A full queue makes the pipeline wait: no frame is left out.
const QUEUE: usize = 4;

/// What becomes of frames whose results are stored.
pub(super) enum Sink {
    /// Nothing: no video is wanted.
    None,
    Video {
        orders: mpsc::Sender<Order>,
        done: oneshot::Receiver<Result<(), String>>,
    },
}

/// What the writer is told.
pub(super) enum Order {
    Draw(Frame, Vec<Detection>),
    /// Close the file. Without it nothing is left behind.
    Finish,
}

impl Sink {
    /// Begins a recording at `path`, or none. It is written beside it under a name that has `fence`: an older attempt that
    /// still writes is not in its way. The error is for people.
    pub(super) async fn open(
        path: Option<PathBuf>,
        fence: u64,
        scenario: ScenarioId,
        marks: settings::Overlay,
        info: &SourceInfo,
    ) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self::None) };
        let (orders, queue) = mpsc::channel(QUEUE);
        let (finished, done) = oneshot::channel();
        let (opened, open) = oneshot::channel();
        let info = info.clone();
        thread::Builder::new()
            .name("kadr-video".into())
            .spawn(move || {
                let draft = path.with_extension(format!("{fence}.mp4"));
                let recorder = prepare(&draft, marks, &info);
                let (recorder, overlay) = match recorder {
                    Ok(ready) => ready,
                    Err(error) => {
                        let _ = opened.send(Err(error));
                        return;
                    }
                };
                if opened.send(Ok(())).is_ok() {
                    // Nobody may be left to hear it.
                    let _ = finished.send(write(recorder, overlay, &scenario, queue, &draft, &path));
                }
            })
            .map_err(|error| format!("can't start a thread to write the video: {error}"))?;
        match open.await {
            Ok(Ok(())) => Ok(Self::Video { orders, done }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err("the video's writer ended unexpectedly".to_owned()),
        }
    }

    /// Hands a frame over; false: the writer has ended, [`Sink::finish`] tells why.
    pub(super) async fn push(&self, frame: Frame, detections: Vec<Detection>) -> bool {
        match self {
            Self::None => true,
            Self::Video { orders, .. } => orders.send(Order::Draw(frame, detections)).await.is_ok(),
        }
    }

    /// Writes what is left and closes the file.
    pub(super) async fn finish(self) -> Result<(), String> {
        match self {
            Self::None => Ok(()),
            Self::Video { orders, done } => {
                // If the writer has ended, `done` tells why.
                let _ = orders.send(Order::Finish).await;
                done.await.unwrap_or_else(|_| Err("the video's writer ended unexpectedly".to_owned()))
            }
        }
    }
}

fn prepare(path: &Path, marks: settings::Overlay, info: &SourceInfo) -> Result<(Recorder, Overlay), String> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| format!("can't make the folder {}: {e}", folder.display()))?;
    }
    let recorder = Recorder::create(path, info).map_err(|error| chain(&error))?;
    Ok((recorder, Overlay::new(marks)))
}

fn write(
    mut recorder: Recorder,
    mut overlay: Overlay,
    scenario: &ScenarioId,
    mut queue: mpsc::Receiver<Order>,
    draft: &Path,
    path: &Path,
) -> Result<(), String> {
    while let Some(order) = queue.blocking_recv() {
        match order {
            Order::Draw(mut frame, detections) => {
                overlay.draw(&mut frame.picture, &detections);
                overlay.caption(&mut frame.picture, &caption(scenario, frame.captured_at, frame.pts_ms));
                recorder.push(&frame.picture, frame.pts_ms).map_err(|error| chain(&error))?;
            }
            Order::Finish => {
                recorder.finish().map_err(|error| chain(&error))?;
                let name = |e| format!("can't name the video {}: {e}", path.display());
                return std::fs::rename(draft, path).map_err(name);
            }
        }
    }
    // Given up: the recorder takes its unfinished file away.
    Ok(())
}
