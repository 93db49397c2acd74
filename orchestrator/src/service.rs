//! The loop: reads the log always; while leading, takes the inbox in order and has decided what it holds.
//!
//! One task and no locks. What waits for the server does so on the [`Desk`].

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use kadr_shared::{
    domain::{Cause, CommandEnvelope, FactEnvelope},
    id::ScenarioId,
    log,
    nats::Nats,
    streams::{self, StreamsError},
    subjects,
    tail::{Entry, Feed, Tail},
    telemetry::chain,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    book::{Book, BookError},
    claims::Claims,
    decide::{Input, Signal},
    desk::{Desk, Ended, SPAN, Work},
    leadership::Leadership,
    runners::Runners,
};

/// How often the leader looks at what time alone changes: lost runners, retries, silent shutdowns.
const LOOK: Duration = Duration::from_millis(100);
/// Messages read ahead of their handling.
const READ_AHEAD: usize = 256;
/// For the question where the log ends.
const PATIENCE: Duration = Duration::from_secs(2);

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
    #[error(
        "the log was replaced: it ends at {end}, but was read up to {read}. If that was meant, start the orchestrator again; if not, restore NATS' data first"
    )]
    Replaced { end: u64, read: u64 },
}

/// Runs until `shutdown`. Several may run: one leads, the others follow the log.
pub async fn run(config: Config, nats: Nats, shutdown: CancellationToken) -> Result<(), OrchestratorError> {
    streams::ensure_at_start(&nats).await?;
    let beats = Tail::volatile(nats.jetstream.clone(), subjects::NODES_STREAM, subjects::NODES_ALL);
    let mut service = Service {
        events: log::tail(&nats, 1).spawn(READ_AHEAD),
        beats: beats.spawn(READ_AHEAD),
        leadership: Leadership::compete(nats.clone(), &config.name),
        desk: Desk::new(nats.clone()),
        claims: Claims::new(nats.clone()),
        book: Book::default(),
        runners: Runners::new(Instant::now()),
        role: Role::Following,
        nats,
    };
    let result = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        error = service.serve() => Err(error),
    };
    service.leadership.release().await;
    service.nats.flush().await;
    result
}

struct Service {
    nats: Nats,
    book: Book,
    runners: Runners,
    leadership: Leadership,
    desk: Desk,
    claims: Claims,
    events: Feed,
    beats: Feed,
    role: Role,
}

/// What this orchestrator is to the others.
enum Role {
    Following,
    /// Asks where the log ends: decisions are made only from the whole of it.
    Asking(BoxFuture<'static, Option<Asked>>),
    /// Reads up to there.
    CatchingUp(u64),
    Leading(Box<Inbox>),
}

/// Where the log ends, and what had been read of it when that was asked: more may have been read since.
struct Asked {
    read: u64,
    end: u64,
}

struct Inbox {
    feed: Feed,
    /// Read, but the desk has no room for it yet.
    held: Option<Entry>,
}

/// What happened next.
enum Next {
    Event(Entry),
    Beat(Entry),
    Input(Entry),
    End(Option<Asked>),
    Ended(ScenarioId, Ended),
    Acknowledged(u64),
    Term,
    Look,
}

impl Service {
    /// For ever, or until it can't go on.
    async fn serve(&mut self) -> OrchestratorError {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                entry = self.events.next() => Next::Event(entry),
                entry = self.beats.next() => Next::Beat(entry),
                next = self.role.next() => next,
                (scenario, ended) = self.desk.ended() => Next::Ended(scenario, ended),
                end = self.claims.looked() => Next::Acknowledged(end),
                () = self.leadership.changed() => Next::Term,
                _ = look.tick() => Next::Look,
            };
            if let Err(error) = self.handle(next) {
                return error;
            }
        }
    }

    fn handle(&mut self, next: Next) -> Result<(), OrchestratorError> {
        let now = Instant::now();
        match next {
            Next::Event(entry) => {
                if let Some(scenario) = self.book.fold(&entry, now)? {
                    self.desk.advance(&scenario, &self.book);
                }
                self.lead_once_caught_up();
            }
            Next::Beat(entry) => self.runners.hear(&entry, now),
            Next::Input(entry) => self.take(entry),
            Next::End(asked) => self.note_end(asked)?,
            Next::Ended(scenario, ended) => {
                match &ended {
                    Ended::Stored { .. } => self.leadership.tell(None),
                    Ended::Failed(failure) => self.leadership.tell(Some(failure.clone())),
                    Ended::Replaced { end, read } => {
                        return Err(OrchestratorError::Replaced { end: *end, read: *read });
                    }
                    Ended::Behind { .. } | Ended::Void => {}
                }
                self.desk.note(&scenario, &ended, &self.book);
            }
            Next::Acknowledged(end) => {
                for (scenario, signal) in self.claims.lost(end, &self.book, now) {
                    self.signal(scenario, signal);
                }
            }
            Next::Term => self.change_role(),
            Next::Look => {
                if matches!(self.role, Role::Leading(_)) {
                    self.look(now);
                }
            }
        }
        self.take_held();
        Ok(())
    }

    fn change_role(&mut self) {
        // Whatever was under way is taken up again from the inbox, by whoever leads next.
        self.desk.clear();
        self.role = if self.leadership.term() == 0 { Role::Following } else { Role::Asking(self.ask_for_end()) };
    }

    fn ask_for_end(&self) -> BoxFuture<'static, Option<Asked>> {
        let (nats, read) = (self.nats.clone(), self.book.position());
        Box::pin(async move {
            match log::extent(&nats, read, PATIENCE).await {
                Ok(extent) => return Some(Asked { read, end: extent.last }),
                Err(error) => warn!(error = chain(&error), "can't read the log's end, trying again"),
            }
            // Asked again at once, a server without the stream would be asked without a pause.
            tokio::time::sleep(LOOK).await;
            None
        })
    }

    fn note_end(&mut self, asked: Option<Asked>) -> Result<(), OrchestratorError> {
        match asked {
            Some(Asked { read, end }) if end < read => return Err(OrchestratorError::Replaced { end, read }),
            Some(Asked { end, .. }) => self.role = Role::CatchingUp(end),
            None => self.role = Role::Asking(self.ask_for_end()),
        }
        self.lead_once_caught_up();
        Ok(())
    }

    fn lead_once_caught_up(&mut self) {
        let Role::CatchingUp(end) = self.role else { return };
        if self.book.position() < end {
            return;
        }
        // All inputs below it are done: the desk sees to that.
        let from = (self.book.last_input() + 1).saturating_sub(SPAN).max(1);
        info!(log = end, inbox = from, scenarios = self.book.scenarios(), "deciding from here");
        let inbox = Tail::new(self.nats.jetstream.clone(), subjects::INBOX, subjects::INBOX_ALL, from);
        self.role = Role::Leading(Box::new(Inbox { feed: inbox.spawn(READ_AHEAD), held: None }));
    }

    /// Puts a message of the inbox on the desk, or keeps it until there is room.
    fn take(&mut self, entry: Entry) {
        let Role::Leading(inbox) = &mut self.role else { return };
        if !self.desk.has_room_for(entry.seq) {
            inbox.held = Some(entry);
            return;
        }
        if let Some((scenario, work)) = parse(&entry) {
            self.desk.put(scenario, work, &self.book);
        }
    }

    fn take_held(&mut self) {
        if let Role::Leading(inbox) = &mut self.role
            && let Some(entry) = inbox.held.take()
        {
            self.take(entry);
        }
    }

    /// Looks through the running scenarios for what time has brought.
    fn look(&mut self, now: Instant) {
        self.runners.tidy(now);
        self.desk.wake(now, &self.book);
        self.claims.worry(&self.book, now);
        let mut found = Vec::new();
        for (scenario, state) in self.book.running().filter(|(scenario, _)| self.desk.is_free(scenario)) {
            match state.assignment() {
                Some(held) if self.runners.is_gone(&held.runner, now) => {
                    let error = format!("runner {} is lost", held.runner);
                    found.push((scenario.clone(), Signal::RunnerGone { fence: held.fence, error }));
                }
                _ => found.extend(self.book.timers().ring(scenario, state, now).map(|s| (scenario.clone(), s))),
            }
        }
        for (scenario, signal) in found {
            self.signal(scenario, signal);
        }
    }

    /// What is being decided on now makes the signal void, or it is found again.
    fn signal(&mut self, scenario: ScenarioId, signal: Signal) {
        if matches!(self.role, Role::Leading(_)) && self.desk.is_free(&scenario) {
            self.desk.put(scenario, Work::found(signal), &self.book);
        }
    }
}

impl Role {
    /// May be dropped at any await: nothing is lost.
    async fn next(&mut self) -> Next {
        match self {
            Self::Asking(end) => Next::End(end.await),
            Self::Leading(inbox) if inbox.held.is_none() => Next::Input(inbox.feed.next().await),
            Self::Following | Self::CatchingUp(_) | Self::Leading(_) => std::future::pending().await,
        }
    }
}

/// A message of the inbox; none if it is not one of ours: somebody else's mistake must not stop the system.
fn parse(entry: &Entry) -> Option<(ScenarioId, Work)> {
    let subject = entry.message.subject.as_str();
    let cause = |id: String| Cause { input: Some(entry.seq), id };
    let payload = &entry.message.payload;
    let parsed = match (subjects::scenario_in(subject), subject.split('.').nth(3)) {
        (Some(scenario), Some("cmd")) => serde_json::from_slice::<CommandEnvelope>(payload).map(|envelope| {
            let (input, cause) = (Input::Command(envelope.command), cause(envelope.id.to_string()));
            (scenario, Work { input, cause, actor: envelope.actor })
        }),
        (Some(scenario), Some("run")) => serde_json::from_slice::<FactEnvelope>(payload).map(|envelope| {
            let (actor, cause) = (envelope.runner.to_string(), cause(envelope.id));
            let input = Input::Fact { run: envelope.run, runner: envelope.runner, fact: envelope.fact };
            (scenario, Work { input, cause, actor })
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
