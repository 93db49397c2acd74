//! What is made of results as text, as it is documented and shown: a part of a scenario's [settings](super::settings).

use kadr_shared::settings::{self, TextFormat};
use poem_openapi::{Enum, Object};
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(super) enum FileFormat {
    /// A line a frame.
    Jsonl,
    /// A line a detection.
    Csv,
}

/// Where results are posted to as JSON, each at least once and in order, up to 100 a request:
/// `{"scenario": …, "results": […]}`, each result with the sequence that it is stored under (`seq`). What is not answered
/// by 2xx within 10 s is sent again, after pauses from 1 s to 5 min.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
pub(super) struct Webhook {
    /// An `http://` or `https://` address, without user name or password.
    url: String,
    /// Labels to keep; empty: all. Frames of which nothing is left are not sent.
    #[oai(default, skip_serializing_if_is_empty)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    classes: Vec<String>,
    /// Detections below it are left out.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "0"), maximum(value = "1")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
    /// The most results a second, by the time at which frames are shown.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "0.01"), maximum(value = "1000")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    /// What requests are signed with, in the header `Kadr-Signature: t=SECONDS,v1=HEX`, where HEX is the HMAC-SHA256 of
    /// `SECONDS.BODY`. It is encrypted, and never shown.
    #[oai(write_only, skip_serializing_if_is_none)]
    #[serde(skip)]
    secret: Option<String>,
}

impl From<&TextFormat> for FileFormat {
    fn from(format: &TextFormat) -> Self {
        match format {
            TextFormat::Jsonl => Self::Jsonl,
            TextFormat::Csv => Self::Csv,
        }
    }
}

impl From<&settings::Webhook> for Webhook {
    fn from(webhook: &settings::Webhook) -> Self {
        let settings::Webhook { url, classes, confidence, rate, secret: _ } = webhook;
        Self {
            url: url.get().to_string(),
            classes: classes.clone(),
            confidence: confidence.map(settings::Ratio::get),
            rate: rate.map(kadr_shared::filter::Rate::get),
            secret: None,
        }
    }
}
