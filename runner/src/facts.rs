//! Reporting facts until they are stored.
//!
//! A fact that is sent twice is stored once, so that sending it again after an unclear answer is right.

use std::time::Duration;

use kadr_shared::{
    domain::Fact,
    id::{RunId, RunnerId, ScenarioId},
    inbox,
    nats::Nats,
    telemetry::chain,
};
use tracing::warn;

/// Between two tries.
const RETRY: Duration = Duration::from_millis(500);

/// Who reports, and of which run.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) nats: Nats,
    pub(crate) scenario: ScenarioId,
    pub(crate) run: RunId,
    pub(crate) runner: RunnerId,
}

impl Reporter {
    /// Stores a fact of which there is one in an assignment. Goes on until it is stored: bound it by what may end it.
    pub(crate) async fn report(&self, fact: Fact) {
        self.report_counted(0, fact).await;
    }

    /// Stores the `count`-th fact of its kind.
    pub(crate) async fn report_counted(&self, count: u32, fact: Fact) {
        loop {
            let sent = inbox::send_fact(&self.nats, &self.scenario, self.run, &self.runner, count, fact.clone()).await;
            match sent {
                Ok(_) => return,
                Err(error) => {
                    warn!(scenario = %self.scenario, fact = fact.name(), error = chain(&error), "can't report, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
