//! HTTP: the routes, and what every request passes through.
//!
//! Handlers parse, ask the other modules, and shape answers; nothing else.

mod answers;
mod changes;
mod detections;
mod discover;
mod events;
mod frames;
mod health;
mod middleware;
mod params;
mod pump;
mod recordings;
mod scenarios;
mod video;

use std::sync::Arc;

use kadr_shared::{catalog::Catalog, id::ScenarioId, nats::Nats, secret::SecretKey};
use poem::{Endpoint, IntoEndpoint, IntoResponse, Route, get, handler, web::Redirect};
use poem_openapi::{OpenApiService, Tags};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::{
    detections::DetectionsApi, discover::DiscoverApi, events::EventsApi, frames::FramesApi, health::HealthApi,
    recordings::RecordingsApi, scenarios::ScenariosApi, video::VideoApi,
};
use crate::{
    commands::Commands, freshness, live::Live, problem::Problem, projection::Position, read_model::ReadModel,
    video::Hub,
};

/// What handlers answer with.
pub(crate) struct Services {
    pub(crate) nats: Nats,
    pub(crate) model: ReadModel,
    pub(crate) commands: Commands,
    pub(crate) position: watch::Receiver<Position>,
    pub(crate) live: Live,
    pub(crate) hub: Hub,
    pub(crate) catalog: Catalog,
    /// None: no passwords can be given.
    pub(crate) secret_key: Option<SecretKey>,
    /// Answers that have no end of their own end with it.
    pub(crate) closing: CancellationToken,
    /// Room for such answers.
    pub(crate) listeners: Arc<Semaphore>,
    /// Room for looking for cameras, which asks the whole network.
    pub(crate) searches: Semaphore,
}

/// The parts of the document.
#[derive(Tags)]
enum Part {
    /// Sources with the model and settings to analyse them by.
    Scenarios,
    /// What was found in a scenario's frames.
    Detections,
    /// Devices that a scenario may read.
    Cameras,
    /// The log: everything that ever happened to a scenario.
    Events,
    /// The video of scenarios that run, with every object marked.
    Video,
    /// For whoever watches over the service.
    Health,
}

const DESCRIPTION: &str = "Watches video and tells what it sees. \
    Every error is a problem+json (RFC 9457) whose `type` is a stable name to go by.\n\n\
    **Repeating a change.** A request with an `Idempotency-Key` may be sent again, to any instance of the API, for 24 \
    hours: it does nothing twice and gets the first one's answer (status and body, a refusal too; after a 202 without \
    a sequence, the answer that has come since). What is compared is the command with its settings as they were \
    understood, on the same scenario; the key with something else is `idempotency_conflict`. After 24 hours a key \
    counts as new. A request that was never a command (400, 413, 415, 422) leaves its key unused.\n\n\
    **Reading one's own write.** Answers say up to which sequence of the log they are (`seq`). A read with \
    `at_least=SEQ`, such as the `accepted_at_seq` of a command, waits for it up to 2 s; then it is `behind`, and a \
    sequence that the log does not have yet is `not_yet`.";

impl Services {
    /// Waits until the tables have come to the sequence that a caller wants to see, if it wants one.
    async fn reach(&self, at_least: Option<u64>) -> Result<(), Problem> {
        match at_least {
            Some(seq) => freshness::reach(&self.nats, &self.position, seq).await,
            None => Ok(()),
        }
    }

    /// Nothing, if the scenario is there.
    async fn exists(&self, id: &ScenarioId) -> Result<(), Problem> {
        let read = self.model.scenario(id).await?;
        if read.found.is_some_and(|state| state.exists()) { Ok(()) } else { Err(Problem::no_such_scenario()) }
    }
}

/// All routes, with everything around them.
pub(crate) fn endpoint(services: Services) -> impl Endpoint {
    let services = Arc::new(services);
    let api = (
        ScenariosApi { services: Arc::clone(&services) },
        DetectionsApi { services: Arc::clone(&services) },
        FramesApi::new(Arc::clone(&services)),
        DiscoverApi { services: Arc::clone(&services) },
        EventsApi { services: Arc::clone(&services) },
        VideoApi { services: Arc::clone(&services) },
        RecordingsApi { services: Arc::clone(&services) },
        HealthApi { services },
    );
    let api = OpenApiService::new(api, "kadr", env!("CARGO_PKG_VERSION")).description(DESCRIPTION);
    let (document, page) = (api.spec_endpoint(), api.swagger_ui());
    let api = Arc::new(api.into_endpoint());
    let routes = Route::new()
        .at("/", get(to_docs))
        .at("/openapi.json", document)
        .nest("/docs", page)
        .nest_no_strip("/v1", Arc::clone(&api))
        .nest_no_strip("/health", api);
    middleware::around(routes)
}

#[handler]
fn to_docs() -> impl IntoResponse {
    Redirect::see_other("/docs")
}
