//! A served model: its weights are opened with its first frame and kept.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use kadr_shared::catalog::Model;
use tokio::sync::Mutex;
use tracing::{error, info};

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
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Unopened,
    Open(Arc<Detector>),
    Failed { reason: String, at: Instant },
}

impl Slot {
    pub(super) fn new(model: Model, store: Store, options: Options) -> Self {
        Self { model, store, options, state: Mutex::new(State::Unopened) }
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// The model, or in words why there is none. One caller opens it, the others wait for that.
    pub(super) async fn detector(&self) -> Result<Arc<Detector>, String> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Open(detector) => return Ok(detector.clone()),
            State::Failed { reason, at } if at.elapsed() < RETRY => return Err(reason.clone()),
            State::Failed { .. } | State::Unopened => {}
        }
        let (model, store, options) = (self.model.clone(), self.store.clone(), self.options);
        let begun = Instant::now();
        let loaded = match tokio::task::spawn_blocking(move || Detector::load(&model, &store, options)).await {
            Ok(loaded) => loaded.map_err(|error| chain(&error)),
            Err(failed) => Err(chain(&failed)),
        };
        match loaded {
            Ok(detector) => {
                let detector = Arc::new(detector);
                let stamp = detector.stamp();
                let (precision, cpu) = (&stamp.precision, detector.cpu());
                info!(model = %stamp.name, sha256 = stamp.sha256, precision, %cpu, elapsed = ?begun.elapsed(), "model is loaded");
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
