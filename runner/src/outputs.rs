//! What else becomes of a run's results, once they are stored: files of text beside its recording, and a webhook.
//!
//! All of it is read from the stream, not handed over by the pipeline: what a crash left undone is taken up from there, and
//! nothing here can fail an analysis. It begins once the webhook's place in the stream is kept; what is in the way of that, the
//! scenario's health tells.

mod files;
mod hooks;

use std::{path::PathBuf, sync::Arc, time::Duration};

use kadr_shared::{
    id::{RunId, ScenarioId},
    nats::Nats,
    settings,
};
use tokio::time::Instant;

use self::files::File;
pub(crate) use self::hooks::Hooks;
use crate::{
    meter::Meter,
    pipeline::{Outcome, Stops},
};

/// A run that has ended waits so long for its files to be complete.
const COMPLETE: Duration = Duration::from_secs(10);
/// One that is stopped has to be let go soon.
const COMPLETE_STOPPED: Duration = Duration::from_secs(1);

/// What is wanted of a run's results.
pub(crate) struct Outputs {
    pub(crate) scenario: ScenarioId,
    pub(crate) run: RunId,
    pub(crate) settings: settings::Outputs,
    /// Of the scenario's recordings.
    pub(crate) folder: PathBuf,
    pub(crate) nats: Nats,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) meter: Arc<Meter>,
}

impl Outputs {
    /// Makes them while `pipeline` stores results, and until they are complete or that takes too long.
    pub(crate) async fn around(self, stops: Stops, pipeline: impl Future<Output = Outcome>) -> Outcome {
        let mut _forgetting = None;
        match &self.settings.webhook {
            // Before the first result is stored: its position must not begin behind that.
            Some(webhook) => tokio::select! {
                () = stops.any() => return Outcome::Cancelled,
                () = self.hooks.expect(&self.scenario, webhook, &self.meter) => {}
            },
            None => _forgetting = Some(self.hooks.expect_none(&self.scenario)),
        }
        let files: Vec<_> = self.settings.files.iter().map(|format| File::follow(&self, *format)).collect();
        let outcome = pipeline.await;
        let patience = match &outcome {
            Outcome::Ended { .. } | Outcome::Failed { .. } => COMPLETE,
            Outcome::Cancelled if stops.close.is_cancelled() => COMPLETE_STOPPED,
            // The run goes on elsewhere.
            Outcome::Cancelled | Outcome::Fenced => return outcome,
        };
        let end = Instant::now() + patience;
        for file in files {
            file.complete(end).await;
        }
        outcome
    }
}
