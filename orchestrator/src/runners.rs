//! Which runners show signs of life, by the leader's own monotonic clock.
//!
//! That a key expired is not trusted to say when its runner was last there; that a key was renewed is.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use kadr_shared::{id::RunnerId, nodes::RunnerBeat, streams::NODE_TTL, subjects, tail::Entry};

/// A beat may be this much late on top of its time to live.
const SLACK: Duration = Duration::from_millis(500);

/// When each runner was last heard.
pub(crate) struct Runners {
    heard: HashMap<RunnerId, Heard>,
    /// Before it nothing could be heard: it counts as the last sign of life of everybody.
    listening_since: Instant,
}

#[derive(Clone, Copy)]
enum Heard {
    At(Instant),
    /// It said goodbye.
    Left,
}

impl Runners {
    pub(crate) fn new(now: Instant) -> Self {
        Self { heard: HashMap::new(), listening_since: now }
    }

    /// Takes note of a message of the bucket.
    pub(crate) fn hear(&mut self, entry: &Entry, now: Instant) {
        let Some(runner) = subjects::runner_in(&entry.message.subject) else { return };
        let goodbye = entry.message.headers.as_ref().is_some_and(|h| h.get("KV-Operation").is_some());
        match serde_json::from_slice::<RunnerBeat>(&entry.message.payload) {
            Ok(_) => self.heard.insert(runner, Heard::At(now)),
            Err(_) if goodbye => self.heard.insert(runner, Heard::Left),
            // The marker of an expired key: when its runner was last there, this clock knows better.
            Err(_) => None,
        };
    }

    /// It was not possible to hear anybody until now: leadership or the connection has only just come.
    pub(crate) fn deaf_until(&mut self, now: Instant) {
        self.listening_since = now;
    }

    /// Whether a runner must be taken for gone.
    pub(crate) fn is_gone(&self, runner: &RunnerId, now: Instant) -> bool {
        let last = match self.heard.get(runner) {
            Some(Heard::Left) => return now.duration_since(self.listening_since) > SLACK,
            Some(Heard::At(at)) => (*at).max(self.listening_since),
            None => self.listening_since,
        };
        now.duration_since(last) > NODE_TTL + SLACK
    }

    /// Forgets those that were not heard for long.
    pub(crate) fn tidy(&mut self, now: Instant) {
        self.heard.retain(|_, heard| match heard {
            Heard::At(at) => now.duration_since(*at) < 10 * NODE_TTL,
            Heard::Left => true,
        });
        // Goodbyes have no time; a bound keeps a flood of short-lived runners from filling the map.
        if self.heard.len() > 10_000 {
            self.heard.retain(|_, heard| matches!(heard, Heard::At(_)));
        }
    }
}
