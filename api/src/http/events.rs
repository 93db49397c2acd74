//! `/v1/scenarios/{id}/events`: the log of one scenario.

use std::sync::Arc;

use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};

use super::{
    Part, Services,
    answers::ReadProblems,
    params::{IdParam, default_limit, from_the_first},
    scenarios::nothing_happened,
};
use crate::{
    body::{Body, EventBody, Events},
    problem::Failure,
};

pub(super) struct EventsApi {
    pub(super) services: Arc<Services>,
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
        /// Wait until the answer has seen this sequence.
        at_least: Query<Option<u64>>,
    ) -> Result<Body<Events>, Failure<ReadProblems>> {
        let (Path(IdParam(id)), Query(limit)) = (id, limit);
        let model = &self.services.model;
        self.services.reach(at_least.0).await?;
        // Asked for before: what is read then is of this sequence or a later one.
        let seq = model.scenario(&id).await?.seq;
        // One more than asked for tells where to go on.
        let mut events = model.events(&id, from.0, limit + 1).await?;
        if events.is_empty() && model.events(&id, 0, 1).await?.is_empty() {
            return Err(nothing_happened().into());
        }
        let more = events.len() > limit as usize;
        let next = if more { events.pop().map(|event| event.seq) } else { None };
        Ok(Body(Events { events: events.into_iter().map(EventBody::from).collect(), next, seq }))
    }
}
