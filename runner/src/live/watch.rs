//! Who looks on: APIs say so once a second for as long as they have viewers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt;
use kadr_shared::{id::ScenarioId, message::video::Watching, nats::Nats, subjects};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

/// Word of viewers holds for so long: some renewals may be lost.
const HOLDS: Duration = Duration::from_secs(4);
/// Key frames that viewers ask for come no more often.
const BETWEEN_KEYS: Duration = Duration::from_millis(400);
/// Before listening is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What is watched of one scenario.
pub(crate) struct Watchers {
    seen: Mutex<Seen>,
    /// Its video is wanted whether somebody looks on or not.
    always: bool,
    /// Ends with it.
    listening: Mutex<Option<AbortHandle>>,
}

#[derive(Default)]
struct Seen {
    video: Option<Instant>,
    images: Option<Instant>,
    key: bool,
    /// When the last key frame was given that was asked for.
    given: Option<Instant>,
}

fn fresh(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at.elapsed() < HOLDS)
}

impl Watchers {
    fn new(always: bool) -> Self {
        Self { seen: Mutex::default(), always, listening: Mutex::default() }
    }

    /// Begins to listen. `always`: the video is wanted anyway.
    pub(super) fn listen(nats: Nats, scenario: &ScenarioId, always: bool) -> Arc<Self> {
        let watchers = Arc::new(Self::new(always));
        let (subject, weak) = (subjects::watching(scenario), Arc::downgrade(&watchers));
        let task = tokio::spawn(async move {
            loop {
                match nats.client.subscribe(subject.clone()).await {
                    Ok(mut words) => {
                        while let Some(word) = words.next().await {
                            let Some(watchers) = weak.upgrade() else { return };
                            match serde_json::from_slice(&word.payload) {
                                Ok(watching) => watchers.hear(watching),
                                Err(error) => debug!(subject, %error, "a word of viewers can't be read"),
                            }
                        }
                    }
                    Err(error) => warn!(subject, %error, "can't listen for viewers, trying again"),
                }
                tokio::time::sleep(RETRY).await;
            }
        });
        *watchers.listening.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        watchers
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, word: Watching) {
        let (mut seen, now) = (self.seen(), Instant::now());
        if word.video {
            seen.video = Some(now);
        }
        if word.images {
            seen.images = Some(now);
        }
        seen.key |= word.key;
    }

    pub(crate) fn any(&self) -> bool {
        let seen = self.seen();
        self.always || fresh(seen.video) || fresh(seen.images)
    }

    pub(super) fn video(&self) -> bool {
        fresh(self.seen().video)
    }

    pub(super) fn images(&self) -> bool {
        fresh(self.seen().images)
    }

    /// Whether the next picture is to be a key frame because somebody came; each is asked for once.
    pub(super) fn take_key(&self) -> bool {
        let mut seen = self.seen();
        if !seen.key || seen.given.is_some_and(|at| at.elapsed() < BETWEEN_KEYS) {
            return false;
        }
        (seen.key, seen.given) = (false, Some(Instant::now()));
        true
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.lock().unwrap_or_else(PoisonError::into_inner).take() {
            listening.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_frame_is_given_once_to_all_who_came_together() {
        let watchers = Watchers::new(false);
        assert!(!watchers.any() && !watchers.take_key());
        watchers.hear(Watching { video: true, images: false, key: true });
        assert!(watchers.any() && watchers.video() && !watchers.images());
        assert!(watchers.take_key() && !watchers.take_key());
        watchers.hear(Watching { video: true, images: true, key: true });
        assert!(watchers.images() && !watchers.take_key(), "not so soon");
    }
}
