//! What a scenario is told to do: the body of its creation, kept in the log, handed to the runner.
//!
//! Parsed into types here and nowhere else; whether a model or a class exists is the catalogue's business.

mod outputs;
mod preprocess;
mod quirk;
mod source;
mod text;
mod url;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};

pub use self::{
    outputs::{Between, KeepDays, Outputs, Overlay, Record, Recorded, Scale},
    preprocess::{Preprocess, PreprocessError, Region},
    quirk::{Quirk, Quirks},
    source::{Fps, FpsError, Misplaced, Pace, Source, Tls, Transport},
    text::{TextFormat, Webhook, WebhookUrl, WebhookUrlError},
    url::{SourceUrl, SourceUrlError},
};
use crate::{geometry::InputSize, id::ModelName};

/// A scenario's settings. All but `source` have defaults; unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub source: Source,
    #[serde(default = "default_model")]
    pub model: ModelName,
    /// Left out where it is the default: events keep the shape that they always had.
    #[serde(default, skip_serializing_if = "Preprocess::is_default")]
    pub preprocess: Preprocess,
    #[serde(default)]
    pub analysis: Analysis,
    #[serde(default)]
    pub outputs: Outputs,
    #[serde(default)]
    pub restart: Restart,
}

/// The model of a scenario that names none.
pub const DEFAULT_MODEL: &str = "yolov8n";

#[expect(clippy::expect_used, reason = "a constant that a test parses")]
fn default_model() -> ModelName {
    DEFAULT_MODEL.parse().expect("the default model's name is well-formed")
}

/// How frames are analysed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Analysis {
    /// The model's input, width × height; `null`: the source letterboxed into 640.
    pub input_size: Option<InputSize>,
    /// Detections below it are left out.
    pub confidence: Ratio,
    /// Two boxes of one class that overlap more than this are one object.
    pub iou: Ratio,
    /// Boxes of different classes that overlap so are one object, too: that of the surer.
    pub class_agnostic: bool,
    /// Labels to keep; empty: all.
    pub classes: Vec<String>,
}

impl Default for Analysis {
    fn default() -> Self {
        Self { input_size: None, confidence: Ratio(0.25), iou: Ratio(0.7), class_agnostic: false, classes: Vec::new() }
    }
}

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Ratio(f64);

/// A number that is not from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is not between 0 and 1")]
pub struct RatioError(f64);

impl Ratio {
    pub fn new(value: f64) -> Result<Self, RatioError> {
        if (0.0..=1.0).contains(&value) { Ok(Self(value)) } else { Err(RatioError(value)) }
    }

    pub const fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value = text.parse().map_err(|_| "a number between 0 and 1 is wanted".to_owned())?;
        Self::new(value).map_err(|e| e.to_string())
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What happens when an attempt fails. The end of a file is no failure: it is never followed by another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Restart {
    pub policy: RestartPolicy,
    /// The most failed attempts in a row that another one follows; for `on_failure` only.
    pub limit: u32,
}

impl Default for Restart {
    fn default() -> Self {
        Self { policy: RestartPolicy::OnFailure, limit: 5 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// The first failure ends the run.
    Never,
    /// Another attempt where the reason may pass (a lost runner, a camera that went away), up to the limit.
    OnFailure,
    /// Another attempt whatever the reason (a missing file may appear), until a stop.
    Always,
}

impl Restart {
    /// Whether one more attempt may follow the `failures`-th in a row that failed. `passing`: for a reason that may pass.
    pub const fn allows_after(&self, failures: u32, passing: bool) -> bool {
        match self.policy {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => passing && failures <= self.limit,
            RestartPolicy::Always => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Settings, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn all_but_the_source_has_a_default() {
        let settings = parse(r#"{"source": {"url": "/data/a clip.mp4"}}"#).unwrap();
        assert_eq!(
            serde_json::to_value(&settings).unwrap(),
            serde_json::json!({
                "source": {"url": "file:///data/a%20clip.mp4"}, "model": "yolov8n",
                "analysis": {
                    "input_size": null, "confidence": 0.25, "iou": 0.7, "class_agnostic": false, "classes": []
                },
                "outputs": {"video": true}, "restart": {"policy": "on_failure", "limit": 5}
            })
        );
        let again = parse(&serde_json::to_string(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn what_is_not_known_or_out_of_range_is_refused() {
        for bad in [
            r#"{}"#,
            r#"{"source": {"url": "clip.mp4"}}"#,
            r#"{"source": {"url": ""}}"#,
            r#"{"source": {"url": "/a", "x": 1}}"#,
            r#"{"source": {"url": "/a"}, "modle": "yolov8n"}"#,
            r#"{"source": {"url": "/a"}, "analysis": {"confidence": 1.5}}"#,
            r#"{"source": {"url": "/a"}, "analysis": {"input_size": "640x360"}}"#,
            r#"{"source": {"url": "/a"}, "restart": {"policy": "sometimes"}}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
