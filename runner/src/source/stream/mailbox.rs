//! Images between whoever receives them and whoever decodes them. Bounded: when it is full the oldest goes, since a newer one
//! is wanted more.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use kadr_shared::time::Timestamp;
use tokio::sync::Notify;

use crate::source::SourceError;

/// Images that wait. Few: what waits for long is old.
const WAITING: usize = 4;

/// An image as it came.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) body: Bytes,
    pub(super) at: Instant,
    /// When it was taken, if somebody said so.
    pub(super) taken: Option<Timestamp>,
    /// Where its sender wants to hear what became of it.
    pub(super) reply: Option<async_nats::Subject>,
}

/// Shared by both sides.
#[derive(Debug, Clone, Default)]
pub(super) struct Mailbox {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arrived>,
    /// Nothing more comes, and why.
    end: Option<SourceError>,
    over: bool,
}

impl Mailbox {
    /// Takes an image; gives the one back that had to go for it.
    pub(super) fn put(&self, arrived: Arrived) -> Option<Arrived> {
        let mut state = self.lock();
        let dropped = if state.waiting.len() == WAITING { state.waiting.pop_front() } else { None };
        state.waiting.push_back(arrived);
        drop(state);
        self.inner.changed.notify_one();
        dropped
    }

    /// Says that nothing more comes. What waits is still given.
    pub(super) fn end(&self, why: SourceError) {
        let mut state = self.lock();
        (state.end, state.over) = (Some(why), true);
        drop(state);
        self.inner.changed.notify_one();
    }

    /// The next image. May be dropped at any await: nothing is lost. One waits at a time.
    pub(super) async fn next(&self) -> Result<Arrived, SourceError> {
        loop {
            {
                let mut state = self.lock();
                if let Some(arrived) = state.waiting.pop_front() {
                    return Ok(arrived);
                }
                if state.over {
                    return Err(state.end.take().unwrap_or(SourceError::Gone));
                }
            }
            self.inner.changed.notified().await;
        }
    }

    /// A panic while an image was put there leaves images: nothing to be afraid of.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(n: u8) -> Arrived {
        Arrived { body: vec![n].into(), at: Instant::now(), taken: None, reply: None }
    }

    #[tokio::test]
    async fn the_oldest_goes_and_the_end_comes_last() {
        let mailbox = Mailbox::default();
        let dropped: Vec<_> = (0..7).filter_map(|n| mailbox.put(image(n))).map(|image| image.body[0]).collect();
        assert_eq!(dropped, [0, 1, 2]);
        mailbox.end(SourceError::Gone);
        for n in 3..7 {
            assert_eq!(mailbox.next().await.unwrap().body[0], n);
        }
        assert!(mailbox.next().await.is_err() && mailbox.next().await.is_err());
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let mailbox = Mailbox::default();
        let (got, ()) = tokio::join!(mailbox.next(), async { assert!(mailbox.put(image(9)).is_none()) });
        assert_eq!(got.unwrap().body[0], 9);
    }
}
