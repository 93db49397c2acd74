//! Which runners show signs of life, by this orchestrator's own monotonic clock.
//!
//! That a key expired is not trusted to say when its runner was last there; that a key was renewed is. Whoever leads
//! renews a key in the same bucket more often than any runner, so that silence of the whole bucket means deafness.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use kadr_shared::{id::RunnerId, nodes::RunnerBeat, streams::NODE_TTL, subjects, tail::Entry};

/// A beat may be this much late on top of its time to live.
const SLACK: Duration = Duration::from_millis(500);
/// After so long without a word from anybody, it is this orchestrator that does not hear.
const DEAF: Duration = Duration::from_secs(1);

/// When each runner was last heard.
pub(crate) struct Runners {
    heard: HashMap<RunnerId, Heard>,
    /// When anybody was, runner or leader.
    heard_any: Instant,
    /// Before it nothing could be heard: it counts as the last sign of life of everybody.
    listening_since: Instant,
}

#[derive(Clone, Copy)]
enum Heard {
    At(Instant),
    /// It said goodbye. What it said of its scenarios before comes by another stream, and may come later.
    Left(Instant),
}

impl Runners {
    pub(crate) fn new(now: Instant) -> Self {
        Self { heard: HashMap::new(), heard_any: now, listening_since: now }
    }

    /// Takes note of a message of the bucket.
    pub(crate) fn hear(&mut self, entry: &Entry, now: Instant) {
        self.hear_anybody(now);
        let Some(runner) = subjects::runner_in(&entry.message.subject) else { return };
        let goodbye = entry.message.headers.as_ref().is_some_and(|h| h.get("KV-Operation").is_some());
        match serde_json::from_slice::<RunnerBeat>(&entry.message.payload) {
            Ok(_) => self.heard.insert(runner, Heard::At(now)),
            Err(_) if goodbye => self.heard.insert(runner, Heard::Left(now)),
            // The marker of an expired key: when its runner was last there, this clock knows better.
            Err(_) => None,
        };
    }

    fn hear_anybody(&mut self, now: Instant) {
        if now.duration_since(self.heard_any) > DEAF {
            self.listening_since = now;
        }
        self.heard_any = now;
    }

    /// Whether a runner must be taken for gone.
    pub(crate) fn is_gone(&self, runner: &RunnerId, now: Instant) -> bool {
        if now.duration_since(self.heard_any) > DEAF {
            return false;
        }
        let (last, patience) = match self.heard.get(runner) {
            Some(Heard::Left(at)) => (*at, SLACK),
            Some(Heard::At(at)) => (*at, NODE_TTL + SLACK),
            None => (self.listening_since, NODE_TTL + SLACK),
        };
        now.duration_since(last.max(self.listening_since)) > patience
    }

    /// Forgets those that were not heard for long.
    pub(crate) fn tidy(&mut self, now: Instant) {
        self.heard.retain(|_, heard| {
            let (Heard::At(at) | Heard::Left(at)) = heard;
            now.duration_since(*at) < 10 * NODE_TTL
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(300);

    /// Somebody is heard every [`STEP`] from `from` on, for `steps` times; when the last one was.
    fn listen(runners: &mut Runners, from: Instant, steps: u32) -> Instant {
        (1..=steps).for_each(|step| runners.hear_anybody(from + STEP * step));
        from + STEP * steps
    }

    #[test]
    fn silence_of_one_means_gone_and_silence_of_all_means_deaf() {
        let (start, r1) = (Instant::now(), "r1".parse().unwrap());
        let mut runners = Runners::new(start);
        runners.heard.insert("r1".parse().unwrap(), Heard::At(start));
        let now = listen(&mut runners, start, 8);
        assert!(!runners.is_gone(&r1, now), "2.4 s");
        let now = listen(&mut runners, now, 1);
        assert!(runners.is_gone(&r1, now), "2.7 s");
        assert!(!runners.is_gone(&r1, now + DEAF + STEP), "nobody was heard for a while");
        // They are heard again: all have a whole time to live from then on.
        let now = listen(&mut runners, now + DEAF + STEP, 8);
        assert!(!runners.is_gone(&r1, now));
        let now = listen(&mut runners, now, 3);
        assert!(runners.is_gone(&r1, now));
    }
    #[test]
    fn what_a_runner_said_before_its_goodbye_may_come_after_it() {
        let (start, r1) = (Instant::now(), "r1".parse().unwrap());
        let mut runners = Runners::new(start);
        let now = listen(&mut runners, start, 8);
        runners.heard.insert("r1".parse().unwrap(), Heard::Left(now));
        let now = listen(&mut runners, now, 1);
        assert!(!runners.is_gone(&r1, now));
        let now = listen(&mut runners, now, 1);
        assert!(runners.is_gone(&r1, now), "0.6 s: it does not come any more");
        let now = listen(&mut runners, now, 80);
        runners.tidy(now);
        assert!(runners.heard.is_empty() && runners.is_gone(&r1, now));
    }
}
