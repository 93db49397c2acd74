//! A frame between its source and its stored result.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kadr_shared::message::{detection::RawOutcome, frame::FrameHeader};
use tokio::sync::OwnedSemaphorePermit;

use crate::{preprocess::Seen, source::Frame};

/// After this time nobody wants a camera's frame any more.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// So much later its result can't be on its way, either.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// A frame that was read and has not been stored.
pub(super) struct Pending {
    pub(super) frame: Frame,
    pub(super) header: FrameHeader,
    /// Which part of the frame `body` shows.
    pub(super) seen: Seen,
    pub(super) body: Bytes,
    /// A camera's: when it is given up, and what lets the next one come.
    pub(super) expires: Option<Instant>,
    _credit: Option<OwnedSemaphorePermit>,
    /// When it is to be sent, or looked after.
    pub(super) due: Instant,
    /// It is being put into the queue, which has a deadline of its own.
    pub(super) sending: bool,
    /// When it was put into the queue, if it was.
    pub(super) sent: Option<Instant>,
    /// How often it was looked after since.
    pub(super) looks: u32,
    pub(super) result: Option<RawOutcome>,
}

impl Pending {
    /// To be sent at once. `live`: it is a camera's, and given up after a while.
    pub(super) fn new(
        frame: Frame,
        header: FrameHeader,
        seen: Seen,
        body: Bytes,
        credit: Option<OwnedSemaphorePermit>,
        live: bool,
    ) -> Self {
        let now = Instant::now();
        let expires = live.then_some(now + PATIENCE + ON_ITS_WAY);
        let (_credit, due) = (credit, now);
        Self { frame, header, seen, body, expires, _credit, due, sending: false, sent: None, looks: 0, result: None }
    }

    /// When something is to be done about it; none: it has its result, or is a file's on its way into the queue.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.result {
            Some(_) => None,
            None if self.sending => self.expires,
            None => Some(self.due),
        }
    }
}
