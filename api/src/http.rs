//! HTTP: the routes, and what every request passes through.
//!
//! Handlers parse, ask the other modules, and shape answers; nothing else.

mod events;
mod health;
mod middleware;
mod params;
mod scenarios;

use std::sync::Arc;

use kadr_shared::{catalog::Catalog, nats::Nats};
use poem::{Endpoint, IntoEndpoint, IntoResponse, Route, get, handler, web::Redirect};
use poem_openapi::{OpenApiService, Tags};
use tokio::sync::watch;

use self::{events::EventsApi, health::HealthApi, scenarios::ScenariosApi};
use crate::{commands::Commands, live::Live, projection::Position, read_model::ReadModel};

/// What handlers answer with.
pub(crate) struct Services {
    pub(crate) nats: Nats,
    pub(crate) model: ReadModel,
    pub(crate) commands: Commands,
    pub(crate) position: watch::Receiver<Position>,
    pub(crate) live: Live,
    pub(crate) catalog: Catalog,
}

/// The parts of the document.
#[derive(Tags)]
enum Part {
    /// Sources with the model and settings to analyse them by.
    Scenarios,
    /// The log: everything that ever happened to a scenario.
    Events,
    /// For whoever watches over the service.
    Health,
}

const DESCRIPTION: &str = "Watches video and tells what it sees. \
    Every error is a problem+json (RFC 9457) whose `type` is a stable name to go by.";

/// All routes, with everything around them.
pub(crate) fn endpoint(services: Services) -> impl Endpoint {
    let services = Arc::new(services);
    let api = (
        ScenariosApi { services: Arc::clone(&services) },
        EventsApi { services: Arc::clone(&services) },
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
