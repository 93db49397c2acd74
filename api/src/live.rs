//! The runners' numbers of this moment: frames, rates, the last frame's time. In memory only, and only while fresh.
//!
//! They are signs of life and not part of the log; what is known for good comes from there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kadr_shared::{
    domain::State,
    id::{RunnerId, ScenarioId},
    nats::Nats,
    nodes::{Progress, RunnerBeat},
    subjects,
    tail::{Entry, Tail},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Older numbers are not shown: their runner may be gone.
const FRESH: Duration = Duration::from_secs(3);

/// The latest numbers of each scenario that runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    // Bounded by what runs: stale entries go whenever one comes.
    seen: Arc<Mutex<HashMap<ScenarioId, Sighting>>>,
}

#[derive(Debug)]
struct Sighting {
    at: Instant,
    runner: RunnerId,
    progress: Progress,
}

impl Live {
    /// The numbers of a scenario in this state: those of the runner, run and attempt that the log names, if fresh.
    pub(crate) fn progress(&self, scenario: &ScenarioId, state: &State) -> Option<Progress> {
        self.progress_at(Instant::now(), scenario, state)
    }

    fn progress_at(&self, now: Instant, scenario: &ScenarioId, state: &State) -> Option<Progress> {
        let (run, assignment) = (state.run.as_ref()?, state.assignment()?);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let sighting = seen.get(scenario)?;
        let theirs = sighting.progress.run == run.id
            && sighting.progress.fence == assignment.fence
            && sighting.runner == assignment.runner;
        (theirs && now.saturating_duration_since(sighting.at) < FRESH).then(|| sighting.progress.clone())
    }

    fn take(&self, now: Instant, beat: RunnerBeat) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, sighting| now.saturating_duration_since(sighting.at) < FRESH);
        for progress in beat.scenarios {
            // A runner that has lost a scenario may go on telling of it for a moment.
            let newer = seen.get(&progress.scenario).is_none_or(|known| known.progress.fence <= progress.fence);
            if newer {
                let sighting = Sighting { at: now, runner: beat.runner.clone(), progress };
                seen.insert(sighting.progress.scenario.clone(), sighting);
            }
        }
    }

    /// Follows the runners' keys until the shutdown.
    pub(crate) async fn follow(self, nats: Nats, shutdown: CancellationToken) {
        // The bucket is in memory: after a restart of the server another one takes its place.
        let mut tail = Tail::volatile(nats.jetstream.clone(), subjects::NODES_STREAM, subjects::RUNNERS_ALL);
        loop {
            let entry = tokio::select! {
                () = shutdown.cancelled() => return,
                entry = tail.next() => entry,
            };
            if let Some(beat) = beat_in(&entry) {
                self.take(Instant::now(), beat);
            }
        }
    }
}

/// A runner's beat; an expired or removed key's marker is none.
fn beat_in(entry: &Entry) -> Option<RunnerBeat> {
    if entry.message.payload.is_empty() {
        return None;
    }
    match serde_json::from_slice(&entry.message.payload) {
        Ok(beat) => Some(beat),
        Err(error) => {
            debug!(subject = %entry.message.subject, %error, "a runner's key can't be read; another version's, perhaps");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::{
        domain::{Assignment, Phase, Run},
        id::RunId,
        time::Timestamp,
    };

    use super::*;

    const RUN: RunId = RunId::from_u128(1);

    fn state(runner: &str, fence: u64) -> State {
        let settings = serde_json::from_str(r#"{"source": {"url": "/a.mp4"}}"#).unwrap();
        State {
            phase: Phase::Active { assignment: Assignment { runner: runner.parse().unwrap(), fence } },
            run: Some(Run {
                id: RUN,
                attempt: 1,
                failures: 0,
                started_at: Timestamp::default(),
                frames: None,
                of: None,
                settings: Box::new(settings),
            }),
            ..State::default()
        }
    }

    fn beat(runner: &str, run: RunId, fence: u64) -> RunnerBeat {
        let progress = Progress {
            scenario: "gate".parse().unwrap(),
            run,
            fence,
            frames: 5,
            of: None,
            dropped: 0,
            source_fps: None,
            analysed_fps: None,
            last_frame_at: None,
            camera: None,
            trouble: None,
        };
        RunnerBeat { runner: runner.parse().unwrap(), capacity: 1, free: 0, scenarios: vec![progress] }
    }

    #[test]
    fn only_fresh_numbers_of_the_assigned_runner_count() {
        let (live, now, gate) = (Live::default(), Instant::now(), "gate".parse().unwrap());
        live.take(now, beat("r1", RUN, 3));
        assert!(live.progress_at(now, &gate, &state("r1", 3)).is_some());
        assert!(live.progress_at(now, &gate, &state("r1", 4)).is_none(), "another attempt");
        assert!(live.progress_at(now, &gate, &state("r2", 3)).is_none(), "another runner");
        assert!(live.progress_at(now, &gate, &State::default()).is_none(), "not running");
        assert!(live.progress_at(now + FRESH, &gate, &state("r1", 3)).is_none(), "stale");
        assert!(live.progress_at(now, &"yard".parse().unwrap(), &state("r1", 3)).is_none(), "another scenario");

        live.take(now, beat("r1", RunId::from_u128(2), 3));
        assert!(live.progress_at(now, &gate, &state("r1", 3)).is_none(), "another run");
    }

    #[test]
    fn an_old_attempts_runner_does_not_cover_the_new_one_and_stale_entries_go() {
        let (live, now, gate) = (Live::default(), Instant::now(), "gate".parse().unwrap());
        live.take(now, beat("r2", RUN, 9));
        live.take(now, beat("r1", RUN, 3));
        assert!(live.progress_at(now, &gate, &state("r2", 9)).is_some());
        let idle = RunnerBeat { scenarios: vec![], ..beat("r3", RUN, 1) };
        live.take(now + FRESH, idle);
        assert!(live.seen.lock().unwrap().is_empty());
    }
}
