//! An answer to a player (RFC 2326, section 7), with the reason in words: most players show it.

use rtsp_types::{HeaderName, Response, StatusCode, Version, headers};

use crate::problem::{Problem, ProblemName};

/// What can be asked for.
pub(super) const METHODS: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, SET_PARAMETER, TEARDOWN";
/// A reason is one line, and no book.
const LONGEST_REASON: usize = 300;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    status: StatusCode,
    reason: Option<String>,
    headers: Vec<(HeaderName, String)>,
    body: Vec<u8>,
}

impl Answer {
    pub(super) const fn ok() -> Self {
        Self { status: StatusCode::Ok, reason: None, headers: Vec::new(), body: Vec::new() }
    }

    pub(super) fn refusal(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: Some(reason.into()), ..Self::ok() }
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(self, kind: &str, body: String) -> Self {
        Self { body: body.into_bytes(), ..self.with(headers::CONTENT_TYPE, kind) }
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.status.into()
    }

    #[cfg(test)]
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// As it goes out. `cseq`: the number of the request, if it could be read.
    pub(super) fn bytes(self, cseq: Option<u32>) -> Vec<u8> {
        let mut builder = Response::builder(Version::V1_0, self.status);
        if let Some(reason) = self.reason {
            let line = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_REASON);
            builder = builder.reason_phrase(line.collect::<String>());
        }
        if let Some(cseq) = cseq {
            builder = builder.header(headers::CSEQ, cseq.to_string());
        }
        builder = builder.header(headers::SERVER, concat!("kadr/", env!("CARGO_PKG_VERSION")));
        for (name, value) in self.headers {
            builder = builder.header(name, value);
        }
        let mut bytes = Vec::new();
        // Into memory nothing fails.
        let _ = builder.build(self.body).write(&mut bytes);
        bytes
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let status = match problem.name {
            ProblemName::NotFound => StatusCode::NotFound,
            // A scenario that does not run may be started: who asks again is right.
            _ => StatusCode::ServiceUnavailable,
        };
        Self::refusal(status, problem.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_message_whatever_the_reason() {
        let answer =
            Answer::refusal(StatusCode::NotFound, "no such\r\nscenario: größer").with(headers::PUBLIC, METHODS);
        let text = String::from_utf8(answer.bytes(Some(7))).unwrap();
        assert!(text.starts_with("RTSP/1.0 404 no such  scenario: größer\r\n"), "{text}");
        assert!(text.contains("\r\nCSeq: 7\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        let text = String::from_utf8(Answer::ok().body("application/sdp", "v=0\r\n".into()).bytes(None)).unwrap();
        assert!(text.contains("\r\nContent-Length: 5\r\n") && text.ends_with("\r\n\r\nv=0\r\n"), "{text}");
    }
}
