//! One result at a time on its way to the store, while the pipeline goes on: an answer of the server takes a while where cores are
//! busy, and frames must not wait for it. Which result is next is the pipeline's business.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use kadr_shared::message::detection::{Detection, FrameDetections};
use tokio::time::timeout;

use super::{
    stop::Stops,
    store::{Store, StoreError},
};
use crate::{meter::Meter, patience::REQUEST, source::Frame};

/// Somewhat longer than one request: what is under way at a stop ends by itself.
const SETTLE: Duration = REQUEST.saturating_add(Duration::from_millis(500));

/// A store, and what is on its way to it.
pub(super) struct Filing {
    /// None: it has something in hand.
    store: Option<Store>,
    in_hand: Option<InHand>,
    frames: u64,
}

struct InHand {
    number: u64,
    work: BoxFuture<'static, (Store, Result<Filed, StoreError>)>,
}

/// A frame whose result is stored.
pub(super) struct Filed {
    pub(super) frame: Frame,
    pub(super) detections: Vec<Detection>,
}

impl Filing {
    pub(super) const fn new(store: Store) -> Self {
        let frames = store.frames();
        Self { store: Some(store), in_hand: None, frames }
    }

    /// One more than the number of the run's last stored frame.
    pub(super) const fn frames(&self) -> u64 {
        self.frames
    }

    /// Whether it can take the next result.
    pub(super) const fn is_free(&self) -> bool {
        self.store.is_some()
    }

    /// The frame whose result is on its way.
    pub(super) fn number(&self) -> Option<u64> {
        self.in_hand.as_ref().map(|in_hand| in_hand.number)
    }

    /// Begins to store a frame's result. Only if it is free: else nothing happens.
    pub(super) fn begin(&mut self, frame: Frame, result: FrameDetections, stops: Stops, meter: Arc<Meter>) {
        let Some(mut store) = self.store.take() else { return };
        let number = result.frame;
        let work = Box::pin(async move {
            let stored = store.append(&result, &stops, &meter).await;
            (store, stored.map(|()| Filed { frame, detections: result.detections }))
        });
        self.in_hand = Some(InHand { number, work });
    }

    /// The frame whose result has been stored; waits for ever if there is none in hand. Can be given up and asked again.
    pub(super) async fn filed(&mut self) -> Result<Filed, StoreError> {
        let Some(in_hand) = &mut self.in_hand else { return std::future::pending().await };
        let (store, filed) = (&mut in_hand.work).await;
        self.in_hand = None;
        self.frames = store.frames();
        self.store = Some(store);
        filed
    }

    /// Waits for what is in hand, if there is something, as long as a request takes: then it may or may not be stored.
    pub(super) async fn settle(&mut self) -> Option<Result<Filed, StoreError>> {
        if self.is_free() {
            return None;
        }
        timeout(SETTLE, self.filed()).await.ok()
    }
}
