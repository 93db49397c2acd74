//! What comes at its own pace: one session of a camera or of a stream of images.

use std::time::Duration;

use tokio::{runtime::Handle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Coded, Frame, Source, SourceError};

/// A session. It has no last frame: what ends it is an error that says why.
pub trait Live: Source {
    /// Frames a second, where the source says so.
    fn rate(&self) -> Option<f64>;

    /// Waits for the next frame as [`next_frame`](Source::next_frame) does, or for what came in its place. Where nobody is known to
    /// want it, what costs more than receiving it may be left out; where nothing can be, it is given all the same.
    fn receive(&mut self, wanted: bool) -> Result<Came, SourceError>;

    /// What was left out since the last call.
    fn losses(&mut self) -> Losses {
        Losses::default()
    }

    /// What came since the last call, as it came: of cameras that send H.264, if they were asked to keep it
    /// ([`Access::keep_coded`](super::Access::keep_coded)).
    fn take_coded(&mut self) -> Vec<Coded> {
        Vec::new()
    }

    /// The last frame has got this number in its run.
    fn numbered(&mut self, _number: u64) {}
}

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub enum Came {
    Frame(Frame),
    /// A frame that was received, and that is all; when it would be shown, in milliseconds after the first one.
    Passed {
        pts_ms: f64,
    },
    /// No frame: what can't be read is counted as lost.
    Nothing,
}

/// The next frame, whatever comes before it.
pub(super) fn next_frame(source: &mut impl Live) -> Result<Option<Frame>, SourceError> {
    loop {
        if let Came::Frame(frame) = source.receive(true)? {
            return Ok(Some(frame));
        }
    }
}

/// What a session left out by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Newer ones came while others were decoded.
    pub busy: u64,
    /// No image, or a damaged one.
    pub unreadable: u64,
}

/// Runs a future until the deadline (`Some(None)`) or the stop (`None`).
pub(super) fn until<T>(
    runtime: &Handle,
    stop: &CancellationToken,
    deadline: Duration,
    work: impl Future<Output = T>,
) -> Option<Option<T>> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            done = timeout(deadline, work) => Some(done.ok()),
        }
    })
}
