//! Reporting facts until they are stored.
//!
//! A fact that is sent twice is stored once, so that sending it again after an unclear answer is right.

use std::sync::Arc;

use kadr_shared::{
    domain::Fact,
    id::{RunId, RunnerId, ScenarioId},
    inbox,
    nats::Nats,
    telemetry::chain,
};
use tracing::warn;

use crate::{
    lease::Lease,
    meter::{Meter, Trouble},
    patience::{REQUEST, RETRY, answered},
};

/// Who reports, and of which run.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) nats: Nats,
    pub(crate) scenario: ScenarioId,
    pub(crate) run: RunId,
    pub(crate) runner: RunnerId,
    pub(crate) lease: Arc<Lease>,
    /// Where it is told that reporting does not work.
    pub(crate) meter: Option<Arc<Meter>>,
}

impl Reporter {
    /// Stores a fact of which there is one in an assignment. Goes on until it is stored, or the lease is lost: bound it by
    /// what else may end it.
    pub(crate) async fn report(&self, fact: Fact) {
        self.report_counted(0, fact).await;
    }

    /// Stores the `count`-th fact of its kind.
    pub(crate) async fn report_counted(&self, count: u32, fact: Fact) {
        while self.lease.holds() && !self.send(count, &fact).await {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Says that a scenario was let go, also without a lease: its fence tells whether it still matters.
    pub(crate) async fn report_left(&self, fence: u64) {
        while !self.send(0, &Fact::Left { fence }).await {
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn send(&self, count: u32, fact: &Fact) -> bool {
        let sent = inbox::send_fact(&self.nats, &self.scenario, self.run, &self.runner, count, fact.clone());
        let error = match answered(&self.nats, REQUEST, sent).await {
            Some(Ok(_)) => {
                self.tell(None);
                return true;
            }
            Some(Err(error)) => chain(&error),
            None => "no answer from NATS".to_owned(),
        };
        warn!(scenario = %self.scenario, fact = fact.name(), error, "can't report, trying again");
        self.tell(Some(format!("can't report {}: {error}", fact.name())));
        false
    }

    fn tell(&self, trouble: Option<String>) {
        if let Some(meter) = &self.meter {
            meter.trouble(Trouble::Reporting, trouble);
        }
    }
}
