//! Stored results as they are shown: what the stream holds, with the place where it does.

use kadr_shared::message::detection::{self, FrameDetections};
use poem_openapi::Object;
use serde::Serialize;

/// What was found in a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
#[oai(rename = "Result")]
pub(crate) struct StoredResult {
    /// Where it is stored: to go on behind it, and to know it again.
    pub(crate) seq: u64,
    scenario: String,
    run: String,
    /// Counts within the run. A camera's frames that were dropped leave holes.
    frame: u64,
    /// When it is shown, after the run's first one.
    pts_ms: f64,
    /// When it was taken.
    captured_at: String,
    /// The source's size.
    width: u32,
    height: u32,
    /// Which weights said it.
    model: Model,
    detections: Vec<Detection>,
    timing_ms: Timing,
}

#[derive(Debug, Clone, PartialEq, Serialize, Object)]
#[oai(rename = "ResultModel")]
struct Model {
    name: String,
    sha256: String,
    precision: String,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
struct Detection {
    class: u32,
    label: String,
    confidence: f32,
    /// `[x1, y1, x2, y2]` in the source's pixels.
    #[oai(rename = "box", validator(min_items = 4, max_items = 4))]
    #[serde(rename = "box")]
    bbox: Vec<f32>,
}

/// Where a frame's time went: from its publication to a worker's hand, and in the network.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
struct Timing {
    queue: f64,
    inference: f64,
}

/// A page of results.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
pub(crate) struct Results {
    pub(crate) results: Vec<StoredResult>,
    /// Where to go on (`from`); null: that is all that is stored now.
    pub(crate) next: Option<u64>,
}

impl StoredResult {
    pub(crate) fn new(seq: u64, result: FrameDetections) -> Self {
        let FrameDetections { scenario, run, frame, pts_ms, captured_at, width, height, model, detections, timing_ms } =
            result;
        let detection::ModelStamp { name, sha256, precision } = model;
        let detection::Timing { queue, inference } = timing_ms;
        Self {
            seq,
            scenario: scenario.to_string(),
            run: run.to_string(),
            frame,
            pts_ms,
            captured_at: captured_at.to_string(),
            width,
            height,
            model: Model { name: name.to_string(), sha256, precision },
            detections: detections.into_iter().map(Detection::from).collect(),
            timing_ms: Timing { queue, inference },
        }
    }
}

impl From<detection::Detection> for Detection {
    fn from(detection::Detection { class, label, confidence, bbox }: detection::Detection) -> Self {
        Self { class: u32::try_from(class).unwrap_or(u32::MAX), label, confidence, bbox: bbox.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_is_stored_with_its_place() {
        let stored = concat!(
            r#"{"scenario":"gate","run":"00000000-0000-0000-0000-000000000001","frame":7,"pts_ms":280.0,"#,
            r#""captured_at":"2026-01-31T12:00:00.000Z","width":1280,"height":720,"#,
            r#""model":{"name":"tiny","sha256":"0","precision":"f32"},"#,
            r#""detections":[{"class":2,"label":"car","confidence":0.75,"box":[1.0,2.5,30.0,40.25]}],"#,
            r#""timing_ms":{"queue":0.5,"inference":20.0}}"#
        );
        let shown = serde_json::to_string(&StoredResult::new(42, serde_json::from_str(stored).unwrap())).unwrap();
        assert_eq!(shown, stored.replacen('{', "{\"seq\":42,", 1));
    }
}
