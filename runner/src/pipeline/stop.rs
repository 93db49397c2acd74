//! Ending a pipeline early: who may ask for it, and what it means for work that is under way.

use std::{future::Future, sync::Arc};

use kadr_shared::telemetry::chain;
use tokio_util::sync::CancellationToken;

use super::{job::Outcome, store::StoreError};
use crate::lease::Lease;

/// The ways to end a pipeline early.
#[derive(Debug, Clone)]
pub(crate) struct Stops {
    /// The run ends: close the video.
    pub(crate) close: CancellationToken,
    /// The run goes on elsewhere: leave nothing behind.
    pub(crate) abandon: CancellationToken,
    /// Without it nothing may be stored or sent.
    lease: Arc<Lease>,
}

impl Stops {
    pub(crate) fn new(lease: Arc<Lease>) -> Self {
        Self { close: CancellationToken::new(), abandon: CancellationToken::new(), lease }
    }

    /// Whether to go on. Asks the clock: to be called before anything is stored or sent.
    pub(super) fn none(&self) -> bool {
        self.lease.holds() && !self.close.is_cancelled() && !self.abandon.is_cancelled()
    }

    pub(crate) async fn any(&self) {
        tokio::select! {
            () = self.close.cancelled() => {}
            () = self.abandon.cancelled() => {}
            () = self.lease.lost() => {}
        }
    }

    /// What `work` gives, unless it is to stop: then nobody waits for it.
    pub(super) async fn unless<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        if !self.none() {
            return Err(Stop::Asked);
        }
        tokio::select! {
            done = work => Ok(done),
            () = self.any() => Err(Stop::Asked),
        }
    }
}

/// Why a pipeline can't go on.
pub(super) enum Stop {
    Failed { error: String, retry: bool },
    Fenced,
    Asked,
}

impl Stop {
    pub(super) const fn for_good(error: String) -> Self {
        Self::Failed { error, retry: false }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced => Self::Fenced,
            StoreError::Stopped => Self::Asked,
            other => Self::for_good(chain(&other)),
        }
    }
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Failed { error, retry } => Self::Failed { error, retry },
            Stop::Fenced => Self::Fenced,
            Stop::Asked => Self::Cancelled,
        }
    }
}
