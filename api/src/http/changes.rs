//! `/v1/scenarios`: creating, configuring, commanding and deleting. Showing them stands in
//! [`scenarios`](super::scenarios).
//!
//! Each change is a command with a key; its answer is made from the event that answered the command, so that a repeat
//! gets the same one, whatever has happened since.

use std::{fmt::Write, sync::Arc};

use kadr_shared::{
    domain::{Command, State},
    id::{CommandId, ScenarioId},
    moment::Moment,
    settings::Settings,
};
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Header, Path, Query},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Part, Services,
    params::{IdParam, KeyParam},
};
use crate::{
    body::{Body, Scenario, SettingsBody, Strict},
    problem::{Failure, Problem, ProblemName, Problems},
    time_travel::{self, AsOf, Past},
};

pub(super) struct ChangesApi {
    pub(super) services: Arc<Services>,
}

/// What is asked of a scenario.
#[derive(Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(rename = "Command")]
struct CommandBody {
    command: CommandName,
}

#[derive(Debug, Clone, Copy, Deserialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
enum CommandName {
    Start,
    Stop,
}

/// A command that was stored.
#[derive(Debug, Serialize, Object)]
struct Accepted {
    /// The command's id: the `Idempotency-Key` that was given, or the one made for it.
    id: String,
    /// The sequence of the event that answers it, to read by (`at_least`); null: no answer came in 2 s, it may come
    /// later.
    accepted_at_seq: Option<u64>,
}

#[derive(ApiResponse)]
enum CommandAnswer {
    /// The command was accepted, or stored and not answered yet (`accepted_at_seq` is null).
    #[oai(status = 202)]
    Accepted(Body<Accepted>),
}

#[derive(ApiResponse)]
#[expect(clippy::large_enum_variant, reason = "made once a request, and written at once")]
enum CreateAnswer {
    /// The scenario as it was created.
    #[oai(status = 201)]
    Created(
        Body<Scenario>,
        /// Where it is found.
        #[oai(header = "Location")]
        String,
    ),
    /// The command was stored, but no answer came in 2 s.
    #[oai(status = 202)]
    Accepted(
        Body<Accepted>,
        /// Where the scenario will be found.
        #[oai(header = "Location")]
        String,
    ),
}

#[derive(ApiResponse)]
#[expect(clippy::large_enum_variant, reason = "made once a request, and written at once")]
enum ConfigureAnswer {
    /// The scenario as the new settings left it.
    #[oai(status = 200)]
    Configured(Body<Scenario>),
    /// The command was stored, but no answer came in 2 s.
    #[oai(status = 202)]
    Accepted(Body<Accepted>),
}

#[derive(ApiResponse)]
enum DeleteAnswer {
    /// It is deleted; its log stays.
    #[oai(status = 204)]
    Deleted,
    /// The command was stored, but no answer came in 2 s.
    #[oai(status = 202)]
    Accepted(Body<Accepted>),
}

struct CreateProblems;
struct ConfigureProblems;
struct CommandProblems;
struct DeleteProblems;

impl Problems for CreateProblems {
    const NAMES: &'static [ProblemName] = &[
        ProblemName::BadRequest,
        ProblemName::MalformedJson,
        ProblemName::AlreadyExists,
        ProblemName::IdempotencyConflict,
        ProblemName::BodyTooLarge,
        ProblemName::UnsupportedMediaType,
        ProblemName::InvalidBody,
        ProblemName::UnknownModel,
        ProblemName::UnknownClass,
        ProblemName::Behind,
        ProblemName::NotStored,
        ProblemName::Unavailable,
    ];
}

impl Problems for CommandProblems {
    const NAMES: &'static [ProblemName] = &[
        ProblemName::BadRequest,
        ProblemName::MalformedJson,
        ProblemName::NotFound,
        ProblemName::AlreadyRunning,
        ProblemName::NotRunning,
        ProblemName::ShuttingDown,
        ProblemName::IdempotencyConflict,
        ProblemName::BodyTooLarge,
        ProblemName::UnsupportedMediaType,
        ProblemName::InvalidBody,
        ProblemName::Behind,
        ProblemName::NotStored,
        ProblemName::Unavailable,
    ];
}

impl Problems for DeleteProblems {
    const NAMES: &'static [ProblemName] = &[
        ProblemName::BadRequest,
        ProblemName::NotFound,
        ProblemName::StillRunning,
        ProblemName::IdempotencyConflict,
        ProblemName::Behind,
        ProblemName::NotStored,
        ProblemName::Unavailable,
    ];
}

impl Problems for ConfigureProblems {
    const NAMES: &'static [ProblemName] = &[
        ProblemName::BadRequest,
        ProblemName::MalformedJson,
        ProblemName::NotFound,
        ProblemName::StillRunning,
        ProblemName::IdempotencyConflict,
        ProblemName::BodyTooLarge,
        ProblemName::UnsupportedMediaType,
        ProblemName::InvalidBody,
        ProblemName::UnknownModel,
        ProblemName::UnknownClass,
        ProblemName::Behind,
        ProblemName::NotStored,
        ProblemName::Unavailable,
    ];
}

#[OpenApi(prefix_path = "/v1/scenarios", tag = "Part::Scenarios")]
impl ChangesApi {
    /// Create a scenario
    ///
    /// Only `source` has to be given. Repeating a request with its `Idempotency-Key` gives the first one's answer.
    #[oai(path = "/", method = "post", operation_id = "create_scenario")]
    async fn create(
        &self,
        /// The scenario's id; one is made up if it is missing. Ids stay in the log and must not be personal data.
        id: Query<Option<IdParam>>,
        /// Makes repeating safe, for 24 hours: see above.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<KeyParam>>,
        body: Strict<Settings, SettingsBody>,
    ) -> Result<CreateAnswer, Failure<CreateProblems>> {
        let Strict(settings, _) = body;
        let key = key_or_new(key.0);
        let id = match id.0 {
            Some(IdParam(id)) => id,
            None => id_from(&key)?,
        };
        self.check_names(&id, &key, &settings).await?;
        let location = format!("/v1/scenarios/{id}");
        let answer = self.services.commands.ask(&id, &key, Command::Create { settings }).await?;
        let Some(outcome) = answer else {
            return Ok(CreateAnswer::Accepted(accepted(&key, None), location));
        };
        if let Some(refusal) = outcome.refusal {
            return Err(refusal.into());
        }
        Ok(CreateAnswer::Created(Body(self.as_created(&id, outcome.seq).await?), location))
    }

    /// Give a scenario that does not run other settings
    ///
    /// All of them: what is left out gets its default, not what it was. Repeating a request with its `Idempotency-Key`
    /// gives the first one's answer.
    #[oai(path = "/:id", method = "put", operation_id = "configure_scenario")]
    async fn configure(
        &self,
        id: Path<IdParam>,
        /// Makes repeating safe, for 24 hours: see above.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<KeyParam>>,
        body: Strict<Settings, SettingsBody>,
    ) -> Result<ConfigureAnswer, Failure<ConfigureProblems>> {
        let (IdParam(id), Strict(settings, _)) = (id.0, body);
        let key = key_or_new(key.0);
        self.check_names(&id, &key, &settings).await?;
        match self.services.commands.ask(&id, &key, Command::Reconfigure { settings }).await? {
            None => Ok(ConfigureAnswer::Accepted(accepted(&key, None))),
            Some(outcome) => match outcome.refusal {
                None => Ok(ConfigureAnswer::Configured(Body(self.as_configured(&id, outcome.seq).await?))),
                Some(refusal) => Err(refusal.into()),
            },
        }
    }

    /// Delete a scenario that does not run
    ///
    /// Its log stays; creating the id again goes on in it.
    #[oai(path = "/:id", method = "delete", operation_id = "delete_scenario")]
    async fn delete(
        &self,
        id: Path<IdParam>,
        /// Makes repeating safe, for 24 hours: see above.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<KeyParam>>,
    ) -> Result<DeleteAnswer, Failure<DeleteProblems>> {
        let IdParam(id) = id.0;
        let key = key_or_new(key.0);
        match self.services.commands.ask(&id, &key, Command::Delete).await? {
            None => Ok(DeleteAnswer::Accepted(accepted(&key, None))),
            Some(outcome) => match outcome.refusal {
                None => Ok(DeleteAnswer::Deleted),
                Some(refusal) => Err(refusal.into()),
            },
        }
    }

    /// Start or stop a scenario
    ///
    /// Repeating a request with its `Idempotency-Key` is no second command and gives the first one's answer.
    #[oai(path = "/:id/commands", method = "post", operation_id = "command_scenario")]
    async fn command(
        &self,
        id: Path<IdParam>,
        /// Makes repeating safe, for 24 hours: see above.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<KeyParam>>,
        body: Strict<CommandBody, CommandBody>,
    ) -> Result<CommandAnswer, Failure<CommandProblems>> {
        let IdParam(id) = id.0;
        let key = key_or_new(key.0);
        let command = match body.0.command {
            CommandName::Start => Command::Start,
            CommandName::Stop => Command::Stop,
        };
        match self.services.commands.ask(&id, &key, command).await? {
            None => Ok(CommandAnswer::Accepted(accepted(&key, None))),
            Some(outcome) => match outcome.refusal {
                None => Ok(CommandAnswer::Accepted(accepted(&key, Some(outcome.seq)))),
                Some(refusal) => Err(refusal.into()),
            },
        }
    }
}

impl ChangesApi {
    /// That the catalogue has what the settings name. A repeat is answered as the first one was, whatever the catalogue
    /// of this API holds.
    async fn check_names(&self, id: &ScenarioId, key: &CommandId, settings: &Settings) -> Result<(), Problem> {
        let names = || {
            let model = self.services.catalog.model(&settings.model)?;
            model.classes(&settings.analysis.classes)?;
            Ok(())
        };
        match names() {
            Err(_) if self.services.commands.is_used(id, key).await => Ok(()),
            other => other,
        }
    }

    /// The scenario as its creation left it.
    async fn as_created(&self, id: &ScenarioId, seq: u64) -> Result<Scenario, Problem> {
        let events = self.services.model.events(id, seq, 1).await?;
        let created = events.iter().find(|event| event.seq == seq).and_then(|event| {
            let data = event.parse().ok()?;
            let state = State::default().evolve(event.seq, event.time, &event.cause, &data);
            Scenario::new(id, &state, seq, None)
        });
        created.ok_or_else(rebuilt)
    }

    /// The scenario as an event left it.
    async fn as_configured(&self, id: &ScenarioId, seq: u64) -> Result<Scenario, Problem> {
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

fn accepted(key: &CommandId, seq: Option<u64>) -> Body<Accepted> {
    Body(Accepted { id: key.to_string(), accepted_at_seq: seq })
}

fn key_or_new(key: Option<KeyParam>) -> CommandId {
    key.map_or_else(CommandId::generate, |KeyParam(key)| key)
}

/// A short id for a scenario without one. It follows from the key, so that a repeat does not create another scenario.
fn id_from(key: &CommandId) -> Result<ScenarioId, Problem> {
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
