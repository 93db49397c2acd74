//! What comes at its own pace: one session of a camera or of a stream of images.

use std::time::Duration;

use tokio::{runtime::Handle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Coded, Frame, SourceError};

/// A session. It has no last frame: what ends it is an error that says why.
pub trait Live: Send {
    /// Frames a second, where the source says so.
    fn rate(&self) -> Option<f64>;

    /// The next frame, numbered from 0 without holes. Blocks.
    fn next_frame(&mut self) -> Result<Frame, SourceError>;

    /// Waits for the next frame as [`next_frame`](Self::next_frame) does, and leaves it: nobody wants to see it. What costs
    /// more than receiving it is left out where that can be; the next call may still want a frame.
    fn pass_frame(&mut self) -> Result<Passed, SourceError> {
        self.next_frame().map(|frame| Passed { pts_ms: frame.pts_ms })
    }

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

/// A frame that came and was not wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Passed {
    /// When it would be shown, in milliseconds after the first frame.
    pub pts_ms: f64,
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
