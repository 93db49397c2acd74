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

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Instant};

    use kadr_shared::{
        geometry::Size,
        id::{RunId, ScenarioId},
        message::{
            detection::{ModelStamp, Timing},
            frame::Colour,
        },
        testkit::TestServer,
        time::Timestamp,
    };

    use super::*;
    use crate::{lease::Lease, picture::Picture};

    const RUN: RunId = RunId::from_u128(7);

    fn gate() -> ScenarioId {
        "gate".parse().unwrap()
    }

    fn begin(filing: &mut Filing, number: u64, stops: &Stops) {
        let size = Size { width: 2, height: 2 };
        let picture = Picture::uniform(size, Colour::default(), [0; 3]).unwrap();
        let (frame, taken) = (Frame { number, pts_ms: 0.0, captured_at: None, picture }, Timestamp::from_millis(0));
        let result = FrameDetections {
            scenario: gate(),
            run: RUN,
            frame: number,
            pts_ms: 0.0,
            captured_at: taken,
            width: size.width,
            height: size.height,
            model: ModelStamp { name: "tiny".parse().unwrap(), sha256: "0".into(), precision: "f32".into() },
            detections: Vec::new(),
            timing_ms: Timing { queue: 0.0, inference: 0.0 },
        };
        filing.begin(frame, result, stops.clone(), Arc::new(Meter::new(gate(), RUN, 1)));
    }

    #[tokio::test]
    async fn what_is_on_its_way_at_a_stop_is_waited_for_and_what_is_not_is_not_stored() {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        let mut filing = Filing::new(Store::open(nats, gate(), RUN, 1).await.unwrap());
        let stops = Stops::new(Arc::new(Lease::new(Instant::now())));
        assert!(filing.settle().await.is_none(), "nothing is in hand");
        begin(&mut filing, 0, &stops);
        assert_eq!((filing.is_free(), filing.number()), (false, Some(0)));
        // It is sent, and nobody waits for the answer any more.
        assert!(futures::poll!(pin!(filing.filed())).is_pending());
        stops.close.cancel();
        assert!(matches!(filing.settle().await, Some(Ok(Filed { frame, .. })) if frame.number == 0));
        assert_eq!((filing.is_free(), filing.frames()), (true, 1));
        begin(&mut filing, 1, &stops);
        assert!(matches!(filing.settle().await, Some(Err(StoreError::Stopped))));
        assert_eq!(filing.frames(), 1);
    }
}
