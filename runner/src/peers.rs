//! The other runners, by their signs of life: who of them has more room for a scenario than this one.
//!
//! A start goes to whoever waits longest for one. This only evens that out: a runner hands a start back once when another
//! one has clearly less to do. That nobody takes a start twice is not this module's work.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kadr_shared::{
    id::RunnerId,
    nats::Nats,
    nodes::RunnerBeat,
    streams::NODE_RENEWAL,
    subjects,
    tail::{Entry, Tail},
};
use tokio::task::JoinHandle;

/// An older sign of life is not believed: its runner may be gone.
const FRESH: Duration = Duration::from_millis(NODE_RENEWAL.as_millis() as u64 * 5 / 2);
/// Messages read ahead.
const READ_AHEAD: usize = 64;

/// What others have said last. Listening ends with it.
pub(crate) struct Peers {
    heard: Arc<Mutex<HashMap<RunnerId, Peer>>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    at: Instant,
    capacity: usize,
    busy: usize,
}

impl Peers {
    pub(crate) fn listen(nats: Nats) -> Self {
        let heard = Arc::<Mutex<HashMap<RunnerId, Peer>>>::default();
        let known = heard.clone();
        let task = tokio::spawn(async move {
            let beats = || {
                let tail = Tail::volatile(nats.jetstream.clone(), subjects::NODES_STREAM, subjects::RUNNERS_ALL);
                tail.spawn(READ_AHEAD)
            };
            let mut connections = nats.connections();
            let mut feed = beats();
            loop {
                tokio::select! {
                    entry = feed.next() => hear(&known, &entry),
                    // The bucket is in memory: it may be another one now.
                    Ok(()) = connections.changed() => feed = beats(),
                }
            }
        });
        Self { heard, task }
    }

    /// Whether a start is better handed back by `me`, who has `busy` of `capacity` slots in use without it. The one who
    /// should have it then counts as having it, until it says otherwise.
    pub(crate) fn should_have(&self, me: &RunnerId, busy: usize, capacity: usize) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        better(&mut heard, me, busy, capacity, Instant::now())
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn hear(heard: &Mutex<HashMap<RunnerId, Peer>>, entry: &Entry) {
    let Some(runner) = subjects::runner_in(&entry.message.subject) else { return };
    let now = Instant::now();
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    // Bounded by who lives.
    heard.retain(|_, peer| now.duration_since(peer.at) < FRESH);
    match serde_json::from_slice::<RunnerBeat>(&entry.message.payload) {
        Ok(RunnerBeat { capacity, free, .. }) => {
            heard.insert(runner, Peer { at: now, capacity, busy: capacity.saturating_sub(free) });
        }
        // A goodbye, or the marker of an expired key.
        Err(_) => {
            heard.remove(&runner);
        }
    }
}

/// A peer that would have less to do with the start than this runner has without it.
fn better(heard: &mut HashMap<RunnerId, Peer>, me: &RunnerId, busy: usize, capacity: usize, now: Instant) -> bool {
    // Compared as fractions: a / b < c / d where a·d < c·b.
    let fresh = heard.iter_mut().filter(|(runner, peer)| *runner != me && now.duration_since(peer.at) < FRESH);
    let least = fresh.map(|(_, peer)| peer).filter(|peer| peer.busy < peer.capacity).min_by(|a, b| {
        let (left, right) = (a.busy as u128 * b.capacity as u128, b.busy as u128 * a.capacity as u128);
        left.cmp(&right)
    });
    match least {
        Some(peer) if (peer.busy as u128 + 1) * (capacity as u128) < (busy as u128) * (peer.capacity as u128) => {
            peer.busy += 1;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(all: &[(&str, usize, usize)], at: Instant) -> HashMap<RunnerId, Peer> {
        all.iter().map(|&(name, busy, capacity)| (name.parse().unwrap(), Peer { at, capacity, busy })).collect()
    }

    #[test]
    fn a_start_is_handed_back_while_another_has_clearly_less_to_do() {
        let (now, me) = (Instant::now(), "me".parse().unwrap());
        let mut heard = peers(&[("me", 0, 16), ("new", 0, 16)], now);
        assert!(!better(&mut heard, &me, 1, 16, now), "no great difference");
        // Four against none: three go over, each counted at once, until both would have the same.
        let handed = (0..8).filter(|_| better(&mut heard, &me, 4, 16, now)).count();
        assert_eq!(handed, 3);
    }

    #[test]
    fn nothing_is_handed_to_who_is_full_silent_or_smaller_and_as_busy() {
        let (now, me) = (Instant::now(), "me".parse().unwrap());
        assert!(!better(&mut peers(&[("a", 2, 2)], now), &me, 15, 16, now), "full");
        assert!(!better(&mut peers(&[("a", 0, 16)], now), &me, 15, 16, now + FRESH), "silent");
        assert!(!better(&mut peers(&[("a", 1, 2)], now), &me, 8, 16, now), "half of it is in use, as of mine");
        assert!(better(&mut peers(&[("a", 1, 2), ("b", 2, 64)], now), &me, 8, 16, now));
        assert!(!better(&mut HashMap::new(), &me, 16, 16, now), "alone");
    }
}
