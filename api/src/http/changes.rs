//! What stands behind a change: keys, names, and the answer that is made from the event that answered the command, so
//! that a repeat gets the same one, whatever has happened since.

use std::fmt::Write;

use kadr_shared::{
    domain::State,
    id::{CommandId, ScenarioId},
    moment::Moment,
    secret::{self, SecretError, SecretKind, SecretName},
    settings::Settings,
    telemetry::chain,
};
use sha2::{Digest, Sha256};

use super::{answers::Accepted, params::KeyParam, scenarios::ScenariosApi};
use crate::{
    body::{Body, Given, Scenario, Secret},
    problem::{Problem, ProblemName},
    time_travel::{self, AsOf, Past},
};

impl ScenariosApi {
    /// That the catalogue has what the settings name. A repeat is answered as the first one was, whatever the catalogue
    /// of this API holds.
    pub(super) async fn check_names(
        &self,
        id: &ScenarioId,
        key: &CommandId,
        settings: &Settings,
    ) -> Result<(), Problem> {
        let names = || {
            let model = self.services.catalog.model(&settings.model)?;
            model.classes(&settings.analysis.classes)?;
            if let Some(webhook) = &settings.outputs.webhook {
                model.classes(&webhook.classes)?;
            }
            Ok(())
        };
        match names() {
            Err(_) if self.services.commands.is_used(id, key).await => Ok(()),
            other => other,
        }
    }

    /// Encrypts what is secret, if there is anything; the settings then name it.
    pub(super) async fn keep_secrets(
        &self,
        id: &ScenarioId,
        key: &CommandId,
        given: Given,
    ) -> Result<Settings, Problem> {
        let Given { mut settings, secrets } = given;
        for (kind, Secret(text)) in secrets {
            let Some(secret_key) = &self.services.secret_key else {
                return Err(Problem::new(
                    ProblemName::InvalidBody,
                    "this API has no key to encrypt passwords with: give all APIs and runners one by secret_key_file \
                     (KADR_SECRET_KEY_FILE)",
                ));
            };
            let name = SecretName::of(key, kind);
            match secret::keep(&self.services.nats, secret_key, id, &name, &text).await {
                Ok(()) => {}
                Err(SecretError::Differs) => {
                    return Err(Problem::new(
                        ProblemName::IdempotencyConflict,
                        "the key has been used with another password or secret: use another key for another command",
                    ));
                }
                Err(error @ (SecretError::OtherKey | SecretError::Randomness(_))) => {
                    return Err(Problem::internal(&error));
                }
                Err(error) => return Err(Problem::new(ProblemName::Unavailable, chain(&error))),
            }
            match (kind, &mut settings.outputs.webhook) {
                (SecretKind::Password, _) => settings.source.secret = Some(name),
                (SecretKind::Signing, Some(webhook)) => webhook.secret = Some(name),
                // It stood in one.
                (SecretKind::Signing, None) => {}
            }
        }
        Ok(settings)
    }

    /// The scenario as its creation left it.
    pub(super) async fn as_created(&self, id: &ScenarioId, seq: u64) -> Result<Scenario, Problem> {
        let events = self.services.model.events(id, seq, 1).await?;
        let created = events.iter().find(|event| event.seq == seq).and_then(|event| {
            let data = event.parse().ok()?;
            let state = State::default().evolve(event.seq, event.time, &event.cause, &data);
            Scenario::new(id, &state, seq, None)
        });
        created.ok_or_else(rebuilt)
    }

    /// The scenario as an event left it.
    pub(super) async fn as_configured(&self, id: &ScenarioId, seq: u64) -> Result<Scenario, Problem> {
        let mut past = AsOf::new(Moment::Seq(seq));
        time_travel::read(&self.services.model, id, |event| past.take(event)).await?;
        match past.end() {
            Past::Was(state) if state.seq == seq => Scenario::new(id, &state, seq, None).ok_or_else(rebuilt),
            _ => Err(rebuilt()),
        }
    }
}

/// The tables were thrown away in this very moment.
fn rebuilt() -> Problem {
    Problem::new(ProblemName::Unavailable, "the tables are being rebuilt: try again")
}

pub(super) fn accepted(key: &CommandId, seq: Option<u64>) -> Body<Accepted> {
    Body(Accepted { id: key.to_string(), accepted_at_seq: seq })
}

pub(super) fn key_or_new(key: Option<KeyParam>) -> CommandId {
    key.map_or_else(CommandId::generate, |KeyParam(key)| key)
}

/// A short id for a scenario without one. It follows from the key, so that a repeat does not create another scenario.
pub(super) fn id_from(key: &CommandId) -> Result<ScenarioId, Problem> {
    let digest = Sha256::digest(key.as_str());
    let id = digest.iter().take(4).fold("scenario-".to_owned(), |mut id, byte| {
        // Writing to a string does not fail.
        let _ = write!(id, "{byte:02x}");
        id
    });
    id.parse().map_err(|error: kadr_shared::id::IdError| Problem::internal(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_the_key_and_is_short() {
        let key = |text: &str| text.parse::<CommandId>().unwrap();
        let id = id_from(&key("k-1")).unwrap();
        assert_eq!(id, id_from(&key("k-1")).unwrap());
        assert_ne!(id, id_from(&key("k-2")).unwrap());
        assert_eq!(id.as_str().len(), "scenario-".len() + 8);
    }
}
