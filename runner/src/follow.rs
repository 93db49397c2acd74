//! The log, read once for all scenarios in this runner: one reader hands each scenario's events to whoever follows it.
//!
//! Nobody waits for a follower that is slow: it is cut off, and reads what it missed by itself. What events mean is not
//! known here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use kadr_shared::{
    id::ScenarioId,
    log,
    nats::Nats,
    subjects,
    tail::{Entry, Tail},
    telemetry::chain,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tracing::warn;

use crate::patience::{REQUEST, RETRY, answered};

/// Events of one scenario that wait for their follower. It has few: more means that it does not listen.
const WAITING: usize = 64;

/// The one reader. Reading ends with it.
pub(crate) struct Follower {
    nats: Nats,
    routes: Arc<Mutex<Routes>>,
    task: JoinHandle<()>,
}

/// Where a scenario's events go. Several attempts may follow one scenario for a moment.
type Routes = HashMap<ScenarioId, Vec<mpsc::Sender<Arc<Entry>>>>;

/// A panic while a route was changed leaves routes: nothing to be afraid of.
fn lock(routes: &Mutex<Routes>) -> MutexGuard<'_, Routes> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Follower {
    /// Begins to read at the log's present end. Waits for the server if it has to.
    pub(crate) async fn start(nats: Nats) -> Self {
        let end = loop {
            match answered(&nats, REQUEST, nats.jetstream.get_stream(subjects::EVENTS)).await {
                Some(Ok(stream)) => break stream.cached_info().state.last_sequence,
                Some(Err(error)) => warn!(error = chain(&error), "can't read the log's end, trying again"),
                None => warn!("can't read the log's end in time, trying again"),
            }
            tokio::time::sleep(RETRY).await;
        };
        let routes = Arc::default();
        let task = tokio::spawn(read(nats.clone(), end + 1, Arc::clone(&routes)));
        Self { nats, routes, task }
    }

    /// Follows a scenario behind sequence `seen`.
    pub(crate) fn follow(self: &Arc<Self>, scenario: &ScenarioId, seen: u64) -> Follow {
        Follow { follower: self.clone(), scenario: scenario.clone(), seen, route: None, joined: false, missed: None }
    }

    fn register(&self, scenario: &ScenarioId) -> mpsc::Receiver<Arc<Entry>> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut routes = lock(&self.routes);
        routes.entry(scenario.clone()).or_default().push(sender);
        receiver
    }

    /// Takes away the routes of a scenario that nobody listens to any more.
    fn tidy(&self, scenario: &ScenarioId) {
        tidy(&mut lock(&self.routes), scenario);
    }
}

fn tidy(routes: &mut Routes, scenario: &ScenarioId) {
    if let Some(theirs) = routes.get_mut(scenario) {
        theirs.retain(|route| !route.is_closed());
        if theirs.is_empty() {
            routes.remove(scenario);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(nats: Nats, from: u64, routes: Arc<Mutex<Routes>>) {
    let mut next = from;
    let mut connections = nats.connections();
    let mut tail = log::tail(&nats, next);
    loop {
        let entry = tokio::select! {
            entry = tail.next() => entry,
            // The server's side of the reader may be gone with the connection: that is not waited for to show.
            Ok(()) = connections.changed() => {
                tail = log::tail(&nats, next);
                continue;
            }
        };
        next = entry.seq + 1;
        let Some(scenario) = subjects::scenario_in(&entry.message.subject) else { continue };
        let mut routes = lock(&routes);
        let Some(theirs) = routes.get_mut(&scenario) else { continue };
        let entry = Arc::new(entry);
        // Full: it is cut off, and notices that by the end of its route.
        theirs.retain(|route| route.try_send(entry.clone()).is_ok());
        tidy(&mut routes, &scenario);
    }
}

/// One scenario's events behind a position: no gap, no repeat.
pub(crate) struct Follow {
    follower: Arc<Follower>,
    scenario: ScenarioId,
    seen: u64,
    route: Option<mpsc::Receiver<Arc<Entry>>>,
    /// Whether it is known what was missed before the route began.
    joined: bool,
    /// What was missed, up to this sequence.
    missed: Option<(Tail, u64)>,
}

/// The latest event of a scenario, when there is one behind the position.
pub(crate) struct Newest {
    pub(crate) seq: u64,
    pub(crate) kind: String,
}

impl Follow {
    /// Begins to follow, and tells the latest event that is there already. Waits for the server if it has to.
    ///
    /// May be dropped at any await and called again.
    pub(crate) async fn join(&mut self) -> Option<Newest> {
        // The route first: what is stored after the look comes by it.
        if self.route.is_none() {
            self.joined = false;
            self.route = Some(self.follower.register(&self.scenario));
        }
        let newest = newest(&self.follower.nats, &self.scenario).await.filter(|newest| newest.seq > self.seen);
        self.missed = newest.as_ref().map(|newest| {
            let tail = log::tail_of(&self.follower.nats, &self.scenario, self.seen + 1);
            (tail, newest.seq)
        });
        self.joined = true;
        newest
    }

    /// The next event. May be dropped at any await: nothing is lost.
    pub(crate) async fn next(&mut self) -> Arc<Entry> {
        loop {
            if !self.joined {
                self.join().await;
            }
            if let Some((tail, until)) = &mut self.missed {
                if self.seen < *until {
                    let entry = tail.next().await;
                    self.seen = entry.seq;
                    return Arc::new(entry);
                }
                self.missed = None;
            }
            let entry = match &mut self.route {
                Some(route) => route.recv().await,
                None => None,
            };
            match entry {
                Some(entry) if entry.seq > self.seen => {
                    self.seen = entry.seq;
                    return entry;
                }
                Some(_) => {}
                // Cut off: it begins anew from its own position.
                None => (self.route, self.joined) = (None, false),
            }
        }
    }
}

/// A scenario's latest event. Waits for the server if it has to.
async fn newest(nats: &Nats, scenario: &ScenarioId) -> Option<Newest> {
    let filter = subjects::events_of(scenario);
    loop {
        let read = async {
            let stream = nats.jetstream.get_stream_no_info(subjects::EVENTS).await.ok()?;
            match stream.get_last_raw_message_by_subject(&filter).await {
                Ok(message) => {
                    let kind = subjects::event_kind_in(&message.subject).unwrap_or_default().to_owned();
                    Some(Some(Newest { seq: message.sequence, kind }))
                }
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Some(None),
                Err(_) => None,
            }
        };
        if let Some(Some(newest)) = answered(nats, REQUEST, read).await {
            return newest;
        }
        warn!(%scenario, "can't read a scenario's log, trying again");
        tokio::time::sleep(RETRY).await;
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if self.route.take().is_some() {
            self.follower.tidy(&self.scenario);
        }
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::{
        domain::{Cause, CommandKind, EventData, Refusal},
        publish::Stored,
        testkit::{PATIENCE, TestServer},
    };
    use tokio::time::timeout;

    use super::*;

    async fn append(nats: &Nats, scenario: &ScenarioId, last: u64) -> u64 {
        let data = EventData::CommandRefused { command: CommandKind::Stop, reason: Refusal::NotRunning };
        let cause = Cause { input: None, id: "test".into() };
        match log::append(nats, scenario, last, cause, "test".into(), &data).await.unwrap() {
            Stored::At(seq) => seq,
            other => panic!("{other:?}"),
        }
    }

    async fn next(follow: &mut Follow) -> u64 {
        timeout(PATIENCE, follow.next()).await.expect("an event in time").seq
    }

    #[tokio::test]
    async fn events_before_and_after_the_beginning_come_once_each_and_only_of_the_scenario() {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        let (gate, yard): (ScenarioId, ScenarioId) = ("gate".parse().unwrap(), "yard".parse().unwrap());
        let first = append(&nats, &gate, 0).await;
        let second = append(&nats, &gate, first).await;
        let other = append(&nats, &yard, 0).await;
        let follower = Arc::new(Follower::start(nats.clone()).await);
        let mut follow = follower.follow(&gate, first);
        assert_eq!(follow.join().await.map(|newest| newest.seq), Some(second));
        let third = append(&nats, &gate, second).await;
        append(&nats, &yard, other).await;
        let fourth = append(&nats, &gate, third).await;
        for wanted in [second, third, fourth] {
            assert_eq!(next(&mut follow).await, wanted);
        }
        drop(follow);
        assert!(lock(&follower.routes).is_empty(), "nobody follows: nothing is kept");
    }

    #[tokio::test]
    async fn a_follower_that_does_not_listen_holds_nobody_up_and_misses_nothing() {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        let (gate, yard): (ScenarioId, ScenarioId) = ("gate".parse().unwrap(), "yard".parse().unwrap());
        let follower = Arc::new(Follower::start(nats.clone()).await);
        let (mut slow, mut quick) = (follower.follow(&gate, 0), follower.follow(&yard, 0));
        assert!(slow.join().await.is_none() && quick.join().await.is_none());
        let mut wanted = Vec::new();
        for _ in 0..WAITING * 2 {
            wanted.push(append(&nats, &gate, wanted.last().copied().unwrap_or(0)).await);
        }
        let last = append(&nats, &yard, 0).await;
        assert_eq!(next(&mut quick).await, last);
        for wanted in wanted {
            assert_eq!(next(&mut slow).await, wanted);
        }
    }
}
