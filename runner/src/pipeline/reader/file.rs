//! Reads a file: every frame, as fast as they are taken.

use std::path::PathBuf;

use kadr_shared::{
    geometry::{InputSize, Letterbox},
    telemetry::chain,
};
use tokio::sync::{mpsc, oneshot};

use super::{Message, Read, Reader, spawn};
use crate::{
    scale::Scaler,
    source::{self, SourceInfo},
};

/// Frames decoded ahead of the one that is being sent.
const AHEAD: usize = 2;

type Opened = oneshot::Sender<Result<SourceInfo, String>>;

/// Opens a file and begins to read it. Frames below `stored` are not scaled. The error is for people.
pub(super) async fn open(path: PathBuf, input: Option<InputSize>, stored: u64) -> Result<Reader, String> {
    let (opened, info) = oneshot::channel();
    let (sender, frames) = mpsc::channel(AHEAD);
    spawn(move || read(&path, input, stored, opened, &sender))?;
    match info.await {
        Ok(Ok(info)) => Ok(Reader { info: Some(info), frames, _stop: None }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err("the source's reader ended unexpectedly".to_owned()),
    }
}

fn read(path: &std::path::Path, input: Option<InputSize>, stored: u64, opened: Opened, frames: &mpsc::Sender<Message>) {
    let mut source = match source::open(path) {
        Ok(source) => source,
        Err(error) => {
            // Whoever asked may have been cancelled: then nobody wants to know.
            let _ = opened.send(Err(chain(&error)));
            return;
        }
    };
    let info = source.info().clone();
    let fit = Letterbox::fit(info.size, input.unwrap_or_else(|| InputSize::fitting(info.size)));
    if opened.send(Ok(info)).is_err() {
        return;
    }
    let mut scaler = Scaler::new();
    loop {
        let read = |frame, body| Message::Frame(Box::new(Read { frame, fit, body, credit: None }));
        let message = match source.next_frame() {
            Ok(Some(frame)) if frame.number < stored => read(frame, None),
            Ok(Some(frame)) => match scaler.letterbox(&frame.picture, &fit) {
                Ok(body) => read(frame, Some(body.into())),
                Err(error) => Message::End(Some(chain(&error))),
            },
            Ok(None) => Message::End(None),
            Err(error) => Message::End(Some(chain(&error))),
        };
        let last = matches!(message, Message::End(_));
        if frames.blocking_send(message).is_err() || last {
            return;
        }
    }
}
