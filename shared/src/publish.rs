//! Storing a message, with every way that it can go told apart.
//!
//! The client's error kinds do not suffice: on three replicas a stale expectation comes as `Other` with a code of its
//! own, and a full subject has no kind at all.

use std::error::Error;

use async_nats::jetstream::{
    self,
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
};

/// What became of a message.
#[derive(Debug)]
pub enum Stored {
    /// It has this sequence.
    At(u64),
    /// Somebody else (or an earlier try of ours) stored one first: the expected sequence was stale.
    Conflict,
    /// The subject holds as many messages as it may: for the inbox, this very key has been used.
    SubjectFull,
}

/// A message of which it is not known whether it was stored.
#[derive(Debug, thiserror::Error)]
#[error("could not store a message on {subject}")]
pub struct PublishFailed {
    pub subject: String,
    pub source: PublishError,
}

/// `wrong last sequence`.
const WRONG_LAST_SEQUENCE: u64 = 10071;
/// The same, found by the leader of a replicated stream while another append is under way.
const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10164;
/// `maximum messages per subject exceeded`, among other reasons not to store.
const STORE_FAILED: u64 = 10077;

/// The header that widens an expected sequence to a filter (the crate has no name for it).
pub const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// Publishes and waits for the acknowledgement (the context bounds the wait).
pub async fn publish(
    js: &jetstream::Context,
    subject: String,
    message: PublishMessage,
) -> Result<Stored, PublishFailed> {
    let sent = js.send_publish(subject.clone(), message).await;
    let result = match sent {
        Ok(acknowledgement) => acknowledgement.await,
        Err(error) => Err(error),
    };
    match result {
        Ok(ack) => Ok(Stored::At(ack.sequence)),
        Err(error) => match classify(&error) {
            Some(stored) => Ok(stored),
            None => Err(PublishFailed { subject, source: error }),
        },
    }
}

fn classify(error: &PublishError) -> Option<Stored> {
    if error.kind() == PublishErrorKind::WrongLastSequence {
        return Some(Stored::Conflict);
    }
    let refusal = error.source()?.downcast_ref::<jetstream::Error>()?;
    match refusal.error_code().0 {
        WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_CONSTANT => Some(Stored::Conflict),
        STORE_FAILED if refusal.to_string().contains("per subject") => Some(Stored::SubjectFull),
        _ => None,
    }
}
