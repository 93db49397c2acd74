//! What every request passes through: the access log, the time limit, panics and errors made problems.

use std::{any::Any, time::Duration};

use poem::{Endpoint, EndpointExt, IntoResponse, Request, Response, Result, middleware::CatchPanic};
use tokio::time::{Instant, timeout};
use tracing::{debug, error};

use crate::problem::{Problem, ProblemName};

/// The longest that a request may take: more than the deadlines within it together.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How much of a path is logged.
const LOGGED_PATH: usize = 200;

/// Puts everything around the routes. Whatever comes out is a response, and every error a problem.
pub(super) fn around(routes: impl Endpoint + 'static) -> impl Endpoint {
    routes
        .with(CatchPanic::new().with_handler(panicked))
        .around(in_time)
        .catch_all_error(|error| async move { Problem::from_poem(error).into_response() })
        .around(logged)
}

async fn in_time<E: Endpoint>(endpoint: std::sync::Arc<E>, request: Request) -> Result<Response> {
    match timeout(REQUEST_DEADLINE, endpoint.call(request)).await {
        Ok(result) => result.map(IntoResponse::into_response),
        Err(_) => Err(Problem::new(ProblemName::TimedOut, "try again; kadr may be under load").into()),
    }
}

async fn logged<E: Endpoint>(endpoint: std::sync::Arc<E>, request: Request) -> Result<Response> {
    // The query is left out: it is the caller's, and may hold what should not be written down.
    let (method, path) = (request.method().clone(), request.uri().path().chars().take(LOGGED_PATH).collect::<String>());
    let begun = Instant::now();
    let response = endpoint.call(request).await.map(IntoResponse::into_response);
    let status = response.as_ref().map_or_else(|e| e.status(), Response::status);
    debug!(%method, path, status = status.as_u16(), took = ?begun.elapsed(), "answered");
    response
}

fn panicked(panic: Box<dyn Any + Send>) -> Problem {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    error!(panic = message.unwrap_or("without a message"), "a request's handler panicked");
    Problem::new(ProblemName::Internal, "this is an error in kadr, which its log has: please report it")
}

#[cfg(test)]
mod tests {
    use poem::{
        Route, get, handler,
        http::{Method, StatusCode},
    };

    use super::*;
    use crate::problem::MEDIA_TYPE;

    #[handler]
    fn panics() -> &'static str {
        panic!("on purpose")
    }

    #[handler]
    async fn hangs() -> &'static str {
        std::future::pending().await
    }

    async fn ask(method: Method, path: &str) -> (StatusCode, String) {
        let routes = Route::new().at("/panics", get(panics)).at("/hangs", get(hangs));
        let request = Request::builder().method(method).uri(path.parse().unwrap()).finish();
        let response = around(routes).get_response(request).await;
        assert_eq!(response.content_type(), Some(MEDIA_TYPE), "{path}");
        let status = response.status();
        let body: serde_json::Value = response.into_body().into_json().await.unwrap();
        assert_eq!(body["status"], status.as_u16());
        (status, body["type"].as_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn a_panic_is_a_problem() {
        let (status, kind) = ask(Method::GET, "/panics").await;
        assert_eq!((status, kind.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "urn:kadr:problem:internal"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_ends_in_time() {
        let (status, kind) = ask(Method::GET, "/hangs").await;
        assert_eq!((status, kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "urn:kadr:problem:timed_out"));
    }

    #[tokio::test]
    async fn poems_own_errors_are_problems() {
        let (status, kind) = ask(Method::GET, "/nowhere").await;
        assert_eq!((status, kind.as_str()), (StatusCode::NOT_FOUND, "urn:kadr:problem:no_such_route"));
        let (status, kind) = ask(Method::PUT, "/panics").await;
        assert_eq!((status, kind.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "urn:kadr:problem:method_not_allowed"));
    }
}
