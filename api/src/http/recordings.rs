//! `/v1/scenarios/{id}/recordings` and `/clip`: what was recorded, to look at again.

use std::{sync::Arc, time::Duration};

use kadr_shared::{moment::Moment, telemetry::chain};
use poem::Body as Bytes;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Binary,
};
use serde::Serialize;

use super::{
    Part, Services,
    answers::RecordingProblems,
    params::{At, AtParam, IdParam},
};
use crate::{
    body::Body,
    problem::{Failure, Problem, ProblemName},
    recordings::{self, RecordingsError},
};

/// No clip is longer.
const LONGEST: Duration = Duration::from_secs(60 * 60);

pub(super) struct RecordingsApi {
    pub(super) services: Arc<Services>,
}

/// What is recorded.
#[derive(Debug, Serialize, Object)]
struct Recordings {
    /// Without a gap within each; in their order.
    recordings: Vec<RecordedSpan>,
}

/// A span of time that is recorded.
#[derive(Debug, Serialize, Object)]
struct RecordedSpan {
    from: String,
    to: String,
    seconds: f64,
}

#[derive(ApiResponse)]
enum ClipAnswer {
    /// Fragmented MP4 with H.264.
    #[oai(status = 200, content_type = "video/mp4")]
    Clip(Binary<Bytes>, #[oai(header = "Content-Disposition")] String),
}

impl From<RecordingsError> for Problem {
    fn from(error: RecordingsError) -> Self {
        Self::new(ProblemName::Unavailable, chain(&error))
    }
}

#[OpenApi(tag = "Part::Video")]
impl RecordingsApi {
    /// What is recorded of a scenario
    #[oai(path = "/v1/scenarios/:id/recordings", method = "get", operation_id = "list_recordings")]
    async fn list(&self, id: Path<IdParam>) -> Result<Body<Recordings>, Failure<RecordingProblems>> {
        let Path(IdParam(id)) = id;
        self.services.exists(&id).await?;
        let spans = recordings::spans(&self.services.nats, &id).await?;
        let show = |span: &kadr_shared::message::recording::Span| RecordedSpan {
            from: span.from.to_string(),
            to: span.to.to_string(),
            seconds: span.to.since(span.from).as_secs_f64(),
        };
        Ok(Body(Recordings { recordings: spans.iter().map(show).collect() }))
    }

    /// A clip of what is recorded
    ///
    /// It begins with the key frame at or before `from`, and ends where the camera's pictures become larger or smaller, or the
    /// run ends: ask for the rest by itself.
    #[oai(path = "/v1/scenarios/:id/clip", method = "get", operation_id = "get_clip")]
    async fn clip(
        &self,
        id: Path<IdParam>,
        /// A time (RFC 3339), such as a detection's `captured_at`.
        from: Query<AtParam>,
        /// A later time, by an hour at most; a second after `from` where it is left out.
        to: Query<Option<AtParam>>,
    ) -> Result<ClipAnswer, Failure<RecordingProblems>> {
        let Path(IdParam(id)) = id;
        let time = |AtParam(At(moment)): AtParam| match moment {
            Moment::Time(time) => Ok(time),
            Moment::Seq(_) => Err(Problem::new(
                ProblemName::BadRequest,
                "from and to are times (RFC 3339), such as 2026-01-31T12:00:00Z",
            )),
        };
        let from = time(from.0)?;
        let to = to.0.map(time).transpose()?.unwrap_or_else(|| from.after(Duration::from_secs(1)));
        if to < from || to.since(from) > LONGEST {
            let detail = "to has to be later than from, by an hour at most";
            return Err(Problem::new(ProblemName::BadRequest, detail).into());
        }
        self.services.exists(&id).await?;
        let clip = recordings::clip(&self.services.nats, &id, from, to).await?.ok_or_else(|| {
            Problem::new(
                ProblemName::NotFound,
                "nothing is recorded of that time: /v1/scenarios/{id}/recordings tells what is; outputs.record of a \
                 camera's settings makes recordings",
            )
        })?;
        let name = format!("attachment; filename=\"{id}-{}.mp4\"", from.to_string().replace(':', "-"));
        Ok(ClipAnswer::Clip(Binary(Bytes::from_bytes_stream(clip)), name))
    }
}
