//! The loop: reads the log always; while leading, reads the inbox in order and appends what is decided.
//!
//! One task and no locks: an input is taken only when the state is as of the last append.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use kadr_shared::{
    domain::{Cause, CommandEnvelope, EventData, FactEnvelope, State},
    id::{RunId, ScenarioId},
    log,
    nats::Nats,
    publish::Stored,
    streams::{self, StreamsError},
    subjects,
    tail::{Entry, Feed, Tail},
    telemetry::chain,
    time::Timestamp,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    book::{Book, BookError},
    decide::{Context, Due, Input, SHUTDOWN_PATIENCE, Signal, decide, due},
    leadership::{Change, Leadership},
    runners::Runners,
};

/// How often the leader looks at what time alone changes: its key, lost runners, retries, silent shutdowns.
const LOOK: Duration = Duration::from_millis(100);
/// Messages read ahead of their handling.
const READ_AHEAD: usize = 256;
/// For a read or a purge that an append depends on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// An orchestrator's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Shown as the leader's name.
    pub name: String,
}

/// What ends an orchestrator.
#[derive(Debug, thiserror::Error)]
pub enum OrchestratorError {
    #[error("the streams are not as they have to be")]
    Streams(#[from] StreamsError),
    #[error("can't go on without knowing the whole log")]
    Book(#[from] BookError),
}

/// Runs until `shutdown`. Several may run: one leads, the others follow the log.
pub async fn run(config: Config, nats: Nats, shutdown: CancellationToken) -> Result<(), OrchestratorError> {
    streams::ensure(&nats).await?;
    let events = log::tail(&nats, 1).spawn(READ_AHEAD);
    let mut service = Service {
        leadership: Leadership::new(&config.name),
        beats: beats(&nats),
        nats,
        book: Book::default(),
        runners: Runners::new(Instant::now()),
        events,
        inbox: None,
        silent_since: HashMap::new(),
        shutdown,
    };
    let result = service.run().await;
    service.leadership.release(&service.nats).await;
    service.nats.flush().await;
    result
}

fn beats(nats: &Nats) -> Feed {
    Tail::volatile(nats.jetstream.clone(), subjects::NODES_STREAM, subjects::RUNNERS_ALL).spawn(READ_AHEAD)
}

struct Service {
    nats: Nats,
    book: Book,
    runners: Runners,
    leadership: Leadership,
    events: Feed,
    beats: Feed,
    /// Only while leading.
    inbox: Option<Feed>,
    /// Since when a shutdown has waited for its runner: by the event that began the wait.
    silent_since: HashMap<ScenarioId, (u64, Instant)>,
    shutdown: CancellationToken,
}

/// Whether an input is done with.
#[derive(PartialEq, Eq)]
enum Done {
    Yes,
    /// The log could not be written: whoever leads next takes it up again.
    No,
}

impl Service {
    async fn run(&mut self) -> Result<(), OrchestratorError> {
        let shutdown = self.shutdown.clone();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let inbox = async {
                match &mut self.inbox {
                    Some(feed) => feed.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                entry = self.events.next() => self.fold(&entry)?,
                entry = self.beats.next() => self.runners.hear(&entry, Instant::now()),
                entry = inbox => self.take_input(&entry).await?,
                _ = look.tick() => {
                    self.keep_leadership().await?;
                    if self.inbox.is_some() {
                        self.do_what_is_due().await?;
                    }
                }
            }
        }
    }

    fn fold(&mut self, entry: &Entry) -> Result<(), OrchestratorError> {
        Ok(self.book.fold(entry)?)
    }

    /// Reads the log up to a sequence that is known to exist.
    async fn catch_up(&mut self, seq: u64) -> Result<(), OrchestratorError> {
        let shutdown = self.shutdown.clone();
        while self.book.position() < seq {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                entry = self.events.next() => self.fold(&entry)?,
            }
        }
        Ok(())
    }

    async fn keep_leadership(&mut self) -> Result<(), OrchestratorError> {
        if !self.nats.is_connected() {
            self.runners.deaf_until(Instant::now());
        }
        match self.leadership.keep(&self.nats).await {
            Change::Taken => self.begin_to_lead().await?,
            Change::Lost => self.inbox = None,
            // The key was taken but the log could not be read then.
            Change::None if self.leadership.is_held() && self.inbox.is_none() => self.begin_to_lead().await?,
            Change::None => {}
        }
        Ok(())
    }

    /// Decides only from the whole log: what stands in it now is read first.
    async fn begin_to_lead(&mut self) -> Result<(), OrchestratorError> {
        let last = match self.nats.jetstream.get_stream(subjects::EVENTS).await {
            Ok(stream) => stream.cached_info().state.last_sequence,
            Err(error) => {
                warn!(error = chain(&error), "can't read the log's end");
                return Ok(());
            }
        };
        self.catch_up(last).await?;
        let from = self.book.last_input() + 1;
        info!(log = last, inbox = from, "deciding from here");
        self.silent_since.clear();
        // The bucket may be another one than before: leadership is always lost with it.
        self.beats = beats(&self.nats);
        self.runners.deaf_until(Instant::now());
        let inbox = Tail::new(self.nats.jetstream.clone(), subjects::INBOX, subjects::INBOX_ALL, from);
        self.inbox = Some(inbox.spawn(READ_AHEAD));
        Ok(())
    }

    /// Decides on a message of the inbox.
    async fn take_input(&mut self, entry: &Entry) -> Result<(), OrchestratorError> {
        let Some(Incoming { scenario, input, cause, actor }) = parse(entry) else { return Ok(()) };
        if self.settle(&scenario, &input, cause, actor).await? == Done::No {
            // In order or not at all: this input and those behind it are read again.
            self.inbox = None;
            self.leadership.drop_it();
            return Ok(());
        }
        self.proceed(&scenario).await
    }

    /// Takes the steps of a shutdown that wait for nobody.
    async fn proceed(&mut self, scenario: &ScenarioId) -> Result<(), OrchestratorError> {
        while let Some(Due::Now(signal)) = due(&self.book.state(scenario)) {
            if self.signal(scenario, signal).await? == Done::No {
                break;
            }
        }
        Ok(())
    }

    /// Looks through the running scenarios for what time has brought.
    async fn do_what_is_due(&mut self) -> Result<(), OrchestratorError> {
        let now = Instant::now();
        self.runners.tidy(now);
        let mut found = Vec::new();
        let mut silent = HashMap::new();
        for (scenario, state) in self.book.running() {
            if let Some(held) = state.assignment()
                && self.runners.is_gone(&held.runner, now)
            {
                let error = format!("runner {} is lost", held.runner);
                found.push((scenario.clone(), Signal::RunnerGone { fence: held.fence, error }));
                continue;
            }
            match due(state) {
                Some(Due::Now(signal)) => found.push((scenario.clone(), signal)),
                Some(Due::At(at, signal)) if Timestamp::now() >= at => found.push((scenario.clone(), signal)),
                Some(Due::Silence(held)) => {
                    let (_, since) = self
                        .silent_since
                        .get(scenario)
                        .copied()
                        .filter(|(seq, _)| *seq == waiting_since(state))
                        .unwrap_or((waiting_since(state), now));
                    if now.duration_since(since) >= SHUTDOWN_PATIENCE {
                        let error = format!("runner {} did not answer the shutdown", held.runner);
                        found.push((scenario.clone(), Signal::RunnerGone { fence: held.fence, error }));
                    }
                    silent.insert(scenario.clone(), (waiting_since(state), since));
                }
                Some(Due::At(..)) | None => {}
            }
        }
        self.silent_since = silent;
        for (scenario, signal) in found {
            self.signal(&scenario, signal).await?;
            self.proceed(&scenario).await?;
        }
        Ok(())
    }

    async fn signal(&mut self, scenario: &ScenarioId, signal: Signal) -> Result<Done, OrchestratorError> {
        let id = match &signal {
            Signal::RunnerGone { .. } => "runner_gone",
            Signal::Proceed => "proceed",
            Signal::RetryDue => "retry_due",
        };
        let cause = Cause { input: None, id: id.to_owned() };
        self.settle(scenario, &Input::Signal(signal), cause, "orchestrator".to_owned()).await
    }

    /// Decides and appends, again and again until the decision was made on the state that the log has.
    async fn settle(
        &mut self,
        scenario: &ScenarioId,
        input: &Input,
        cause: Cause,
        actor: String,
    ) -> Result<Done, OrchestratorError> {
        loop {
            let state = self.book.state(scenario);
            if cause.input.is_some_and(|seq| seq <= state.last_input) {
                return Ok(Done::Yes);
            }
            let context = Context { now: Timestamp::now(), new_run: RunId::generate(), jitter: jitter() };
            let decided = decide(&state, input, &context);
            // An append is checked by the server; what has no append must not be done on a state that is out of date.
            let unchecked =
                matches!((&decided, input), (None, Input::Fact { .. }) | (Some(EventData::ScenarioDeleted {}), _));
            if unchecked {
                let Some(last) = self.last_of(scenario).await else { return Ok(Done::No) };
                if last > state.seq {
                    self.catch_up(last).await?;
                    continue;
                }
            }
            let Some(data) = decided else {
                debug!(%scenario, ?input, state = state.phase.name(), "changes nothing");
                return Ok(Done::Yes);
            };
            if matches!(data, EventData::ScenarioDeleted {}) && !self.purge(scenario).await {
                return Ok(Done::No);
            }
            match log::append(&self.nats, scenario, state.seq, cause.clone(), actor.clone(), &data).await {
                Ok(Stored::At(seq)) => {
                    info!(%scenario, seq, event = data.kind(), cause = cause.id, "appended");
                    self.catch_up(seq).await?;
                    return Ok(Done::Yes);
                }
                Ok(Stored::Conflict | Stored::SubjectFull) => {
                    let Some(last) = self.last_of(scenario).await else { return Ok(Done::No) };
                    self.catch_up(last).await?;
                }
                Err(failure) => {
                    error!(%scenario, error = chain(&failure), "can't write the log");
                    return Ok(Done::No);
                }
            }
            if self.shutdown.is_cancelled() {
                return Ok(Done::No);
            }
        }
    }

    /// The sequence of a scenario's last event, from the stream's leader; 0: it has none. None: it can't be read now.
    async fn last_of(&self, scenario: &ScenarioId) -> Option<u64> {
        let stream = self.nats.jetstream.get_stream_no_info(subjects::EVENTS).await.ok()?;
        let filter = subjects::events_of(scenario);
        let read = stream.get_last_raw_message_by_subject(&filter);
        match tokio::time::timeout(REQUEST_TIMEOUT, read).await.ok()? {
            Ok(message) => Some(message.sequence),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Some(0),
            Err(_) => None,
        }
    }

    /// Takes a scenario's detections away, before the log says that it is deleted: doing it twice is harmless.
    async fn purge(&self, scenario: &ScenarioId) -> bool {
        let purge = async {
            let stream = self.nats.jetstream.get_stream(subjects::DETECTIONS).await?;
            stream.purge().filter(subjects::detections(scenario)).await?;
            Ok::<(), async_nats::Error>(())
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, purge).await {
            Ok(Ok(())) => true,
            Ok(Err(failure)) => {
                error!(%scenario, error = %failure, "can't purge the detections");
                false
            }
            Err(_) => {
                error!(%scenario, "can't purge the detections in time");
                false
            }
        }
    }
}

/// The event that a shutdown's present wait began with. Refused commands in between must not prolong it.
fn waiting_since(state: &State) -> u64 {
    // The two halves of a shutdown are told apart by their state; the fence tells runs apart.
    let half = matches!(state.phase, kadr_shared::domain::Phase::InShutdownProcessing { .. });
    state.assignment().map_or(0, |a| a.fence * 2 + u64::from(half))
}

struct Incoming {
    scenario: ScenarioId,
    input: Input,
    cause: Cause,
    actor: String,
}

/// A message of the inbox; none if it is not one of ours: somebody else's mistake must not stop the system.
fn parse(entry: &Entry) -> Option<Incoming> {
    let subject = entry.message.subject.as_str();
    let cause = |id: String| Cause { input: Some(entry.seq), id };
    let scenario = subjects::scenario_in(subject);
    let payload = &entry.message.payload;
    let parsed = match (scenario, subject.split('.').nth(3)) {
        (Some(scenario), Some("cmd")) => serde_json::from_slice::<CommandEnvelope>(payload).map(|envelope| Incoming {
            scenario,
            input: Input::Command(envelope.command),
            cause: cause(envelope.id.to_string()),
            actor: envelope.actor,
        }),
        (Some(scenario), Some("run")) => serde_json::from_slice::<FactEnvelope>(payload).map(|envelope| Incoming {
            scenario,
            cause: cause(envelope.id),
            actor: envelope.runner.to_string(),
            input: Input::Fact { run: envelope.run, runner: envelope.runner, fact: envelope.fact },
        }),
        _ => {
            warn!(subject, seq = entry.seq, "the inbox holds a message that is none of kadr's");
            return None;
        }
    };
    parsed
        .inspect_err(|error| warn!(subject, seq = entry.seq, %error, "the inbox holds a message that can't be read"))
        .ok()
}

/// Chance enough to spread retries: the low bits of a fresh UUID.
fn jitter() -> f64 {
    let text = RunId::generate().to_string();
    let tail = text.get(text.len().saturating_sub(4)..).unwrap_or_default();
    f64::from(u16::from_str_radix(tail, 16).unwrap_or(0)) / f64::from(u16::MAX)
}
