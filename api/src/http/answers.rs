//! What `/v1/scenarios` answers by status, and the problems that each of its routes documents.

use poem_openapi::{ApiResponse, Enum, Object};
use serde::{Deserialize, Serialize};

use crate::{
    body::{Body, Scenario},
    problem::{ProblemName, Problems},
};

/// What is asked of a scenario.
#[derive(Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(rename = "Command")]
pub(super) struct CommandBody {
    pub(super) command: CommandName,
}

#[derive(Debug, Clone, Copy, Deserialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub(super) enum CommandName {
    Start,
    Stop,
}

/// A command that was stored.
#[derive(Debug, Serialize, Object)]
pub(super) struct Accepted {
    /// The command's id: the `Idempotency-Key` that was given, or the one made for it.
    pub(super) id: String,
    /// The sequence of the event that answers it, to read by (`at_least`); null: no answer came in 2 s, it may come
    /// later.
    pub(super) accepted_at_seq: Option<u64>,
}

#[derive(ApiResponse)]
pub(super) enum CommandAnswer {
    /// The command was accepted, or stored and not answered yet (`accepted_at_seq` is null).
    #[oai(status = 202)]
    Accepted(Body<Accepted>),
}

#[derive(ApiResponse)]
#[expect(clippy::large_enum_variant, reason = "made once a request, and written at once")]
pub(super) enum CreateAnswer {
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
pub(super) enum ConfigureAnswer {
    /// The scenario as the new settings left it.
    #[oai(status = 200)]
    Configured(Body<Scenario>),
    /// The command was stored, but no answer came in 2 s.
    #[oai(status = 202)]
    Accepted(Body<Accepted>),
}

#[derive(ApiResponse)]
pub(super) enum DeleteAnswer {
    /// It is deleted; its log stays.
    #[oai(status = 204)]
    Deleted,
    /// The command was stored, but no answer came in 2 s.
    #[oai(status = 202)]
    Accepted(Body<Accepted>),
}

pub(super) struct ReadProblems;
pub(super) struct ListProblems;

impl Problems for ReadProblems {
    const NAMES: &'static [ProblemName] = &[
        ProblemName::BadRequest,
        ProblemName::NotFound,
        ProblemName::NotYet,
        ProblemName::Behind,
        ProblemName::Unavailable,
    ];
}

impl Problems for ListProblems {
    const NAMES: &'static [ProblemName] =
        &[ProblemName::BadRequest, ProblemName::NotYet, ProblemName::Behind, ProblemName::Unavailable];
}

pub(super) struct VideoProblems;
pub(super) struct RecordingProblems;

impl Problems for RecordingProblems {
    const NAMES: &'static [ProblemName] = &[ProblemName::BadRequest, ProblemName::NotFound, ProblemName::Unavailable];
}

impl Problems for VideoProblems {
    const NAMES: &'static [ProblemName] =
        &[ProblemName::BadRequest, ProblemName::NotFound, ProblemName::NotRunning, ProblemName::Unavailable];
}

pub(super) struct DiscoverProblems;

impl Problems for DiscoverProblems {
    const NAMES: &'static [ProblemName] = &[ProblemName::BadRequest, ProblemName::Unavailable];
}

pub(super) struct CreateProblems;
pub(super) struct ConfigureProblems;
pub(super) struct CommandProblems;
pub(super) struct DeleteProblems;

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
