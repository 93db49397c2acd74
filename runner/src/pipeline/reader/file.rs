//! Reads a file: every frame, as fast as they are taken.

use std::path::{Path, PathBuf};

use kadr_shared::telemetry::chain;
use tokio::sync::{mpsc, oneshot};

use super::{Message, Read, Reader, spawn};
use crate::{
    preprocess::{Preprocessor, Selection},
    source::{self, SourceInfo},
};

/// Frames decoded ahead of the one that is being sent.
const AHEAD: usize = 2;

type Opened = oneshot::Sender<Result<SourceInfo, String>>;

/// Opens a file and begins to read it. Frames below `stored` are not scaled. The error is for people.
pub(super) async fn open(
    path: PathBuf,
    preprocessor: Preprocessor,
    selection: Selection,
    stored: u64,
) -> Result<Reader, String> {
    let (opened, info) = oneshot::channel();
    let (sender, frames) = mpsc::channel(AHEAD);
    spawn(move || read(&path, preprocessor, selection, stored, opened, &sender))?;
    match info.await {
        Ok(Ok(info)) => Ok(Reader { info: Some(info), frames, _stop: None }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err("the source's reader ended unexpectedly".to_owned()),
    }
}

fn read(
    path: &Path,
    mut preprocessor: Preprocessor,
    mut selection: Selection,
    stored: u64,
    opened: Opened,
    frames: &mpsc::Sender<Message>,
) {
    // What can't be prepared at all is told before anything begins.
    let source = source::open(path).map_err(|error| chain(&error)).and_then(|source| {
        preprocessor.seen(source.info().size).map_err(|error| chain(&error))?;
        Ok(source)
    });
    let mut source = match source {
        Ok(source) => source,
        Err(error) => {
            // Whoever asked may have been cancelled: then nobody wants to know.
            let _ = opened.send(Err(error));
            return;
        }
    };
    if opened.send(Ok(source.info().clone())).is_err() {
        return;
    }
    loop {
        let read = |frame, seen| Message::Frame(Box::new(Read { frame, seen, credit: None }));
        let message = match source.next_frame() {
            Ok(Some(frame)) => {
                // Asked for each frame, since some choices follow from the frame before.
                let wanted = selection.takes(&frame) && frame.number >= stored;
                match wanted.then(|| preprocessor.prepare(&frame.picture)).transpose() {
                    Ok(seen) => read(frame, seen),
                    Err(error) => Message::End(Some(chain(&error))),
                }
            }
            Ok(None) => Message::End(None),
            Err(error) => Message::End(Some(chain(&error))),
        };
        let last = matches!(message, Message::End(_));
        if frames.blocking_send(message).is_err() || last {
            return;
        }
    }
}
