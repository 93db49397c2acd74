//! `/v1/scenarios`: creating, showing, commanding and deleting.

use std::{fmt::Write, sync::Arc};

use kadr_shared::{
    domain::{Command, State},
    id::{CommandId, ScenarioId},
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
    params::{IdParam, KeyParam, default_limit},
};
use crate::{
    body::{Body, Scenario, Scenarios, SettingsBody, Strict},
    problem::{Failure, Problem, ProblemName, Problems},
};

pub(super) struct ScenariosApi {
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
    /// The sequence of the event that answers it; null: no answer came in 2 s, it may come later.
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
enum DeleteAnswer {
    /// It is deleted; its log stays.
    #[oai(status = 204)]
    Deleted,
    /// The command was stored, but no answer came in 2 s.
    #[oai(status = 202)]
    Accepted(Body<Accepted>),
}

struct ReadProblems;
struct ListProblems;
struct CreateProblems;
struct CommandProblems;
struct DeleteProblems;

impl Problems for ReadProblems {
    const NAMES: &'static [ProblemName] = &[ProblemName::BadRequest, ProblemName::NotFound, ProblemName::Unavailable];
}

impl Problems for ListProblems {
    const NAMES: &'static [ProblemName] = &[ProblemName::BadRequest, ProblemName::Unavailable];
}

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
        ProblemName::Unavailable,
    ];
}

impl Problems for DeleteProblems {
    const NAMES: &'static [ProblemName] = &[
        ProblemName::BadRequest,
        ProblemName::NotFound,
        ProblemName::StillRunning,
        ProblemName::IdempotencyConflict,
        ProblemName::Unavailable,
    ];
}

#[OpenApi(prefix_path = "/v1/scenarios", tag = "Part::Scenarios")]
impl ScenariosApi {
    /// Create a scenario
    ///
    /// Only `source` has to be given. Repeating a request with its `Idempotency-Key` gives the first one's answer.
    #[oai(path = "/", method = "post", operation_id = "create_scenario")]
    async fn create(
        &self,
        /// The scenario's id; one is made up if it is missing. Ids stay in the log and must not be personal data.
        id: Query<Option<IdParam>>,
        /// Makes repeating safe.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<KeyParam>>,
        body: Strict<Settings, SettingsBody>,
    ) -> Result<CreateAnswer, Failure<CreateProblems>> {
        let Strict(settings, _) = body;
        self.check_names(&settings)?;
        let key = key_or_new(key.0);
        let id = match id.0 {
            Some(IdParam(id)) => id,
            None => id_from(&key)?,
        };
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

    /// The scenarios, in the order of their ids
    #[oai(path = "/", method = "get", operation_id = "list_scenarios")]
    async fn list(
        &self,
        /// The most scenarios.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u32>,
        /// The id after which the page begins: the last page's `next`.
        after: Query<Option<IdParam>>,
    ) -> Result<Body<Scenarios>, Failure<ListProblems>> {
        let after = after.0.map(|IdParam(id)| id);
        // One more than asked for tells whether there is a next page.
        let mut page = self.services.model.scenarios(after.as_ref(), limit.0 + 1).await?;
        let more = page.found.len() > limit.0 as usize;
        page.found.truncate(limit.0 as usize);
        let next = if more { page.found.last().map(|(id, _)| id.to_string()) } else { None };
        let scenarios = page.found.iter().filter_map(|(id, state)| self.show(id, state, page.seq)).collect();
        Ok(Body(Scenarios { scenarios, next }))
    }

    /// A scenario, its state and how it fares
    #[oai(path = "/:id", method = "get", operation_id = "get_scenario")]
    async fn get(&self, id: Path<IdParam>) -> Result<Body<Scenario>, Failure<ReadProblems>> {
        let IdParam(id) = id.0;
        let read = self.services.model.scenario(&id).await?;
        match read.found.and_then(|state| self.show(&id, &state, read.seq)) {
            Some(scenario) => Ok(Body(scenario)),
            None => Err(Problem::new(
                ProblemName::NotFound,
                "there is no scenario of this id: see /v1/scenarios for those that exist",
            )
            .into()),
        }
    }

    /// Delete a scenario that does not run
    ///
    /// Its log stays; creating the id again goes on in it.
    #[oai(path = "/:id", method = "delete", operation_id = "delete_scenario")]
    async fn delete(
        &self,
        id: Path<IdParam>,
        /// Makes repeating safe.
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
        /// Makes repeating safe.
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

impl ScenariosApi {
    fn check_names(&self, settings: &Settings) -> Result<(), Problem> {
        let model = self.services.catalog.model(&settings.model)?;
        model.classes(&settings.analysis.classes)?;
        Ok(())
    }

    fn show(&self, id: &ScenarioId, state: &State, seq: u64) -> Option<Scenario> {
        Scenario::new(id, state, seq, self.services.live.progress(id, state).as_ref())
    }

    /// The scenario as its creation left it: the answer to a repeat is the same, whatever has happened since.
    async fn as_created(&self, id: &ScenarioId, seq: u64) -> Result<Scenario, Problem> {
        let events = self.services.model.events(id, seq, 1).await?;
        let created = events.iter().find(|event| event.seq == seq).and_then(|event| {
            let data = event.parse().ok()?;
            let state = State::default().evolve(event.seq, event.time, &event.cause, &data);
            Scenario::new(id, &state, seq, None)
        });
        // The tables were thrown away in this very moment.
        created.ok_or_else(|| Problem::new(ProblemName::Unavailable, "the tables are being rebuilt: try again"))
    }
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
