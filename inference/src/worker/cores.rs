//! How many threads a frame is given: a file's as many as it is worth, so that most is done; a camera's what is free besides, so
//! that it is done soon. What they compute is not known here.

use std::{num::NonZeroUsize, sync::Arc};

use kadr_shared::subjects::FrameClass;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The threads that may compute at the same time.
pub(super) struct Cores {
    free: Arc<Semaphore>,
    all: usize,
    each: usize,
    live: usize,
}

/// What a frame has of them, for as long as it is kept.
pub(super) struct Share {
    pub(super) threads: NonZeroUsize,
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Cores {
    /// Enough for `lanes` frames of `each` thread; a camera's may have `live`.
    pub(super) fn new(lanes: NonZeroUsize, each: NonZeroUsize, live: NonZeroUsize) -> Self {
        let all = lanes.get().saturating_mul(each.get()).min(Semaphore::MAX_PERMITS);
        let each = each.get().min(all);
        Self { free: Arc::new(Semaphore::new(all)), all, each, live: live.get().clamp(each, all) }
    }

    /// How many threads a camera's frame may have.
    pub(super) fn live(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.live).unwrap_or(NonZeroUsize::MIN)
    }

    /// How many cameras' frames are computed at the same time, each as soon as may be.
    pub(super) fn cameras_at_once(&self) -> usize {
        (self.all / self.live).max(1)
    }

    /// Waits until there are threads for a frame. Whoever waits longest is first.
    pub(super) async fn take(&self, class: FrameClass) -> Share {
        let number = |threads: usize| u32::try_from(threads).unwrap_or(u32::MAX);
        // It is never closed.
        let own = self.free.clone().acquire_many_owned(number(self.each)).await.ok();
        let most = match class {
            FrameClass::Live => self.live - self.each,
            FrameClass::Batch => 0,
        };
        let besides = self.free.available_permits().min(most);
        let more = self.free.clone().try_acquire_many_owned(number(besides)).ok();
        let threads = [&own, &more].into_iter().flatten().map(OwnedSemaphorePermit::num_permits).sum();
        Share { threads: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN), _permits: [own, more] }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn cores(lanes: usize, each: usize, live: usize) -> Cores {
        let [lanes, each, live] = [lanes, each, live].map(|count| NonZeroUsize::new(count).unwrap());
        Cores::new(lanes, each, live)
    }

    fn taken(cores: &Cores, class: FrameClass) -> Option<Share> {
        cores.take(class).now_or_never()
    }

    #[test]
    fn a_cameras_frame_has_what_is_free_and_a_files_its_own() {
        let cores = cores(4, 1, 3);
        let threads = |share: &Option<Share>| share.as_ref().map(|share| share.threads.get());
        let first = taken(&cores, FrameClass::Live);
        assert_eq!(threads(&first), Some(3));
        let second = taken(&cores, FrameClass::Live);
        assert_eq!(threads(&second), Some(1), "one is left");
        assert_eq!(threads(&taken(&cores, FrameClass::Batch)), None);
        drop(first);
        let file = taken(&cores, FrameClass::Batch);
        assert_eq!(threads(&file), Some(1));
        assert_eq!(threads(&taken(&cores, FrameClass::Live)), Some(2));
    }

    #[test]
    fn nobody_has_more_than_there_is() {
        assert_eq!(taken(&cores(1, 1, 4), FrameClass::Live).map(|share| share.threads.get()), Some(1));
        assert_eq!(
            taken(&cores(2, 3, 1), FrameClass::Live).map(|share| share.threads.get()),
            Some(3),
            "as it was asked"
        );
        assert_eq!(taken(&cores(2, 3, 4), FrameClass::Batch).map(|share| share.threads.get()), Some(3));
        assert_eq!([cores(2, 1, 2), cores(8, 1, 4), cores(1, 1, 4)].map(|cores| cores.cameras_at_once()), [1, 2, 1]);
    }
}
