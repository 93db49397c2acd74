//! `/v1/scenarios`: the routes. Those of one address stand together: the document wants it so. What they answer with is
//! in [`answers`](super::answers), what stands behind a change in [`changes`](super::changes).

use std::sync::Arc;

use kadr_shared::{
    domain::{Command, State},
    id::ScenarioId,
    moment::Moment,
    time::Timestamp,
};
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
};

use super::{
    Part, Services,
    answers::{
        CommandAnswer, CommandBody, CommandName, CommandProblems, ConfigureAnswer, ConfigureProblems, CreateAnswer,
        CreateProblems, DeleteAnswer, DeleteProblems, ListProblems, ReadProblems,
    },
    changes::{accepted, id_from, key_or_new},
    params::{At, AtParam, IdParam, KeyParam, default_limit, from_the_first},
};
use crate::{
    body::{Body, Given, HistoryBody, Scenario, Scenarios, SettingsBody, Strict},
    freshness,
    problem::{Failure, Problem, ProblemName},
    time_travel::{self, AsOf, History, Past},
};

pub(super) struct ScenariosApi {
    pub(super) services: Arc<Services>,
}

#[OpenApi(prefix_path = "/v1/scenarios", tag = "Part::Scenarios")]
impl ScenariosApi {
    /// The scenarios, in the order of their ids
    #[oai(path = "/", method = "get", operation_id = "list_scenarios")]
    async fn list(
        &self,
        /// The most scenarios.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u32>,
        /// The id after which the page begins: the last page's `next`.
        after: Query<Option<IdParam>>,
        /// Wait until the answer has seen this sequence.
        at_least: Query<Option<u64>>,
    ) -> Result<Body<Scenarios>, Failure<ListProblems>> {
        let after = after.0.map(|IdParam(id)| id);
        self.services.reach(at_least.0).await?;
        // One more than asked for tells whether there is a next page.
        let mut page = self.services.model.scenarios(after.as_ref(), limit.0 + 1).await?;
        let more = page.found.len() > limit.0 as usize;
        page.found.truncate(limit.0 as usize);
        let next = if more { page.found.last().map(|(id, _)| id.to_string()) } else { None };
        let scenarios = page.found.iter().filter_map(|(id, state)| self.show(id, state, page.seq)).collect();
        Ok(Body(Scenarios { scenarios, next, seq: page.seq }))
    }

    /// A scenario, its state and how it fares
    ///
    /// With `at` as it was then: what its log said, without the numbers that only live runs have.
    #[oai(path = "/:id", method = "get", operation_id = "get_scenario")]
    async fn get(
        &self,
        id: Path<IdParam>,
        /// Wait until the answer has seen this sequence.
        at_least: Query<Option<u64>>,
        /// A sequence of the log, or a time (RFC 3339): the state after the last event up to then, by the server's
        /// stamps.
        at: Query<Option<AtParam>>,
    ) -> Result<Body<Scenario>, Failure<ReadProblems>> {
        let IdParam(id) = id.0;
        self.services.reach(at_least.0).await?;
        if let Some(AtParam(At(at))) = at.0 {
            return Ok(Body(self.as_it_was(&id, at).await?));
        }
        let read = self.services.model.scenario(&id).await?;
        match read.found.and_then(|state| self.show(&id, &state, read.seq)) {
            Some(scenario) => Ok(Body(scenario)),
            None => Err(Problem::no_such_scenario().into()),
        }
    }

    /// The changes of its state, with what caused them and how long each state lasted
    ///
    /// Ascending. The last page tells the state that holds. A deleted scenario's history stays.
    #[oai(path = "/:id/history", method = "get", operation_id = "get_history")]
    async fn history(
        &self,
        id: Path<IdParam>,
        /// The first sequence.
        #[oai(default = "from_the_first")]
        from: Query<u64>,
        /// The most transitions.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u32>,
        /// Wait until the answer has seen this sequence.
        at_least: Query<Option<u64>>,
    ) -> Result<Body<HistoryBody>, Failure<ReadProblems>> {
        let IdParam(id) = id.0;
        self.services.reach(at_least.0).await?;
        // Asked for before: what is read then is of this sequence or a later one.
        let seq = self.services.model.scenario(&id).await?.seq;
        let mut history = History::new(from.0, limit.0 as usize);
        time_travel::read(&self.services.model, &id, |event| history.take(event)).await?;
        let (transitions, next, present) = history.end().ok_or_else(nothing_happened)?;
        Ok(Body(HistoryBody::new(transitions, next, present, Timestamp::now(), seq)))
    }

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
        body: Strict<Given, SettingsBody>,
    ) -> Result<CreateAnswer, Failure<CreateProblems>> {
        let Strict(given, _) = body;
        let key = key_or_new(key.0);
        let id = match id.0 {
            Some(IdParam(id)) => id,
            None => id_from(&key)?,
        };
        self.check_names(&id, &key, &given.settings).await?;
        let settings = self.keep_secrets(&id, &key, given).await?;
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
    /// All of them: what is left out gets its default, not what it was; a camera's password and a webhook's secret have to
    /// be given again. Repeating a request with its `Idempotency-Key` gives the first one's answer.
    #[oai(path = "/:id", method = "put", operation_id = "configure_scenario")]
    async fn configure(
        &self,
        id: Path<IdParam>,
        /// Makes repeating safe, for 24 hours: see above.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<KeyParam>>,
        body: Strict<Given, SettingsBody>,
    ) -> Result<ConfigureAnswer, Failure<ConfigureProblems>> {
        let (IdParam(id), Strict(given, _)) = (id.0, body);
        let key = key_or_new(key.0);
        self.check_names(&id, &key, &given.settings).await?;
        let settings = self.keep_secrets(&id, &key, given).await?;
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

impl ScenariosApi {
    fn show(&self, id: &ScenarioId, state: &State, seq: u64) -> Option<Scenario> {
        Scenario::new(id, state, seq, self.services.live.progress(id, state).as_ref())
    }

    async fn as_it_was(&self, id: &ScenarioId, at: Moment) -> Result<Scenario, Problem> {
        let Services { nats, position, model, .. } = &*self.services;
        // All that happened up to then has to be in the tables: the past does not change between two looks.
        match at {
            Moment::Seq(seq) => freshness::reach(nats, position, seq).await?,
            Moment::Time(time) => freshness::reach_time(nats, position, time).await?,
        }
        let mut past = AsOf::new(at);
        time_travel::read(model, id, |event| past.take(event)).await?;
        let detail = match past.end() {
            Past::Was(state) => match Scenario::new(id, &state, state.seq, None) {
                Some(scenario) => return Ok(scenario),
                None => "it did not exist then".to_owned(),
            },
            Past::Deleted { seq, time } => {
                format!("it did not exist then: it had been deleted (event {seq}, {time})")
            }
            Past::NotYet => {
                "it did not exist then: it had not been created yet; see its history for when it was".to_owned()
            }
            Past::Never => return Err(nothing_happened()),
        };
        Err(Problem::new(ProblemName::NotFound, detail))
    }
}

/// For what asks for a log, which a deleted scenario has, too.
pub(super) fn nothing_happened() -> Problem {
    let detail = "nothing has ever happened to a scenario of this id: see /v1/scenarios for those that exist";
    Problem::new(ProblemName::NotFound, detail)
}
