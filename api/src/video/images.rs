//! One viewer of a scenario's video as JPEG images: always the latest one. Whoever is too slow misses those before it.

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::channel::Watch;

/// Watches one scenario's images.
pub(crate) struct Images {
    /// That they are watched.
    _watch: Watch,
    latest: watch::Receiver<Bytes>,
    _receiving: AbortOnDropHandle<()>,
}

impl Images {
    pub(super) fn new(watch: Watch, mut images: async_nats::Subscriber) -> Self {
        let (sender, latest) = watch::channel(Bytes::new());
        let receiving = tokio::spawn(async move {
            while let Some(image) = images.next().await {
                sender.send_replace(image.payload);
            }
        });
        Self { _watch: watch, latest, _receiving: AbortOnDropHandle::new(receiving) }
    }

    /// The next image, once there is one that was not given yet; `None`: no more will come. May be dropped at any await.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.latest.changed().await.ok()?;
        Some(self.latest.borrow_and_update().clone())
    }
}
