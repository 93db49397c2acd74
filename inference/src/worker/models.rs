//! A served model: its weights are opened once and kept, and what became of its frames is counted.

use std::{
    error::Error,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kadr_shared::{
    catalog::Model,
    message::{
        detection::RawOutcome,
        worker::{Frames, WeightsState},
    },
};
use tokio::sync::Mutex;
use tracing::{error, info};

use super::crew::Crew;
use crate::{
    detector::{Detector, Options},
    weights::Store,
};

/// Weights that could not be opened are tried again after this time: somebody may have fetched them by then.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Slot {
    model: Model,
    store: Store,
    options: Options,
    /// Of the frames that are to be done soon.
    live_threads: NonZeroUsize,
    crew: Arc<Crew>,
    state: Mutex<State>,
    tally: Tally,
}

#[derive(Debug)]
enum State {
    Unopened,
    Open(Arc<Detector>),
    Failed { reason: String, at: Instant },
}

#[derive(Debug, Default)]
struct Tally {
    analysed: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
}

impl Slot {
    pub(super) fn new(
        model: Model,
        store: Store,
        options: Options,
        live_threads: NonZeroUsize,
        crew: Arc<Crew>,
    ) -> Self {
        let (state, tally) = (Mutex::new(State::Unopened), Tally::default());
        Self { model, store, options, live_threads, crew, state, tally }
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// Whether its weights can be had, as far as that is known without loading them.
    pub(super) async fn is_there(&self) -> bool {
        let (model, store) = (self.model.clone(), self.store.clone());
        tokio::task::spawn_blocking(move || store.locate(&model).is_ok()).await.unwrap_or(false)
    }

    /// The model, loaded and warm, or in words why there is none. One caller opens it, the others wait for that.
    pub(super) async fn detector(&self) -> Result<Arc<Detector>, String> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Open(detector) => return Ok(detector.clone()),
            State::Failed { reason, at } if at.elapsed() < RETRY => return Err(reason.clone()),
            State::Failed { .. } | State::Unopened => {}
        }
        let (model, store, options, threads) =
            (self.model.clone(), self.store.clone(), self.options, self.live_threads);
        let begun = Instant::now();
        // By the threads that will compute: those that are started for it have their priority.
        let opened = self.crew.run(move || {
            let detector = Detector::load(&model, &store, options).map_err(|error| chain(&error))?;
            detector.warm_up(threads).map_err(|error| chain(&error))?;
            Ok(detector)
        });
        match opened.await.unwrap_or_else(|failed| Err(chain(&failed))) {
            Ok(detector) => {
                let detector = Arc::new(detector);
                let (stamp, path) = (detector.stamp(), detector.path());
                let (sha256, precision) = (&stamp.sha256, &stamp.precision);
                info!(model = %stamp.name, sha256, precision, path, elapsed = ?begun.elapsed(), "model is loaded");
                *state = State::Open(detector.clone());
                Ok(detector)
            }
            Err(reason) => {
                error!(model = %self.model.name, reason, "model can't be loaded; its frames are refused");
                *state = State::Failed { reason: reason.clone(), at: Instant::now() };
                Err(reason)
            }
        }
    }

    /// Counts a frame by what was answered.
    pub(super) fn count(&self, outcome: &RawOutcome) {
        let counter = match outcome {
            RawOutcome::Analysed { .. } => &self.tally.analysed,
            RawOutcome::Refused { .. } => &self.tally.refused,
            RawOutcome::Late { .. } => &self.tally.late,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn frames(&self) -> Frames {
        let [analysed, refused, late] = [&self.tally.analysed, &self.tally.refused, &self.tally.late]
            .map(|counter| counter.load(Ordering::Relaxed));
        Frames { analysed, refused, late }
    }

    /// How far the weights are. Does not wait for them.
    pub(super) fn weights(&self) -> WeightsState {
        match self.state.try_lock().as_deref() {
            Ok(State::Unopened) => WeightsState::Unopened,
            Ok(State::Open(detector)) => {
                WeightsState::Ready { model: detector.stamp().clone(), path: detector.path().to_owned() }
            }
            Ok(State::Failed { reason, .. }) => WeightsState::Failed { error: reason.clone() },
            Err(_) => WeightsState::Opening,
        }
    }
}

/// An error and all that led to it, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
