//! `/v1/scenarios/{id}/detections`: what is stored of a scenario's frames, in pages or as it comes.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use kadr_shared::{
    csv,
    detections::DetectionsError,
    filter::{Filter, Selection},
    telemetry::chain,
};
use poem::{IntoResponse, Response, http::header, web::sse::Event};
use poem_openapi::{
    ApiResponse, Enum, OpenApi,
    param::{Header, Path, Query},
    payload::EventStream,
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
    types::Type,
};

use super::{
    Part, Services,
    answers::ReadProblems,
    params::{ConfidenceParam, IdParam, RateParam, default_limit, from_the_first},
    pump::pumped,
};
use crate::{
    body::{Body, Results, StoredResult},
    detections::{self, Live, Page},
    problem::{Failure, Problem, ProblemName},
};

/// A stream on which nothing happens says so this often: connections that are silent get closed on their way.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a reader waits that has lost its connection.
const RETRY_MS: u64 = 1000;

pub(super) struct DetectionsApi {
    pub(super) services: Arc<Services>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    /// A line a frame, as it is stored.
    Jsonl,
    /// A line a detection, with a header; frames without any have none.
    Csv,
}

#[OpenApi(prefix_path = "/v1/scenarios", tag = "Part::Detections")]
impl DetectionsApi {
    /// What was found in a scenario's frames
    ///
    /// Ascending by the sequence that results are stored under. Results are kept for 30 days.
    #[oai(path = "/:id/detections", method = "get", operation_id = "list_detections")]
    #[expect(clippy::too_many_arguments, reason = "what may be asked for, one by one in the document")]
    async fn list(
        &self,
        id: Path<IdParam>,
        /// The first sequence.
        #[oai(default = "from_the_first")]
        from: Query<u64>,
        /// The most results.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u32>,
        /// How they are written. Where to go on stands in the header `Kadr-Next`, too.
        #[oai(default)]
        format: Query<Format>,
        /// Labels, separated by commas; all, if none is given. Frames of which nothing is left are left out.
        class: Query<Option<String>>,
        /// Detections below it are left out.
        confidence: Query<Option<ConfidenceParam>>,
        /// The most results a second, by the time at which frames are shown.
        rate: Query<Option<RateParam>>,
    ) -> Result<PageAnswer, Failure<ReadProblems>> {
        let IdParam(id) = id.0;
        let selection = selection(class.0, confidence.0, rate.0)?;
        self.services.exists(&id).await?;
        let page = detections::page(&self.services.nats, &id, from.0, limit.0 as usize, selection).await;
        Ok(PageAnswer { format: format.0, page: page.map_err(unread)? })
    }

    /// What is found in a scenario's frames, as it is stored
    ///
    /// Server-sent events of type `detections`, each with the sequence that it is stored under as its `id`. A reader that
    /// comes back with `Last-Event-ID`, to any instance of the API, goes on behind it without loss and without repeat.
    #[oai(path = "/:id/detections/live", method = "get", operation_id = "follow_detections")]
    async fn live(
        &self,
        id: Path<IdParam>,
        /// The first sequence, to begin with what is stored already; by default what comes from now on.
        from: Query<Option<u64>>,
        /// Labels, separated by commas; all, if none is given. Frames of which nothing is left are left out.
        class: Query<Option<String>>,
        /// Detections below it are left out.
        confidence: Query<Option<ConfidenceParam>>,
        /// The most results a second, by the time at which frames are shown.
        rate: Query<Option<RateParam>>,
        /// The `id` of the last event that was read: it goes on behind it.
        #[oai(name = "Last-Event-ID")]
        last: Header<Option<u64>>,
    ) -> Result<EventStream<futures::stream::BoxStream<'static, StoredResult>>, Failure<ReadProblems>> {
        let IdParam(id) = id.0;
        let selection = selection(class.0, confidence.0, rate.0)?;
        self.services.exists(&id).await?;
        let Services { nats, closing, listeners, .. } = &*self.services;
        let permit = listeners.clone().try_acquire_owned().map_err(|_| {
            Problem::new(ProblemName::Unavailable, "this API has as many listeners as it can serve: try another one")
        })?;
        let from = last.0.map(|last| last.saturating_add(1)).or(from.0);
        let live: Live = detections::live(nats, &id, from, selection, closing.clone(), permit).await.map_err(unread)?;
        let results = pumped(live.map(|(seq, result)| StoredResult::new(seq, result)), closing.clone()).boxed();
        let events = EventStream::new(results).keep_alive(KEEP_ALIVE);
        Ok(events.to_event(|result| match serde_json::to_string(&result) {
            Ok(data) => Event::message(data).id(result.seq.to_string()).event_type("detections"),
            // Numbers and texts are always written.
            Err(_) => Event::retry(RETRY_MS),
        }))
    }
}

fn selection(
    class: Option<String>,
    confidence: Option<ConfidenceParam>,
    rate: Option<RateParam>,
) -> Result<Selection, Problem> {
    let classes: Vec<_> = class.iter().flat_map(|labels| labels.split(',')).map(|l| l.trim().to_owned()).collect();
    if classes.iter().any(String::is_empty) {
        return Err(Problem::new(ProblemName::BadRequest, "class: labels separated by commas are wanted: car,bus"));
    }
    let confidence = confidence.map(|ConfidenceParam(confidence)| confidence);
    Ok(Selection::new(Filter { classes, confidence, rate: rate.map(|RateParam(rate)| rate) }))
}

fn unread(error: DetectionsError) -> Problem {
    Problem::new(ProblemName::Unavailable, chain(&error))
}

/// A page in the format that was asked for.
struct PageAnswer {
    format: Format,
    page: Page,
}

const NEXT: &str = "Kadr-Next";

impl IntoResponse for PageAnswer {
    fn into_response(self) -> Response {
        let Self { format, page: Page { found, next } } = self;
        let response = match format {
            Format::Json => {
                let results = found.into_iter().map(|(seq, result)| StoredResult::new(seq, result)).collect();
                Body(Results { results, next }).into_response()
            }
            Format::Jsonl => {
                let lines: Result<String, _> =
                    found.iter().map(|(_, result)| serde_json::to_string(result).map(|line| line + "\n")).collect();
                match lines {
                    Ok(lines) => text("application/jsonl", lines),
                    Err(error) => Problem::internal(&error).into_response(),
                }
            }
            Format::Csv => {
                let lines = found.iter().map(|(_, result)| csv::lines(result));
                text("text/csv; charset=utf-8", std::iter::once(csv::HEADER.to_owned()).chain(lines).collect())
            }
        };
        match next {
            Some(next) => response.with_header(NEXT, next.to_string()).into_response(),
            None => response,
        }
    }
}

fn text(content_type: &'static str, body: String) -> Response {
    Response::builder().header(header::CONTENT_TYPE, content_type).body(body)
}

impl ApiResponse for PageAnswer {
    fn meta() -> MetaResponses {
        let lines = || MetaSchemaRef::Inline(Box::new(MetaSchema::new("string")));
        let media = |content_type, schema| MetaMediaType { content_type, schema };
        let content = vec![
            media("application/json", Results::schema_ref()),
            media("application/jsonl", lines()),
            media("text/csv", lines()),
        ];
        let next = MetaHeader {
            name: NEXT.to_owned(),
            description: Some("Where to go on (`from`), if there is more.".to_owned()),
            required: false,
            deprecated: false,
            schema: u64::schema_ref(),
        };
        let response = MetaResponse {
            description: "A page of results. A JSONL line and a CSV header are those of a run's files.",
            status: Some(200),
            status_range: None,
            content,
            headers: vec![next],
        };
        MetaResponses { responses: vec![response] }
    }

    fn register(registry: &mut Registry) {
        Results::register(registry);
    }
}
