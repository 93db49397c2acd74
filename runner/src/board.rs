//! What this runner is at, and telling it to the others twice a second.
//!
//! A beat also is the lease: a runner that could not renew it for its time to live stops by itself, because by then
//! the leader may have given its scenarios to somebody else.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use kadr_shared::{
    id::{RunId, RunnerId, ScenarioId},
    nats::Nats,
    nodes::{self, RunnerBeat},
    streams::{self, NODE_RENEWAL, NODE_TTL},
    telemetry::chain,
};
use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{lease::Lease, meter::Meter};

/// One renewal may take this long: a later answer would be worth nothing.
const RENEWAL_TIMEOUT: Duration = NODE_TTL;
/// Renewals under way.
const RENEWALS: usize = 4;

/// The scenarios in this runner.
pub(crate) struct Board {
    runner: RunnerId,
    capacity: usize,
    slots: Arc<Semaphore>,
    /// Starts that are being tried or run, and whether they are claimed: one that is offered again is not tried twice.
    starts: Mutex<HashMap<u64, bool>>,
    meters: Mutex<HashMap<ScenarioId, Arc<Meter>>>,
    /// It takes no more scenarios.
    closed: AtomicBool,
}

/// A panic while a number was written leaves a number: nothing to be afraid of.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub(crate) fn new(runner: RunnerId, capacity: usize) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(capacity));
        Arc::new(Self {
            runner,
            capacity,
            slots,
            starts: Mutex::default(),
            meters: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    pub(crate) const fn runner(&self) -> &RunnerId {
        &self.runner
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) const fn slots(&self) -> &Arc<Semaphore> {
        &self.slots
    }

    /// Takes note that a start is being tried. If it is already: whether it is claimed.
    pub(crate) fn begin(&self, start: u64) -> Result<(), bool> {
        let mut starts = lock(&self.starts);
        if let Some(&claimed) = starts.get(&start) {
            return Err(claimed);
        }
        starts.insert(start, false);
        Ok(())
    }

    /// The claim of a start is stored.
    pub(crate) fn claimed(&self, start: u64) {
        if let Some(claimed) = lock(&self.starts).get_mut(&start) {
            *claimed = true;
        }
    }

    pub(crate) fn end(&self, start: u64) {
        lock(&self.starts).remove(&start);
    }

    /// Starts that are being tried or run.
    pub(crate) fn busy(&self) -> usize {
        lock(&self.starts).len()
    }

    /// Takes no more scenarios: the others are to know that no slot is free here.
    pub(crate) fn retire(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Opens a meter; it is shown until it is dropped by [`Board::close`].
    pub(crate) fn open(&self, scenario: &ScenarioId, run: RunId, fence: u64) -> Arc<Meter> {
        let meter = Arc::new(Meter::new(scenario.clone(), run, fence));
        lock(&self.meters).insert(scenario.clone(), meter.clone());
        meter
    }

    pub(crate) fn close(&self, meter: &Meter) {
        let mut meters = lock(&self.meters);
        // A later attempt of the scenario may have its own by now.
        if meters.get(meter.scenario()).is_some_and(|open| open.fence() == meter.fence()) {
            meters.remove(meter.scenario());
        }
    }

    fn beat(&self) -> RunnerBeat {
        let now = Instant::now();
        let scenarios: Vec<_> = lock(&self.meters).values().map(|meter| meter.progress(now)).collect();
        // The slot of the start that is being asked for is free.
        let closed = self.closed.load(Ordering::Relaxed);
        let free = if closed { 0 } else { self.capacity.saturating_sub(self.busy()) };
        RunnerBeat { runner: self.runner.clone(), capacity: self.capacity, free, scenarios }
    }

    /// Takes the runner's key for the first time. Waits for the server if it has to.
    pub(crate) async fn appear(&self, nats: &Nats) -> Arc<Lease> {
        let mut tries = interval(NODE_RENEWAL);
        tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tries.tick().await;
            let asked = Instant::now();
            if self.renew(nats).await {
                return Arc::new(Lease::new(asked));
            }
        }
    }

    /// Renews the lease until `quiet`, or until it could not be renewed in time.
    pub(crate) async fn beat_until(&self, nats: &Nats, quiet: &CancellationToken, lease: &Lease) {
        let mut due = interval(NODE_RENEWAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A slow answer does not hold up the next renewal, and still counts from when it was asked for.
        let mut renewals = FuturesUnordered::new();
        // Asked first: a process that was frozen must not renew what it has lost.
        while lease.holds() {
            tokio::select! {
                () = quiet.cancelled() => return,
                _ = due.tick(), if renewals.len() < RENEWALS => {
                    if lease.holds() {
                        let asked = Instant::now();
                        renewals.push(async move { self.renew(nats).await.then_some(asked) });
                    }
                }
                Some(Some(asked)) = renewals.next() => lease.renewed(asked),
                () = tokio::time::sleep_until(lease.end().into()) => {}
            }
        }
        warn!(runner = %self.runner, "could not renew the runner's key for {} s: stopping its scenarios", NODE_TTL.as_secs());
    }

    async fn renew(&self, nats: &Nats) -> bool {
        match timeout(RENEWAL_TIMEOUT, nodes::renew_runner(nats, &self.beat())).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => {
                debug!(error = chain(&error), "could not renew the runner's key");
                // The bucket is kept in memory: after a restart of the server somebody has to make it again.
                if let Ok(Err(error)) = timeout(RENEWAL_TIMEOUT, streams::ensure(nats)).await {
                    debug!(error = chain(&error), "streams can't be made");
                }
            }
            Err(_) => debug!("the runner's key was not renewed in time"),
        }
        false
    }
}
