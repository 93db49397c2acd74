//! The reading end: a thread that opens the source, decodes, and scales for the model.

use std::thread;

use bytes::Bytes;
use kadr_shared::{
    geometry::{InputSize, Letterbox},
    settings::SourceUrl,
    telemetry::chain,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    scale::Scaler,
    source::{self, Frame, SourceInfo},
};

/// Frames decoded ahead of the one that is being sent.
const AHEAD: usize = 2;

/// A frame, and its picture as the model takes it (none if its result is stored already).
pub(super) struct Read {
    pub(super) frame: Frame,
    pub(super) body: Option<Bytes>,
}

/// What the thread says.
pub(super) enum Message {
    Frame(Read),
    /// There are no more frames; the text tells what is missing.
    End(Option<String>),
}

/// A source that is being read.
pub(super) struct Reader {
    pub(super) info: SourceInfo,
    pub(super) fit: Letterbox,
    pub(super) frames: mpsc::Receiver<Message>,
}

/// Opens a source and begins to read it. Frames below `stored` are not scaled. The error is for people.
pub(super) async fn open(url: SourceUrl, input: Option<InputSize>, stored: u64) -> Result<Reader, String> {
    let (opened, info) = oneshot::channel();
    let (sender, frames) = mpsc::channel(AHEAD);
    // A thread of its own: decoding blocks for as long as the source lives.
    thread::Builder::new()
        .name("kadr-source".into())
        .spawn(move || read(&url, input, stored, opened, &sender))
        .map_err(|error| format!("can't start a thread to read the source: {error}"))?;
    match info.await {
        Ok(Ok((info, fit))) => Ok(Reader { info, fit, frames }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err("the source's reader ended unexpectedly".to_owned()),
    }
}

type Opened = oneshot::Sender<Result<(SourceInfo, Letterbox), String>>;

fn read(url: &SourceUrl, input: Option<InputSize>, stored: u64, opened: Opened, frames: &mpsc::Sender<Message>) {
    let mut source = match source::open(url) {
        Ok(source) => source,
        Err(error) => {
            // Whoever asked may have been cancelled: then nobody wants to know.
            let _ = opened.send(Err(chain(&error)));
            return;
        }
    };
    let info = source.info().clone();
    let fit = Letterbox::fit(info.size, input.unwrap_or_else(|| InputSize::fitting(info.size)));
    if opened.send(Ok((info, fit))).is_err() {
        return;
    }
    let mut scaler = Scaler::new();
    loop {
        let message = match source.next_frame() {
            Ok(Some(frame)) if frame.number < stored => Message::Frame(Read { frame, body: None }),
            Ok(Some(frame)) => match scaler.letterbox(&frame.picture, &fit) {
                Ok(body) => Message::Frame(Read { frame, body: Some(body.into()) }),
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
