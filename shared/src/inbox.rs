//! Putting commands and facts into the inbox. What they lead to is read from the log.

use async_nats::jetstream::message::PublishMessage;
use serde::Serialize;

use crate::{
    domain::{CommandEnvelope, Fact, FactEnvelope},
    id::{RunId, RunnerId, ScenarioId},
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

/// Stores a command; [`Stored::SubjectFull`]: its key has been used.
pub async fn send_command(nats: &Nats, scenario: &ScenarioId, command: &CommandEnvelope) -> Result<Stored, InboxError> {
    send(nats, subjects::command(scenario, &command.id), command).await
}

/// The command that has used a key, if it is not older than [`INBOX_AGE`](crate::streams::INBOX_AGE).
pub async fn find_command(nats: &Nats, scenario: &ScenarioId, id: &crate::id::CommandId) -> Option<CommandEnvelope> {
    let stream = nats.jetstream.get_stream_no_info(subjects::INBOX).await.ok()?;
    let message = stream.get_last_raw_message_by_subject(&subjects::command(scenario, id)).await.ok()?;
    serde_json::from_slice(&message.payload).ok()
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
