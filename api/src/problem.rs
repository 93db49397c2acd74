//! Every way a request can fail: one list of names, one shape (RFC 9457), one place that maps other errors to them.
//!
//! A name is part of the API: programs go by it, and it does not change. The detail is for people, says what to do, and
//! never repeats more than a few characters of what was sent.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use kadr_shared::{catalog::UnknownName, domain::Refusal, telemetry::chain};
use poem::{
    IntoResponse, Response,
    error::{MethodNotAllowedError, NotFoundError, ReadBodyError, ResponseError},
    http::{StatusCode, header},
};
use poem_openapi::{
    ApiResponse, Object,
    error::{ContentTypeError, ParseParamError, ParsePathError},
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::Type,
};
use serde::Serialize;
use tracing::error;

use crate::{read_model::ReadError, time_travel::PastError};

/// The stable names; a problem's `type` is `urn:kadr:problem:` and the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemName {
    /// A part of the address, a query parameter or a header is not as it has to be.
    BadRequest,
    /// The body is no JSON.
    MalformedJson,
    /// The body is JSON with unknown fields or values that can't be.
    InvalidBody,
    UnknownModel,
    UnknownClass,
    UnsupportedMediaType,
    BodyTooLarge,
    /// There is nothing at this address.
    NoSuchRoute,
    MethodNotAllowed,
    /// There is no such scenario.
    NotFound,
    AlreadyExists,
    AlreadyRunning,
    NotRunning,
    ShuttingDown,
    StillRunning,
    /// The scenario's source takes no images.
    WrongSource,
    /// The key has been used for another command.
    IdempotencyConflict,
    /// The sequence or time that was asked for is not there yet.
    NotYet,
    /// The tables have not come to the sequence that was asked for.
    Behind,
    /// NATS answers, but will not store: its disk or its quota is full.
    NotStored,
    /// Something that kadr needs does not answer now.
    Unavailable,
    TimedOut,
    Internal,
}

impl ProblemName {
    pub const ALL: [Self; 23] = [
        Self::BadRequest,
        Self::MalformedJson,
        Self::InvalidBody,
        Self::UnknownModel,
        Self::UnknownClass,
        Self::UnsupportedMediaType,
        Self::BodyTooLarge,
        Self::NoSuchRoute,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::AlreadyExists,
        Self::AlreadyRunning,
        Self::NotRunning,
        Self::ShuttingDown,
        Self::StillRunning,
        Self::WrongSource,
        Self::IdempotencyConflict,
        Self::NotYet,
        Self::Behind,
        Self::NotStored,
        Self::Unavailable,
        Self::TimedOut,
        Self::Internal,
    ];

    /// Name, status and title.
    const fn facts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::BadRequest => ("bad_request", 400, "The request is not well-formed"),
            Self::MalformedJson => ("malformed_json", 400, "The body is no JSON"),
            Self::InvalidBody => ("invalid_body", 422, "The body is not as it has to be"),
            Self::UnknownModel => ("unknown_model", 422, "There is no such model"),
            Self::UnknownClass => ("unknown_class", 422, "The model has no such class"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", 415, "The body is of another kind than this address takes")
            }
            Self::BodyTooLarge => ("body_too_large", 413, "The body is too large"),
            Self::NoSuchRoute => ("no_such_route", 404, "There is nothing at this address"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "This address does not take this method"),
            Self::NotFound => ("not_found", 404, "There is no such scenario"),
            Self::AlreadyExists => ("already_exists", 409, "The scenario exists already"),
            Self::AlreadyRunning => ("already_running", 409, "The scenario runs already"),
            Self::NotRunning => ("not_running", 409, "The scenario does not run"),
            Self::ShuttingDown => ("shutting_down", 409, "The scenario is shutting down"),
            Self::StillRunning => ("still_running", 409, "The scenario still runs"),
            Self::WrongSource => ("wrong_source", 409, "The scenario's source takes no images"),
            Self::IdempotencyConflict => ("idempotency_conflict", 409, "The key was used for another command"),
            Self::NotYet => ("not_yet", 400, "That has not happened yet"),
            Self::Behind => ("behind", 503, "The tables have not come that far"),
            Self::NotStored => ("not_stored", 503, "NATS does not store any more"),
            Self::Unavailable => ("unavailable", 503, "A part of kadr does not answer"),
            Self::TimedOut => ("timed_out", 503, "The answer took too long"),
            Self::Internal => ("internal", 500, "An error within kadr"),
        }
    }

    pub const fn as_str(self) -> &'static str {
        self.facts().0
    }

    pub const fn status(self) -> u16 {
        self.facts().1
    }

    /// The `type` of such a problem.
    pub fn urn(self) -> String {
        format!("urn:kadr:problem:{self}")
    }
}

impl fmt::Display for ProblemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of every error (`application/problem+json`).
#[derive(Debug, Serialize, Object)]
#[oai(rename = "Problem")]
struct ProblemBody {
    /// A stable name to go by, such as `urn:kadr:problem:not_found`.
    #[serde(rename = "type")]
    #[oai(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    /// What is so in this case, and what to do.
    detail: String,
}

/// An error as it goes out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {detail}")]
pub(crate) struct Problem {
    pub(crate) name: ProblemName,
    pub(crate) detail: String,
}

pub(crate) const MEDIA_TYPE: &str = "application/problem+json";
/// The longest detail: lists of labels fit, what a caller sent does not blow it up.
const LONGEST_DETAIL: usize = 2000;

impl Problem {
    /// For what asks for a scenario that has to exist.
    pub(crate) fn no_such_scenario() -> Self {
        Self::new(ProblemName::NotFound, "there is no scenario of this id: see /v1/scenarios for those that exist")
    }

    pub(crate) fn new(name: ProblemName, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(LONGEST_DETAIL) {
            detail.truncate(end);
            detail.push('…');
        }
        Self { name, detail }
    }

    /// For errors that are ours: what is told is that it failed, what is logged is why.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        error!(error = %chain(error), "a request failed");
        Self::new(ProblemName::Internal, "kadr's log says more; trying again may help")
    }

    /// Whatever poem made of a request that never came to its handler.
    pub(crate) fn from_poem(error: poem::Error) -> Self {
        use ProblemName as Name;
        if let Some(problem) = error.downcast_ref::<Self>() {
            problem.clone()
        } else if error.is::<NotFoundError>() {
            Self::new(Name::NoSuchRoute, "see /docs for the addresses that there are")
        } else if error.is::<MethodNotAllowedError>() {
            Self::new(Name::MethodNotAllowed, "see /docs for the methods that this address takes")
        } else if let Some(e) = error.downcast_ref::<ParsePathError>() {
            Self::new(Name::BadRequest, essence(&e.reason))
        } else if let Some(e) = error.downcast_ref::<ParseParamError>() {
            Self::new(Name::BadRequest, format!("{}: {}", e.name, essence(&e.reason)))
        } else if error.is::<ContentTypeError>() {
            Self::new(
                Name::UnsupportedMediaType,
                "send the header Content-Type: application/json, and with an image image/jpeg or image/png",
            )
        } else if let Some(e) = error.downcast_ref::<ReadBodyError>() {
            match e {
                ReadBodyError::PayloadTooLarge => Self::new(Name::BodyTooLarge, "a body has at most 1 MiB"),
                _ => Self::new(Name::BadRequest, "the body did not arrive in full"),
            }
        } else if error.status().is_client_error() {
            Self::new(Name::BadRequest, "see /docs for what this address takes")
        } else {
            Self::internal(&error)
        }
    }
}

/// What poem says of a parameter, without the names of its types around it, and short.
fn essence(reason: &str) -> String {
    let inner = reason.strip_prefix("failed to parse \"").and_then(|rest| rest.split_once("\": "));
    let text = inner.map_or(reason, |(_, text)| text);
    let text = text.split_once(" (occurred while parsing").map_or(text, |(text, _)| text);
    text.chars().take(200).collect()
}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.name.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn as_response(&self) -> Response {
        self.clone().into_response()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (_, status, title) = self.name.facts();
        let body = ProblemBody { kind: self.name.urn(), title: title.to_owned(), status, detail: self.detail.clone() };
        // Strings and a number are always written.
        let json = serde_json::to_vec(&body).unwrap_or_default();
        Response::builder().status(ResponseError::status(&self)).header(header::CONTENT_TYPE, MEDIA_TYPE).body(json)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let name = match refusal {
            Refusal::NotFound => ProblemName::NotFound,
            Refusal::AlreadyExists => ProblemName::AlreadyExists,
            Refusal::AlreadyRunning => ProblemName::AlreadyRunning,
            Refusal::NotRunning => ProblemName::NotRunning,
            Refusal::ShuttingDown => ProblemName::ShuttingDown,
            Refusal::StillRunning => ProblemName::StillRunning,
        };
        Self::new(name, refusal.explanation())
    }
}

impl From<UnknownName> for Problem {
    fn from(error: UnknownName) -> Self {
        let name = match &error {
            UnknownName::Model { .. } => ProblemName::UnknownModel,
            UnknownName::Class { .. } => ProblemName::UnknownClass,
        };
        Self::new(name, error.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        error!(error = %chain(&error), "the read model can't be read");
        Self::new(ProblemName::Unavailable, "the API's tables can't be read now: try again; kadr's log says why")
    }
}

impl From<PastError> for Problem {
    fn from(error: PastError) -> Self {
        match error {
            PastError::Read(error) => error.into(),
            // The tables hold it: a newer kadr wrote them.
            PastError::Event(error) => {
                error!(error = %chain(&error), "the past can't be told");
                Self::new(ProblemName::Unavailable, error.to_string())
            }
        }
    }
}

/// The problems that a route documents.
pub(crate) trait Problems: Send + Sync + 'static {
    const NAMES: &'static [ProblemName];
}

/// A problem of a route, which the OpenAPI document lists.
pub(crate) struct Failure<P>(Problem, PhantomData<P>);

impl<P, E: Into<Problem>> From<E> for Failure<P> {
    fn from(error: E) -> Self {
        Self(error.into(), PhantomData)
    }
}

impl<P> From<Failure<P>> for poem::Error {
    fn from(failure: Failure<P>) -> Self {
        failure.0.into()
    }
}

impl<P: Problems> ApiResponse for Failure<P> {
    fn meta() -> MetaResponses {
        let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        // Any route can meet these.
        for name in P::NAMES.iter().chain(&[ProblemName::TimedOut, ProblemName::Internal]) {
            by_status.entry(name.status()).or_default().push(name.as_str());
        }
        let responses = by_status.into_iter().map(|(status, names)| MetaResponse {
            // The registry wants descriptions that live for ever; it is built once in a process.
            description: Box::leak(format!("`type` is `urn:kadr:problem:` and one of: {}", names.join(", ")).into()),
            status: Some(status),
            status_range: None,
            content: vec![MetaMediaType { content_type: MEDIA_TYPE, schema: ProblemBody::schema_ref() }],
            headers: Vec::new(),
        });
        MetaResponses { responses: responses.collect() }
    }

    fn register(registry: &mut Registry) {
        ProblemBody::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_told_apart() {
        let names: HashSet<_> = ProblemName::ALL.iter().map(|n| n.as_str()).collect();
        assert_eq!(names.len(), ProblemName::ALL.len());
        assert!(names.iter().all(|n| n.chars().all(|c| c.is_ascii_lowercase() || c == '_')), "{names:?}");
        assert!(ProblemName::ALL.iter().all(|n| (400..600).contains(&n.status())));
    }

    #[tokio::test]
    async fn a_problem_is_problem_json() {
        let response = Problem::from(Refusal::AlreadyRunning).into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.content_type(), Some(MEDIA_TYPE));
        let body: serde_json::Value = response.into_body().into_json().await.unwrap();
        assert_eq!(
            body,
            serde_json::json!({"type": "urn:kadr:problem:already_running", "title": "The scenario runs already",
                "status": 409, "detail": Refusal::AlreadyRunning.explanation()})
        );
    }

    #[test]
    fn poems_type_names_are_left_out() {
        let wrapped = "failed to parse \"string_id\": too long (occurred while parsing \"optional_string_id\")";
        assert_eq!(essence(wrapped), "too long");
        assert_eq!(essence("verification failed. maximum(1000)"), "verification failed. maximum(1000)");
    }

    #[test]
    fn a_detail_has_an_end() {
        let problem = Problem::new(ProblemName::InvalidBody, "ю".repeat(100_000));
        assert_eq!(problem.detail.chars().count(), LONGEST_DETAIL + 1);
    }
}
