//! `/v1/scenarios/{id}/frames`: images for a scenario whose source is `push:`, handed to the runner that has it.
//!
//! Nothing is kept here: an image is taken when the runner says so, and its result is stored as any other frame's.

use std::{sync::Arc, time::Duration};

use async_nats::{HeaderMap, Request, client::RequestErrorKind};
use kadr_shared::{
    domain::{Phase, State},
    id::ScenarioId,
    message::image::{CAPTURED_AT, ImageReply},
    settings::SourceUrl,
    subjects,
};
use poem::error::ReadBodyError;
use poem_openapi::{
    ApiRequest, ApiResponse, Object, OpenApi,
    param::{Header, Path},
    payload::Binary,
};
use serde::Serialize;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    Part, Services,
    params::{IdParam, TimeParam},
};
use crate::{
    body::Body,
    problem::{Failure, Problem, ProblemName, Problems},
};

/// Images that may be in hand at a time: each takes its bytes in memory.
const ROOM: usize = 16;
/// Of a message, for its subject and headers.
const OVERHEAD: usize = 4 << 10;
/// For an image to arrive; with the runner's answer it is less than what any request may take.
const BODY_DEADLINE: Duration = Duration::from_secs(6);
/// A runner decodes an image in much less.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

pub(super) struct FramesApi {
    services: Arc<Services>,
    room: Semaphore,
}

/// An image to analyse.
#[derive(ApiRequest)]
enum Image {
    #[oai(content_type = "image/jpeg")]
    Jpeg(Binary<poem::Body>),
    #[oai(content_type = "image/png")]
    Png(Binary<poem::Body>),
}

/// An image that was taken.
#[derive(Debug, Serialize, Object)]
struct Taken {
    /// The run's frame that it is: its result has this number. Frames that find no room in inference have none, and are
    /// counted (`health.dropped`).
    frame: u64,
}

#[derive(ApiResponse)]
enum FrameAnswer {
    /// The runner has decoded the image.
    #[oai(status = 202)]
    Taken(Body<Taken>),
}

struct FrameProblems;

impl Problems for FrameProblems {
    const NAMES: &'static [ProblemName] = &[
        ProblemName::BadRequest,
        ProblemName::NotFound,
        ProblemName::NotRunning,
        ProblemName::WrongSource,
        ProblemName::BodyTooLarge,
        ProblemName::UnsupportedMediaType,
        ProblemName::InvalidBody,
        ProblemName::Unavailable,
    ];
}

impl FramesApi {
    pub(super) fn new(services: Arc<Services>) -> Self {
        Self { services, room: Semaphore::new(ROOM) }
    }
}

#[OpenApi(prefix_path = "/v1/scenarios", tag = "Part::Scenarios")]
impl FramesApi {
    /// Send an image to a scenario that runs and whose source is `push:`
    ///
    /// A JPEG or a PNG of some 8 MB at most (as large as NATS takes messages). Images of one scenario may differ in size.
    #[oai(path = "/:id/frames", method = "post", operation_id = "send_frame")]
    async fn send(
        &self,
        id: Path<IdParam>,
        /// When it was taken (RFC 3339); without it the time counts when it comes.
        #[oai(name = "Kadr-Captured-At")]
        captured_at: Header<Option<TimeParam>>,
        image: Image,
    ) -> Result<FrameAnswer, Failure<FrameProblems>> {
        let IdParam(id) = id.0;
        let read = self.services.model.scenario(&id).await?;
        may_send(read.found.as_ref())?;
        let Ok(_room) = self.room.try_acquire() else {
            return Err(unavailable("more images come than can be handed on: send fewer, or try again").into());
        };
        let client = &self.services.nats.client;
        let most = client.server_info().max_payload.saturating_sub(OVERHEAD);
        let (body, begin, kind) = match image {
            Image::Jpeg(Binary(body)) => (body, &b"\xff\xd8\xff"[..], "JPEG"),
            Image::Png(Binary(body)) => (body, &b"\x89PNG\r\n\x1a\n"[..], "PNG"),
        };
        // Who sends slowly has a place that others want.
        let body = timeout(BODY_DEADLINE, body.into_bytes_limit(most)).await.map_err(|_| {
            let detail = format!("the image did not arrive within {} s", BODY_DEADLINE.as_secs());
            Problem::new(ProblemName::BadRequest, detail)
        })?;
        let body = body.map_err(|error| match error {
            ReadBodyError::PayloadTooLarge => {
                Problem::new(ProblemName::BodyTooLarge, format!("an image has at most {most} bytes"))
            }
            _ => Problem::new(ProblemName::BadRequest, "the image did not arrive in full"),
        })?;
        if !body.starts_with(begin) {
            let detail = format!("the body is no {kind}, as its Content-Type says");
            return Err(Problem::new(ProblemName::InvalidBody, detail).into());
        }
        let mut headers = HeaderMap::new();
        if let Some(TimeParam(time)) = captured_at.0 {
            headers.insert(CAPTURED_AT, time.to_string().as_str());
        }
        let request = Request::new().payload(body).headers(headers).timeout(Some(ANSWER_DEADLINE));
        Ok(FrameAnswer::Taken(Body(Taken { frame: self.hand_on(&id, request).await? })))
    }
}

impl FramesApi {
    async fn hand_on(&self, id: &ScenarioId, request: Request) -> Result<u64, Problem> {
        let nats = &self.services.nats;
        // What is sent while there is no connection would be kept for later.
        if !nats.is_connected() {
            return Err(unavailable("NATS does not answer: try again"));
        }
        let answer =
            nats.client.send_request(subjects::pushed(id), request).await.map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => unavailable("the scenario's runner does not listen yet: try again"),
                _ => unavailable("the scenario's runner does not answer: try again"),
            })?;
        match serde_json::from_slice(&answer.payload) {
            Ok(ImageReply::Taken { frame }) => Ok(frame),
            Ok(ImageReply::Unreadable { error }) => Err(Problem::new(ProblemName::InvalidBody, error)),
            Ok(ImageReply::Busy) => Err(unavailable("images come faster than they can be decoded: send fewer")),
            Err(error) => Err(Problem::internal(&error)),
        }
    }
}

fn unavailable(detail: &str) -> Problem {
    Problem::new(ProblemName::Unavailable, detail)
}

/// Whether a scenario in this state takes images.
fn may_send(state: Option<&State>) -> Result<(), Problem> {
    let Some(state) = state.filter(|state| state.exists()) else {
        return Err(Problem::no_such_scenario());
    };
    let settings = state.run.as_ref().map(|run| &*run.settings).or(state.settings.as_ref());
    if settings.is_none_or(|settings| settings.source.url != SourceUrl::Push) {
        let detail = "only a scenario whose source is push: takes images; this one's is something else";
        return Err(Problem::new(ProblemName::WrongSource, detail));
    }
    match state.phase {
        Phase::InStartupProcessing { .. } | Phase::Active { .. } => Ok(()),
        Phase::InitStartup { .. } => Err(unavailable("no runner has the scenario yet: try again")),
        _ => Err(Problem::new(ProblemName::NotRunning, "start the scenario first")),
    }
}
