//! Asking for a decision: a command goes into the inbox, and what becomes of it is read from the log.
//!
//! Nothing is decided here. A key is used once in a scenario: a repeat is no second command, but gets the first one's
//! answer. That also makes it harmless to send one again when it is not known whether it was stored.

use std::time::Duration;

use kadr_shared::{
    domain::{Command, CommandEnvelope},
    id::{CommandId, ScenarioId},
    inbox::{self, InboxError},
    nats::Nats,
    publish::Stored,
    subjects,
    telemetry::chain,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tracing::{info, warn};

use crate::{
    freshness,
    problem::{Problem, ProblemName},
    projection::Position,
    read_model::{Outcome, ReadError, ReadModel},
    storage::{self, Refusals},
};

/// How long a caller waits for the decision.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How long storing a command may take in all, through an outage.
pub(crate) const STORE_DEADLINE: Duration = Duration::from_secs(5);
/// One try of it.
const TRY_DEADLINE: Duration = Duration::from_secs(2);
/// Between two tries, and between two looks at a lost connection, whose return nothing announces.
const PAUSE: Duration = Duration::from_millis(50);
const FIND_DEADLINE: Duration = Duration::from_secs(2);
/// Who asks, as the log names it.
const ACTOR: &str = "api";

/// Puts commands into the inbox and waits for their outcomes.
#[derive(Clone)]
pub(crate) struct Commands {
    nats: Nats,
    model: ReadModel,
    position: watch::Receiver<Position>,
    refusals: Refusals,
}

/// A command in the inbox.
struct Asked {
    /// Its place there, from which on the outcome counts: the key may have been used before, more than a day ago.
    input: u64,
    /// It was there already.
    repeat: bool,
}

/// What has gone wrong so far with storing a command.
#[derive(Default)]
struct Trouble {
    /// A try got no answer: the command may have been stored by it.
    unsure: bool,
    /// What the server last said.
    said: Option<String>,
}

impl Commands {
    pub(crate) fn new(nats: Nats, model: ReadModel, position: watch::Receiver<Position>) -> Self {
        Self { nats, model, position, refusals: Refusals::default() }
    }

    /// What was not stored lately.
    pub(crate) const fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// What became of the command: `None` if no answer came in time, which may still come.
    pub(crate) async fn ask(
        &self,
        scenario: &ScenarioId,
        key: &CommandId,
        command: Command,
    ) -> Result<Option<Outcome>, Problem> {
        let envelope = CommandEnvelope { id: key.clone(), actor: ACTOR.to_owned(), command };
        let Asked { input, repeat } = self.store(scenario, &envelope).await?;
        if !repeat {
            return Ok(self.outcome(scenario, key, input).await?);
        }
        // It may have been answered long ago. That it was not is only known by tables that have come to where the log
        // ended when the repeat came: those of an API that has just been started have not.
        let (outcome, log) =
            tokio::join!(self.outcome(scenario, key, input), storage::look(&self.nats, subjects::EVENTS));
        let (outcome, at) = (outcome?, self.position.borrow().clone());
        match (outcome, log.last()) {
            (Some(outcome), _) => Ok(Some(outcome)),
            (None, Some(end)) if at.seq >= end => Ok(None),
            (None, end) => Err(freshness::behind(&at, end.unwrap_or(at.seq + 1))),
        }
    }

    /// Whether this key has been used in the scenario, as far as the inbox remembers. Not known: false.
    pub(crate) async fn is_used(&self, scenario: &ScenarioId, key: &CommandId) -> bool {
        let found = timeout(FIND_DEADLINE, inbox::find_command(&self.nats, scenario, key)).await;
        matches!(found, Ok(Ok(Some(_))))
    }

    /// Puts it into the inbox, through outages that are over in time.
    async fn store(&self, scenario: &ScenarioId, envelope: &CommandEnvelope) -> Result<Asked, Problem> {
        let deadline = Instant::now() + STORE_DEADLINE;
        let mut trouble = Trouble::default();
        loop {
            // Disconnected, the client would keep the command and send it at any time later.
            if self.nats.is_connected()
                && let Some(asked) = self.try_to_store(scenario, envelope, deadline, &mut trouble).await?
            {
                if trouble.unsure || trouble.said.is_some() {
                    info!(%scenario, key = %envelope.id, "a command was stored after all");
                }
                self.refusals.clear();
                return Ok(asked);
            }
            let next = Instant::now() + PAUSE;
            if next >= deadline {
                warn!(%scenario, key = %envelope.id, said = trouble.said, "a command was not stored in time");
                return Err(trouble.problem(&envelope.id));
            }
            sleep_until(next).await;
        }
    }

    /// `None`: another try may do better.
    async fn try_to_store(
        &self,
        scenario: &ScenarioId,
        envelope: &CommandEnvelope,
        deadline: Instant,
        trouble: &mut Trouble,
    ) -> Result<Option<Asked>, Problem> {
        let until = deadline.min(Instant::now() + TRY_DEADLINE);
        match timeout_at(until, inbox::send_command(&self.nats, scenario, envelope)).await {
            Ok(Ok(Stored::At(input))) => Ok(Some(Asked { input, repeat: false })),
            Ok(Ok(Stored::SubjectFull | Stored::Conflict)) => {
                self.find_first(scenario, envelope, deadline, trouble.unsure).await
            }
            Ok(Err(InboxError::Write(error))) => Err(Problem::internal(&error)),
            Ok(Err(InboxError::Publish(error))) => {
                let Some(refusal) = storage::refusal(&error) else {
                    warn!(%scenario, error = %chain(&error), "a command may not have been stored");
                    trouble.unsure = true;
                    return Ok(None);
                };
                warn!(%scenario, said = refusal.text, "NATS does not store a command");
                self.refusals.note(refusal.text.clone());
                trouble.said = Some(refusal.text);
                if refusal.full { Err(trouble.problem(&envelope.id)) } else { Ok(None) }
            }
            Err(_) => {
                trouble.unsure = true;
                Ok(None)
            }
        }
    }

    /// The command that has used the key; `None` if it can't be told now, or if the inbox has forgotten it meanwhile.
    /// `ours`: it may be that of an earlier try.
    async fn find_first(
        &self,
        scenario: &ScenarioId,
        envelope: &CommandEnvelope,
        deadline: Instant,
        ours: bool,
    ) -> Result<Option<Asked>, Problem> {
        let until = deadline.min(Instant::now() + FIND_DEADLINE);
        let first = match timeout_at(until, inbox::find_command(&self.nats, scenario, &envelope.id)).await {
            Ok(Ok(Some(first))) => first,
            Ok(Ok(None)) | Err(_) => return Ok(None),
            Ok(Err(error)) => {
                warn!(%scenario, error = %chain(&error), "can't find out what a key was used for");
                return Ok(None);
            }
        };
        match first.command {
            Some(command) if command.command == envelope.command => {
                Ok(Some(Asked { input: first.input, repeat: !ours }))
            }
            _ => Err(Problem::new(
                ProblemName::IdempotencyConflict,
                "this Idempotency-Key was used for another command on this scenario, or for the same with other \
                 settings: take another key",
            )),
        }
    }

    /// Waits for the projection to come by the event that answers.
    async fn outcome(&self, scenario: &ScenarioId, key: &CommandId, input: u64) -> Result<Option<Outcome>, ReadError> {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let mut position = self.position.clone();
        loop {
            // Marked as seen before the look: what is committed after it wakes the wait below.
            position.mark_unchanged();
            if let Some(outcome) = self.model.outcome(scenario, key, input).await? {
                return Ok(Some(outcome));
            }
            match timeout_at(deadline, position.changed()).await {
                Ok(Ok(())) => {}
                // Time is up, or the projection is.
                Err(_) | Ok(Err(_)) => return Ok(None),
            }
        }
    }
}

impl Trouble {
    /// What is told to whoever asked.
    fn problem(&self, key: &CommandId) -> Problem {
        let again = format!("with the header Idempotency-Key: {key}, which never makes it happen twice");
        match &self.said {
            Some(said) if !self.unsure => Problem::new(
                ProblemName::NotStored,
                format!(
                    "NATS does not store the command: {said}. Nothing was changed. Make room, then repeat it {again}"
                ),
            ),
            None if !self.unsure => Problem::new(
                ProblemName::Unavailable,
                format!("the connection to NATS is lost. Nothing was changed: repeat the command {again}"),
            ),
            said => {
                let said = said.as_ref().map_or_else(String::new, |said| format!(" ({said})"));
                let detail = format!(
                    "NATS does not answer{said}, and whether the command was stored is not known: repeat it {again}"
                );
                Problem::new(ProblemName::Unavailable, detail)
            }
        }
    }
}
