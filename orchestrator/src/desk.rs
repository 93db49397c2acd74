//! What is being decided: one input at a time for each scenario, in order, and many scenarios at once.
//!
//! A decision is made on the state that the log gave; the next one on that scenario waits until the log has been read up
//! to what this one has appended. An input stays on the desk until the log holds its event (or it is known to change
//! nothing), so that whoever leads next finds all that was not done at most [`SPAN`] inputs below the latest that was.

mod job;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kadr_shared::{
    domain::{Cause, EventData},
    id::{RunId, ScenarioId},
    nats::Nats,
};
use tracing::{debug, error, info};

pub(crate) use self::job::Ended;
use self::job::Job;
use crate::{
    book::Book,
    decide::{Context, Due, Input, Signal, decide, due},
};

/// Inputs on the desk at the same time.
const OPEN: usize = 256;
/// The oldest input on the desk and the newest are never further apart.
pub(crate) const SPAN: u64 = 1024;
/// Before what could not be written is tried again.
const REST: Duration = Duration::from_millis(250);

/// Something to decide on.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) input: Input,
    pub(crate) cause: Cause,
    pub(crate) actor: String,
}

impl Work {
    /// What the leader itself has found.
    pub(crate) fn found(signal: Signal) -> Self {
        let id = match &signal {
            Signal::RunnerGone { .. } => "runner_gone",
            Signal::Proceed => "proceed",
            Signal::RetryDue { .. } => "retry_due",
            Signal::StartLost { .. } => "start_lost",
        };
        let cause = Cause { input: None, id: id.to_owned() };
        Self { input: Input::Signal(signal), cause, actor: "orchestrator".to_owned() }
    }
}

/// One scenario's place on the desk. There is none for a scenario with nothing to do.
#[derive(Default)]
struct Lane {
    queue: VecDeque<Work>,
    at: At,
}

#[derive(Default, PartialEq, Eq)]
enum At {
    #[default]
    Ready,
    /// A job is under way for the first of the queue.
    Busy,
    /// The log must be read up to this sequence before the next decision.
    Reading(u64),
    Resting(Instant),
}

pub(crate) struct Desk {
    nats: Nats,
    lanes: HashMap<ScenarioId, Lane>,
    /// Inbox sequences of what is on it.
    open: BTreeSet<u64>,
    jobs: FuturesUnordered<BoxFuture<'static, (ScenarioId, Ended)>>,
}

impl Desk {
    pub(crate) fn new(nats: Nats) -> Self {
        Self { nats, lanes: HashMap::new(), open: BTreeSet::new(), jobs: FuturesUnordered::new() }
    }

    /// Lets everything lie: what is under way may or may not be stored.
    pub(crate) fn clear(&mut self) {
        self.lanes.clear();
        self.open.clear();
        self.jobs.clear();
    }

    /// Whether the input with this sequence may be put on it.
    pub(crate) fn has_room_for(&self, input: u64) -> bool {
        self.open.len() < OPEN && self.open.first().is_none_or(|oldest| input.saturating_sub(*oldest) < SPAN)
    }

    /// Whether a scenario has nothing on it.
    pub(crate) fn is_free(&self, scenario: &ScenarioId) -> bool {
        !self.lanes.contains_key(scenario)
    }

    /// Puts something on it, behind what is there for the scenario.
    pub(crate) fn put(&mut self, scenario: ScenarioId, work: Work, book: &Book) {
        self.open.extend(work.cause.input);
        self.lanes.entry(scenario.clone()).or_default().queue.push_back(work);
        self.advance(&scenario, book);
    }

    /// The next job that has ended. Waits for ever if there is none under way. May be dropped at any await.
    pub(crate) async fn ended(&mut self) -> (ScenarioId, Ended) {
        match self.jobs.next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Takes note of how a job ended.
    pub(crate) fn note(&mut self, scenario: &ScenarioId, ended: &Ended, book: &Book) {
        let Some(lane) = self.lanes.get_mut(scenario) else { return };
        match ended {
            Ended::Stored { seq, kind } => {
                if let Some(done) = lane.queue.pop_front() {
                    info!(%scenario, seq, event = kind, cause = done.cause.id, "appended");
                    done.cause.input.inspect(|input| _ = self.open.remove(input));
                }
                lane.at = At::Reading(*seq);
            }
            Ended::Behind { last } => lane.at = At::Reading(*last),
            Ended::Void => {
                if let Some(done) = lane.queue.pop_front() {
                    debug!(%scenario, input = ?done.input, "changes nothing");
                    done.cause.input.inspect(|input| _ = self.open.remove(input));
                }
                lane.at = At::Ready;
            }
            Ended::Failed(failure) => {
                error!(%scenario, error = failure, "can't write the log, trying again");
                lane.at = At::Resting(Instant::now() + REST);
            }
            // The service ends.
            Ended::Replaced { .. } => {}
        }
        self.advance(scenario, book);
    }

    /// Takes up what has rested.
    pub(crate) fn wake(&mut self, now: Instant, book: &Book) {
        let rested = self.lanes.iter_mut().filter(|(_, lane)| matches!(lane.at, At::Resting(until) if now >= until));
        let rested: Vec<_> = rested
            .map(|(scenario, lane)| {
                lane.at = At::Ready;
                scenario.clone()
            })
            .collect();
        for scenario in rested {
            self.advance(&scenario, book);
        }
    }

    /// Goes on with a scenario, as far as that is possible without waiting. To be called when its state has changed.
    pub(crate) fn advance(&mut self, scenario: &ScenarioId, book: &Book) {
        let Some(lane) = self.lanes.get_mut(scenario) else { return };
        match lane.at {
            At::Busy | At::Resting(_) => return,
            At::Reading(seq) if book.position() < seq => return,
            At::Reading(_) | At::Ready => lane.at = At::Ready,
        }
        let state = book.state(scenario);
        // The steps of a shutdown that wait for nobody come before what is asked next.
        if let Some(Due::Now(signal)) = due(&state)
            && lane.queue.front().is_none_or(|next| next.input != Input::Signal(signal.clone()))
        {
            lane.queue.push_front(Work::found(signal));
        }
        while let Some(work) = lane.queue.front() {
            let handled = work.cause.input.is_some_and(|input| input <= state.last_input);
            let active_for = book.timers().active_for(scenario, Instant::now());
            let context = Context { active_for, new_run: RunId::generate(), jitter: jitter() };
            let decided = if handled { None } else { decide(&state, &work.input, &context) };
            let job = Job { nats: self.nats.clone(), scenario: scenario.clone(), last: state.seq };
            let job: BoxFuture<'static, _> = match (decided, &work.input) {
                (Some(data @ EventData::ScenarioDeleted {}), _) => {
                    Box::pin(job.delete(work.cause.clone(), work.actor.clone(), data))
                }
                (Some(data), _) => Box::pin(job.append(work.cause.clone(), work.actor.clone(), data)),
                // What has no append is checked by no server: it must not be void only for a state that is out of date.
                (None, Input::Fact { .. }) if !handled => Box::pin(job.check()),
                (None, _) => {
                    work.cause.input.inspect(|input| _ = self.open.remove(input));
                    lane.queue.pop_front();
                    continue;
                }
            };
            lane.at = At::Busy;
            self.jobs.push(job);
            return;
        }
        self.lanes.remove(scenario);
    }
}

/// Chance enough to spread retries: the low bits of a fresh UUID.
fn jitter() -> f64 {
    let text = RunId::generate().to_string();
    let tail = text.get(text.len().saturating_sub(4)..).unwrap_or_default();
    f64::from(u16::from_str_radix(tail, 16).unwrap_or(0)) / f64::from(u16::MAX)
}
