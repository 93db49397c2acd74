//! `/v1/scenarios/{id}/events`: the log of one scenario.

use std::sync::Arc;

use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};

use super::{
    Part, Services,
    params::{IdParam, default_limit},
};
use crate::{
    body::{Body, EventBody, Events},
    problem::{Failure, Problem, ProblemName, Problems},
};

pub(super) struct EventsApi {
    pub(super) services: Arc<Services>,
}

pub(super) struct EventsProblems;

impl Problems for EventsProblems {
    const NAMES: &'static [ProblemName] = &[ProblemName::BadRequest, ProblemName::NotFound, ProblemName::Unavailable];
}

const fn from_the_first() -> u64 {
    1
}

#[OpenApi(tag = "Part::Events")]
impl EventsApi {
    /// The scenario's events from a sequence on
    ///
    /// Ascending. A deleted scenario's log stays.
    #[oai(path = "/v1/scenarios/:id/events", method = "get", operation_id = "list_events")]
    async fn list(
        &self,
        id: Path<IdParam>,
        /// The first sequence.
        #[oai(default = "from_the_first")]
        from: Query<u64>,
        /// The most events.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u32>,
    ) -> Result<Body<Events>, Failure<EventsProblems>> {
        let (Path(IdParam(id)), Query(limit)) = (id, limit);
        let model = &self.services.model;
        // One more than asked for tells where to go on.
        let mut events = model.events(&id, from.0, limit + 1).await?;
        if events.is_empty() && model.events(&id, 0, 1).await?.is_empty() {
            let detail = "nothing has ever happened to a scenario of this id: see /v1/scenarios for those that exist";
            return Err(Problem::new(ProblemName::NotFound, detail).into());
        }
        let more = events.len() > limit as usize;
        let next = if more { events.pop().map(|event| event.seq) } else { None };
        Ok(Body(Events { events: events.into_iter().map(EventBody::from).collect(), next }))
    }
}
