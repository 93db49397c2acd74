//! JSON in and out. Poem's own payload parses leniently and sorts fields; ours is read and written by serde.

use std::marker::PhantomData;

use poem::{IntoResponse, Request, RequestBody, Response, Result, http::header};
use poem_openapi::{
    ApiResponse, impl_apirequest_for_payload,
    payload::{Json, ParsePayload, Payload},
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchemaRef, Registry},
    types::Type,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::problem::{Problem, ProblemName};

/// The largest body that is read.
const LARGEST: usize = 1 << 20;
/// The longest message about what is wrong with a body.
const LONGEST_MESSAGE: usize = 400;

/// An answer's body.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: Type> Payload for Body<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Serialize + Send> IntoResponse for Body<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(json) => Response::builder().header(header::CONTENT_TYPE, "application/json").body(json),
            Err(error) => Problem::internal(&error).into_response(),
        }
    }
}

impl<T: Type> ApiResponse for Body<T> {
    fn meta() -> MetaResponses {
        let content = vec![MetaMediaType { content_type: Self::CONTENT_TYPE, schema: Self::schema_ref() }];
        let response =
            MetaResponse { description: "", status: Some(200), status_range: None, content, headers: Vec::new() };
        MetaResponses { responses: vec![response] }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// A request's body, parsed by serde into `T` (unknown fields refused by `T`) and documented as `D`.
pub(crate) struct Strict<T, D>(pub(crate) T, pub(crate) PhantomData<D>);

impl<T: Send, D: Type> Payload for Strict<T, D> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn check_content_type(content_type: &str) -> bool {
        Json::<D>::check_content_type(content_type)
    }

    fn schema_ref() -> MetaSchemaRef {
        D::schema_ref()
    }

    fn register(registry: &mut Registry) {
        D::register(registry);
    }
}

impl<T: DeserializeOwned + Send, D: Type> ParsePayload for Strict<T, D> {
    const IS_REQUIRED: bool = true;

    async fn from_request(_request: &Request, body: &mut RequestBody) -> Result<Self> {
        let bytes = body.take()?.into_bytes_limit(LARGEST).await?;
        Ok(Self(parse(&bytes)?, PhantomData))
    }
}

impl_apirequest_for_payload!(Strict<T, D>, T: DeserializeOwned + Send, D: Type);

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let error = match serde_json::from_slice(bytes) {
        // Serde takes an array for a struct, its fields by position: nobody means that.
        Ok(_) if bytes.trim_ascii_start().first() != Some(&b'{') => {
            return Err(Problem::new(ProblemName::InvalidBody, "the body has to be a JSON object"));
        }
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let name = if error.is_data() { ProblemName::InvalidBody } else { ProblemName::MalformedJson };
    Err(Problem::new(name, message(&error)))
}

/// What is wrong, without the text that was sent in a wrong place: it may be a secret, or long.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = match (text.split_once(": string \""), text.rsplit_once("\", expected")) {
        (Some((before, _)), Some((_, after))) if before.starts_with("invalid ") => {
            format!("{before}: a string, expected{after}")
        }
        _ => text,
    };
    if text.chars().count() <= LONGEST_MESSAGE {
        return text;
    }
    // What is long is what was sent; what was expected stands at the end.
    let skipped = text.chars().count() - LONGEST_MESSAGE / 2;
    let start: String = text.chars().take(LONGEST_MESSAGE / 2).collect();
    let end: String = text.chars().skip(skipped).collect();
    format!("{start} … {end}")
}

#[cfg(test)]
mod tests {
    use kadr_shared::settings::Settings;

    use super::*;

    fn problem(json: &str) -> Problem {
        parse::<Settings>(json.as_bytes()).unwrap_err()
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, name, words) in [
            ("{", ProblemName::MalformedJson, "EOF"),
            ("", ProblemName::MalformedJson, "EOF"),
            ("nonsense", ProblemName::MalformedJson, "expected"),
            (r#"{"source": {"url": "/a"}, "modle": "x"}"#, ProblemName::InvalidBody, "`modle`"),
            (r#"{"source": {"url": "/a", "password": "x"}}"#, ProblemName::InvalidBody, "`password`"),
            (r#"{}"#, ProblemName::InvalidBody, "`source`"),
            (r#"[{"url": "/a"}]"#, ProblemName::InvalidBody, "object"),
            (
                r#"{"source": {"url": "/a"}, "analysis": {"confidence": 7}}"#,
                ProblemName::InvalidBody,
                "7 is not between",
            ),
        ] {
            let problem = problem(json);
            assert_eq!(problem.name, name, "{json}: {problem}");
            assert!(problem.detail.contains(words), "{json}: {problem}");
        }
    }

    #[test]
    fn what_was_sent_is_not_repeated() {
        let long = "hunter2".repeat(1000);
        for json in [
            format!(r#"{{"source": "rtsp://me:{long}@cam/1"}}"#),
            format!(r#"{{"source": {{"url": "/a"}}, "outputs": {{"video": "{long}\", expected {long}"}}}}"#),
        ] {
            let problem = problem(&json);
            assert!(!problem.detail.contains("hunter2"), "{problem}");
            assert!(problem.detail.contains("expected"), "{problem}");
        }
        let problem = problem(&format!(r#"{{"{long}": 1}}"#));
        assert!(problem.detail.len() < 500 && problem.detail.contains("expected"), "{problem}");
    }
}
