//! One request to a webhook: its body, its signature, and whether it was taken.

use std::time::Duration;

use kadr_shared::{
    filter::Selection, id::ScenarioId, message::detection::FrameDetections, telemetry::chain, time::Timestamp,
};
use reqwest::{StatusCode, header};
use ring::hmac;
use serde::Serialize;
use tracing::warn;
use url::Url;

/// For an answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// Results in a request.
const MOST: usize = 100;
/// Bytes in a request: one more result is added below it.
const LARGEST: usize = 1 << 20;

/// What is sent together.
pub(super) struct Batch {
    /// The sequence of the first result that was looked at, and of the last one.
    first: u64,
    pub(super) last: u64,
    results: Vec<Numbered>,
    /// Of the results as they are stored.
    bytes: usize,
}

/// A result and where it is stored.
#[derive(Serialize)]
struct Numbered {
    seq: u64,
    #[serde(flatten)]
    result: FrameDetections,
}

#[derive(Serialize)]
struct Body<'a> {
    scenario: &'a ScenarioId,
    results: &'a [Numbered],
}

impl Batch {
    pub(super) const fn new(first: u64) -> Self {
        Self { first, last: first, results: Vec::new(), bytes: 0 }
    }

    /// Adds a stored result, or passes it over.
    pub(super) fn add(&mut self, seq: u64, payload: &[u8], selection: &mut Selection) {
        self.last = seq;
        match serde_json::from_slice(payload) {
            Ok(result) => {
                if let Some(result) = selection.pass(result) {
                    self.bytes += payload.len();
                    self.results.push(Numbered { seq, result });
                }
            }
            // Another version's, or none of kadr's: it must not hold up the others.
            Err(error) => warn!(seq, %error, "a stored result can't be read: the webhook is not told of it"),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.results.len() >= MOST || self.bytes >= LARGEST
    }
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("it answered {0}")]
    Answered(StatusCode),
    #[error("{0}")]
    Failed(String),
    #[error("the request can't be written as JSON: {0}")]
    Write(#[from] serde_json::Error),
}

/// Who is told.
pub(super) struct Receiver {
    client: reqwest::Client,
    url: Url,
    secret: Option<hmac::Key>,
}

impl Receiver {
    pub(super) fn new(client: reqwest::Client, url: Url, secret: Option<String>) -> Self {
        let secret = secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        Self { client, url, secret }
    }

    /// Sends a batch. Taken is what is answered by 2xx in time.
    pub(super) async fn send(&self, scenario: &ScenarioId, batch: &Batch) -> Result<(), RequestError> {
        let body = serde_json::to_vec(&Body { scenario, results: &batch.results })?;
        let delivery = batch.results.first().map_or(batch.first, |result| result.seq);
        let mut request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("Kadr-Delivery", delivery.to_string());
        if let Some(key) = &self.secret {
            let seconds = Timestamp::now().as_millis() / 1000;
            request = request.header("Kadr-Signature", signature(key, seconds, &body));
        }
        // The address may hold what is not for everybody's eyes.
        let failed = |error: reqwest::Error| {
            let late = error.is_timeout();
            let error = error.without_url();
            RequestError::Failed(if late { "no answer in time".to_owned() } else { chain(&error) })
        };
        let status = request.body(body).send().await.map_err(failed)?.status();
        if status.is_success() { Ok(()) } else { Err(RequestError::Answered(status)) }
    }
}

/// Of a body that was sent at a time, in seconds since 1970.
fn signature(key: &hmac::Key, seconds: i64, body: &[u8]) -> String {
    let mut signed = format!("{seconds}.").into_bytes();
    signed.extend_from_slice(body);
    let tag = hmac::sign(key, &signed);
    let digits: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_others_make_of_the_same() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"hunter2");
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac hunter2
        let wanted = "56b25cbf563812b38800e5f4dd1febfde087d36841155e70b3aa285517e1570a";
        assert_eq!(signature(&key, 1_700_000_000, br#"{"a":1}"#), format!("t=1700000000,v1={wanted}"));
    }
}
