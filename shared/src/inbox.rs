//! Putting commands and facts into the inbox. What they lead to is read from the log.

use async_nats::jetstream::{message::PublishMessage, stream::LastRawMessageErrorKind};
use serde::Serialize;

use crate::{
    domain::{CommandEnvelope, Fact, FactEnvelope},
    id::{CommandId, RunId, RunnerId, ScenarioId},
    nats::Nats,
    publish::{PublishFailed, Stored, publish},
    subjects,
};

/// Something could not be put into the inbox; whether it was stored may not be known.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    #[error("can't be written as JSON")]
    Write(#[source] serde_json::Error),
    #[error(transparent)]
    Publish(#[from] PublishFailed),
}

/// It could not be found out whether a key has been used.
#[derive(Debug, thiserror::Error)]
#[error("could not look up {subject}")]
pub struct FindError {
    pub subject: String,
    pub source: async_nats::Error,
}

/// Stores a command; [`Stored::SubjectFull`]: its key has been used.
pub async fn send_command(nats: &Nats, scenario: &ScenarioId, command: &CommandEnvelope) -> Result<Stored, InboxError> {
    send(nats, subjects::command(scenario, &command.id), command).await
}

/// A command in the inbox, with its place there.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub input: u64,
    /// None: it can't be read; another version of kadr stored it.
    pub command: Option<CommandEnvelope>,
}

/// The command that has used a key, if it is not older than [`INBOX_AGE`](crate::streams::INBOX_AGE). The stream's leader
/// is asked: a replica may not have it yet.
pub async fn find_command(nats: &Nats, scenario: &ScenarioId, id: &CommandId) -> Result<Option<Found>, FindError> {
    let subject = subjects::command(scenario, id);
    let failed = |source: async_nats::Error| FindError { subject: subject.clone(), source };
    let stream = nats.jetstream.get_stream_no_info(subjects::INBOX).await.map_err(|e| failed(e.into()))?;
    match stream.get_last_raw_message_by_subject(&subject).await {
        Ok(message) => {
            Ok(Some(Found { input: message.sequence, command: serde_json::from_slice(&message.payload).ok() }))
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

/// Stores a fact. `count` tells apart facts of one kind within an assignment (interruptions); sending one again is harmless.
pub async fn send_fact(
    nats: &Nats,
    scenario: &ScenarioId,
    run: RunId,
    runner: &RunnerId,
    count: u32,
    fact: Fact,
) -> Result<Stored, InboxError> {
    let id = format!("{}-{}-{count}-{runner}", fact.fence(), fact.name());
    let subject = subjects::fact(scenario, run, &id);
    send(nats, subject, &FactEnvelope { id, run, runner: runner.clone(), fact }).await
}

async fn send<T: Serialize>(nats: &Nats, subject: String, body: &T) -> Result<Stored, InboxError> {
    let payload = serde_json::to_vec(body).map_err(InboxError::Write)?;
    Ok(publish(&nats.jetstream, subject, PublishMessage::build().payload(payload.into())).await?)
}
