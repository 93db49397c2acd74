//! The leader's key: taken when it is free, renewed while it is held. A task of its own, so that nothing else keeps it
//! from renewing.
//!
//! Leading only saves conflicts. That two leaders do no harm is the expected sequence's work, not this module's.

use std::time::Instant;

use kadr_shared::{
    id::RunnerId,
    nats::Nats,
    nodes::{self, LeaderBeat},
    streams::{self, LEADER_RENEWAL, LEADER_TTL},
    telemetry::chain,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info, warn};

/// How often the key is looked at: by those who would take it as well as by the one who renews it.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// Whether this orchestrator leads, as the rest of it sees it.
pub(crate) struct Leadership {
    term: watch::Receiver<u64>,
    trouble: watch::Sender<Option<String>>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Leadership {
    /// Begins to compete for the key.
    pub(crate) fn compete(nats: Nats, name: &str) -> Self {
        let (sender, term) = watch::channel(0);
        let (trouble, troubles) = watch::channel(None);
        let stop = CancellationToken::new();
        let keeper = Keeper { nats, name: unique(name), troubles, held: None, terms: 0, term: sender };
        let task = AbortOnDropHandle::new(tokio::spawn(keeper.run(stop.clone())));
        Self { term, trouble, stop, task }
    }

    /// 0 while another one leads (or nobody); else a number that is new each time the key is taken.
    pub(crate) fn term(&self) -> u64 {
        *self.term.borrow()
    }

    /// Returns when the term has changed.
    pub(crate) async fn changed(&mut self) {
        if self.term.changed().await.is_err() {
            // The task never ends before `release`.
            std::future::pending::<()>().await;
        }
    }

    /// Tells in the key why nothing can be decided now; none: all is well.
    pub(crate) fn tell(&self, trouble: Option<String>) {
        self.trouble.send_if_modified(|told| {
            let news = *told != trouble;
            *told = trouble;
            news
        });
    }

    /// Gives the key up, if it is held, without letting it expire.
    pub(crate) async fn release(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            warn!(%error, "the keeper of the leader's key broke");
        }
    }
}

/// Two orchestrators of one name (the same process id in two containers) must not take each other's key for theirs.
fn unique(name: &str) -> String {
    let chance = RunnerId::generate().to_string();
    format!("{name}-{}", chance.get(chance.len().saturating_sub(6)..).unwrap_or_default())
}

struct Keeper {
    nats: Nats,
    name: String,
    troubles: watch::Receiver<Option<String>>,
    held: Option<Held>,
    terms: u64,
    term: watch::Sender<u64>,
}

#[derive(Clone, Copy)]
struct Held {
    revision: u64,
    /// When the renewal that succeeded was begun: the server's time to live began no earlier.
    renewed: Instant,
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => {}
            }
            match self.held {
                // Frozen or cut off for so long that another one may lead: not a leader until the key says so again.
                Some(held) if held.renewed.elapsed() >= LEADER_TTL => {
                    warn!("could not renew the leader's key in time: no longer leading");
                    self.lose();
                }
                Some(held) if held.renewed.elapsed() >= LEADER_RENEWAL => self.renew(held).await,
                Some(_) => {}
                None => self.take().await,
            }
        }
        if let Some(held) = self.held
            && let Ok(Err(error)) = timeout(LEADER_TTL, nodes::release_leader(&self.nats, held.revision)).await
        {
            debug!(error = chain(&error), "could not release the leader's key: it expires");
        }
    }

    fn beat(&self) -> LeaderBeat {
        LeaderBeat { orchestrator: self.name.clone(), trouble: self.troubles.borrow().clone() }
    }

    fn lose(&mut self) {
        self.held = None;
        self.term.send_replace(0);
    }

    fn hold(&mut self, revision: u64, renewed: Instant) {
        let taken = self.held.replace(Held { revision, renewed }).is_none();
        if taken {
            info!(name = self.name, "leading");
            self.terms += 1;
            self.term.send_replace(self.terms);
        }
    }

    async fn renew(&mut self, held: Held) {
        let now = Instant::now();
        match timeout(LEADER_TTL, nodes::claim_leader(&self.nats, &self.beat(), held.revision)).await {
            Ok(Ok(Some(revision))) => self.hold(revision, now),
            // Another one took it; or a renewal of ours was stored without our hearing of it, which a look tells.
            Ok(Ok(None)) => self.look_again().await,
            Ok(Err(error)) => debug!(error = chain(&error), "could not renew the leader's key, trying again"),
            Err(_) => debug!("the leader's key was not renewed in time"),
        }
    }

    async fn look_again(&mut self) {
        let now = Instant::now();
        let Ok(Some(key)) = timeout(LEADER_TTL, nodes::read_leader(&self.nats)).await else { return };
        match key.holder {
            // When its time to live began is not known: counted as renewed only by the next renewal.
            Some(holder) if holder.orchestrator == self.name => {
                let renewed = self.held.map_or(now, |held| held.renewed);
                self.held = Some(Held { revision: key.revision, renewed });
            }
            _ => {
                info!("another orchestrator leads");
                self.lose();
            }
        }
    }

    async fn take(&mut self) {
        let key = match timeout(LEADER_TTL, nodes::read_leader(&self.nats)).await {
            Ok(Some(key)) => key,
            Ok(None) => {
                // The bucket is kept in memory: after a restart of the server somebody has to make it again.
                if let Ok(Err(error)) = timeout(LEADER_TTL * 5, streams::ensure(&self.nats)).await {
                    debug!(error = chain(&error), "the leader's key can't be read");
                }
                return;
            }
            Err(_) => return,
        };
        if key.holder.is_some_and(|holder| holder.orchestrator != self.name) {
            return;
        }
        let now = Instant::now();
        match timeout(LEADER_TTL, nodes::claim_leader(&self.nats, &self.beat(), key.revision)).await {
            Ok(Ok(Some(revision))) => self.hold(revision, now),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => debug!(error = chain(&error), "could not take the leader's key"),
            Err(_) => debug!("the leader's key was not taken in time"),
        }
    }
}
