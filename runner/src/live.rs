//! Live video of one scenario: its frames with what was found in them, coded for viewers, only while there are any.
//!
//! The pipeline hands over each frame and each result as it comes, and never waits: where this falls behind,
//! frames are left out of the video, not of the analysis. [`watch`] knows whether somebody looks on, [`line`] brings frames and
//! results together, [`studio`] draws, codes and publishes. How viewers are served is the API's business.

mod between;
mod jpeg;
mod line;
mod studio;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use kadr_shared::{
    id::{RunId, ScenarioId},
    message::detection::Detection,
    nats::Nats,
    settings::{self, Record},
};
use tokio::runtime::Handle;
use tracing::{debug, warn};

pub(crate) use self::{between::between, watch::Watchers};
use self::{
    line::Found,
    studio::{Order, Setup, Studio},
};
use crate::{
    archive::{Archive, Storing},
    meter::Meter,
    source::Frame,
};

/// Frames that the studio has not taken yet. More would be shown too late.
const FRAMES: usize = 12;
/// Frames and results that wait.
const ORDERS: usize = 256;
/// A camera's frame is shown with what is known by then: who looks on waits no longer for a result.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is made, and of what.
#[derive(Clone)]
pub(crate) struct About {
    pub(crate) scenario: ScenarioId,
    pub(crate) run: RunId,
    pub(crate) overlay: settings::Overlay,
    /// Frames come at their own pace, and are shown in time; else each waits for its result.
    pub(crate) live: bool,
    /// The video is recorded, whether somebody looks on or not.
    pub(crate) record: Option<Record>,
    /// What stores it.
    pub(crate) storing: Storing,
}

/// The numbers that videos of one run go by; they never go back.
#[derive(Default)]
struct Numbers {
    stream: AtomicU64,
    group: AtomicU64,
}

/// The way into the video.
pub(crate) struct Live {
    about: About,
    nats: Nats,
    watchers: Arc<Watchers>,
    numbers: Arc<Numbers>,
    studio: Option<Open>,
    /// What was found last: it holds for the first frames that somebody sees.
    last: Option<Found>,
    meter: Arc<Meter>,
}

/// A studio that works.
struct Open {
    orders: SyncSender<Order>,
    /// Frames among the orders that were not taken yet.
    frames: Arc<AtomicUsize>,
}

impl Live {
    /// Begins to listen for viewers.
    pub(crate) fn open(nats: Nats, about: About, meter: Arc<Meter>) -> Self {
        let watchers = Watchers::listen(nats.clone(), &about.scenario, about.record.is_some());
        Self { about, nats, watchers, numbers: Arc::default(), studio: None, last: None, meter }
    }

    /// Who looks on, for those who have frames that would not come here otherwise.
    pub(crate) const fn watchers(&self) -> &Arc<Watchers> {
        &self.watchers
    }

    /// The next frame; `analysed`: a result of it will come.
    pub(crate) fn enter(&mut self, frame: &Frame, analysed: bool) {
        if !self.watchers.any() {
            // What waits in it is not wanted, either.
            self.studio = None;
            return;
        }
        let open = match self.studio.take() {
            Some(open) => Some(open),
            None => self.build(),
        };
        self.studio = open.and_then(|open| {
            if open.frames.fetch_add(1, Ordering::Relaxed) >= FRAMES {
                open.frames.fetch_sub(1, Ordering::Relaxed);
                return Some(open);
            }
            let order = Order::Frame { frame: frame.clone(), analysed, came: Instant::now() };
            match open.orders.try_send(order) {
                Ok(()) => Some(open),
                Err(TrySendError::Full(_)) => {
                    open.frames.fetch_sub(1, Ordering::Relaxed);
                    Some(open)
                }
                Err(TrySendError::Disconnected(_)) => None,
            }
        });
    }

    /// What was found in a frame.
    pub(crate) fn found(&mut self, number: u64, pts_ms: f64, detections: &[Detection]) {
        let found = Found { number, pts_ms, detections: detections.to_vec() };
        self.order(Order::Found(found.clone()));
        // Results come in any order.
        if self.last.as_ref().is_none_or(|last| last.number < number) {
            self.last = Some(found);
        }
    }

    /// No result of a frame will come.
    pub(crate) fn lost(&self, number: u64) {
        self.order(Order::Lost { number });
    }

    fn order(&self, order: Order) {
        let Some(open) = &self.studio else { return };
        if open.orders.try_send(order).is_err() {
            debug!(scenario = %self.about.scenario, "live video is behind: a result is left out");
        }
    }

    fn build(&self) -> Option<Open> {
        let (orders, queue) = sync_channel(ORDERS);
        let frames = Arc::new(AtomicUsize::new(0));
        let open = |record| {
            let (nats, scenario) = (self.nats.clone(), self.about.scenario.clone());
            Archive::open(nats, scenario, record, self.meter.clone(), &self.about.storing)
        };
        let studio = Studio::new(Setup {
            about: self.about.clone(),
            nats: self.nats.clone(),
            runtime: Handle::current(),
            watchers: self.watchers.clone(),
            numbers: self.numbers.clone(),
            frames: frames.clone(),
            before: self.last.clone(),
            archive: self.about.record.map(open),
        });
        let built = std::thread::Builder::new().name("kadr-live".into()).spawn(move || studio.work(&queue));
        match built {
            Ok(_) => Some(Open { orders, frames }),
            Err(error) => {
                warn!(scenario = %self.about.scenario, %error, "can't start a thread for live video");
                None
            }
        }
    }
}
