//! Asking for a decision: a command goes into the inbox, and what becomes of it is read from the log.
//!
//! Nothing is decided here. A key is used once in a scenario: a repeat is no second command, but gets the first one's
//! answer.

use std::time::Duration;

use kadr_shared::{
    domain::{Command, CommandEnvelope},
    id::{CommandId, ScenarioId},
    inbox,
    nats::Nats,
    publish::Stored,
    telemetry::chain,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tracing::warn;

use crate::{
    problem::{Problem, ProblemName},
    projection::Position,
    read_model::{Outcome, ReadError, ReadModel},
};

/// How long a caller waits for the decision.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How long storing a command may take, and how long looking one up.
const STORE_DEADLINE: Duration = Duration::from_secs(3);
const FIND_DEADLINE: Duration = Duration::from_secs(2);
/// Who asks, as the log names it.
const ACTOR: &str = "api";

/// Puts commands into the inbox and waits for their outcomes.
#[derive(Clone)]
pub(crate) struct Commands {
    nats: Nats,
    model: ReadModel,
    position: watch::Receiver<Position>,
}

impl Commands {
    pub(crate) fn new(nats: Nats, model: ReadModel, position: watch::Receiver<Position>) -> Self {
        Self { nats, model, position }
    }

    /// What became of the command: `None` if no answer came in time, which may still come.
    pub(crate) async fn ask(
        &self,
        scenario: &ScenarioId,
        key: &CommandId,
        command: Command,
    ) -> Result<Option<Outcome>, Problem> {
        let envelope = CommandEnvelope { id: key.clone(), actor: ACTOR.to_owned(), command };
        let input = self.store(scenario, &envelope).await?;
        Ok(self.outcome(scenario, key, input).await?)
    }

    /// The inbox sequence from which on the outcome counts.
    async fn store(&self, scenario: &ScenarioId, envelope: &CommandEnvelope) -> Result<u64, Problem> {
        // Disconnected, the client would keep the command for later: better to say so at once.
        if !self.nats.is_connected() {
            return Err(unavailable(&envelope.id));
        }
        match timeout(STORE_DEADLINE, inbox::send_command(&self.nats, scenario, envelope)).await {
            Ok(Ok(Stored::At(input))) => Ok(input),
            Ok(Ok(Stored::SubjectFull | Stored::Conflict)) => {
                let first = timeout(FIND_DEADLINE, inbox::find_command(&self.nats, scenario, &envelope.id)).await;
                match first {
                    Ok(Some(first)) if first.command == envelope.command => Ok(0),
                    Ok(Some(_)) => Err(Problem::new(
                        ProblemName::IdempotencyConflict,
                        "this Idempotency-Key was used for another command on this scenario: take another key",
                    )),
                    Ok(None) | Err(_) => Err(unavailable(&envelope.id)),
                }
            }
            Ok(Err(error)) => {
                warn!(%scenario, error = %chain(&error), "a command may not have been stored");
                Err(unavailable(&envelope.id))
            }
            Err(_) => {
                warn!(%scenario, "a command was not stored in time");
                Err(unavailable(&envelope.id))
            }
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

fn unavailable(key: &CommandId) -> Problem {
    Problem::new(
        ProblemName::Unavailable,
        format!(
            "NATS does not answer, and whether the command was stored is not known: \
             repeat it with the header Idempotency-Key: {key}, which never makes it happen twice"
        ),
    )
}
