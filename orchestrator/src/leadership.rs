//! The leader's key: taken when it is free, renewed while it is held.
//!
//! Leading only saves conflicts. That two leaders do no harm is the expected sequence's work, not this module's.

use std::time::Instant;

use kadr_shared::{
    nats::Nats,
    nodes::{self, LeaderBeat},
    streams::{self, NODE_RENEWAL, NODE_TTL},
    telemetry::chain,
};
use tracing::{debug, info, warn};

pub(crate) struct Leadership {
    me: LeaderBeat,
    held: Option<Held>,
}

struct Held {
    revision: u64,
    renewed: Instant,
}

/// What a look at the key has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Taken,
    Lost,
    None,
}

impl Leadership {
    pub(crate) fn new(name: &str) -> Self {
        Self { me: LeaderBeat { orchestrator: name.to_owned(), trouble: None }, held: None }
    }

    pub(crate) const fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Takes the key if it is free, renews it if it is due. To be called every [`NODE_RENEWAL`] or more often.
    pub(crate) async fn keep(&mut self, nats: &Nats) -> Change {
        match &self.held {
            Some(held) if held.renewed.elapsed() < NODE_RENEWAL => Change::None,
            Some(held) => {
                let (revision, renewed) = (held.revision, held.renewed);
                self.renew(nats, revision, renewed).await
            }
            None => self.take(nats).await,
        }
    }

    async fn renew(&mut self, nats: &Nats, revision: u64, renewed: Instant) -> Change {
        let now = Instant::now();
        match nodes::claim_leader(nats, &self.me, revision).await {
            Ok(Some(revision)) => {
                self.held = Some(Held { revision, renewed: now });
                Change::None
            }
            Ok(None) => {
                info!("another orchestrator leads");
                self.held = None;
                Change::Lost
            }
            Err(error) if renewed.elapsed() < NODE_TTL => {
                debug!(error = chain(&error), "could not renew the leader's key, trying again");
                Change::None
            }
            Err(error) => {
                warn!(error = chain(&error), "could not renew the leader's key in time: no longer leading");
                self.held = None;
                Change::Lost
            }
        }
    }

    async fn take(&mut self, nats: &Nats) -> Change {
        let Some(key) = nodes::read_leader(nats).await else {
            // The bucket is kept in memory: after a restart of the server somebody has to make it again.
            if let Err(error) = streams::ensure(nats).await {
                debug!(error = chain(&error), "the leader's key can't be read");
            }
            return Change::None;
        };
        if key.holder.is_some() {
            return Change::None;
        }
        let now = Instant::now();
        match nodes::claim_leader(nats, &self.me, key.revision).await {
            Ok(Some(revision)) => {
                info!(name = self.me.orchestrator, "leading");
                self.held = Some(Held { revision, renewed: now });
                Change::Taken
            }
            Ok(None) => Change::None,
            Err(error) => {
                debug!(error = chain(&error), "could not take the leader's key");
                Change::None
            }
        }
    }

    /// Gives the key up without letting it expire.
    pub(crate) async fn release(&mut self, nats: &Nats) {
        if let Some(held) = self.held.take()
            && let Err(error) = nodes::release_leader(nats, held.revision).await
        {
            debug!(error = chain(&error), "could not release the leader's key: it expires");
        }
    }

    /// Stops leading without a word to the server: the key expires.
    pub(crate) fn drop_it(&mut self) {
        self.held = None;
    }
}
