//! What was found in a frame: raw from an inference worker, then as stored and shown.

use serde::{Deserialize, Serialize};

use crate::{
    id::{ModelName, RunId, ScenarioId},
    time::Timestamp,
};

/// One object. `bbox` is `[x1, y1, x2, y2]` in the source's own pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    pub class: usize,
    pub label: String,
    pub confidence: f32,
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
}

/// Which weights said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStamp {
    pub name: ModelName,
    pub sha256: String,
    pub precision: String,
}

/// Where a frame's time went, in milliseconds: from its publication to a worker's hand, and in the network.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    pub queue: f64,
    pub inference: f64,
}

/// A worker's answer on `kadr.res.{scenario}.{run}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawResult {
    pub scenario: ScenarioId,
    pub run: RunId,
    /// The fence that the frame carried.
    pub fence: u64,
    pub frame: u64,
    #[serde(flatten)]
    pub outcome: RawOutcome,
}

/// The detections, or why there are none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum RawOutcome {
    Analysed {
        model: ModelStamp,
        detections: Vec<Detection>,
        timing_ms: Timing,
    },
    /// The frame can never be analysed: asking again would not help.
    Refused {
        error: String,
    },
    /// It came to be its turn so many milliseconds after it was published, when nobody wanted it any more.
    Late {
        after_ms: f64,
    },
}

/// A frame's stored result: a message on `kadr.det.{scenario}` and a line of `detections.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameDetections {
    pub scenario: ScenarioId,
    pub run: RunId,
    /// Counts from 0 within the run, without holes.
    pub frame: u64,
    pub pts_ms: f64,
    pub captured_at: Timestamp,
    /// The source's size.
    pub width: u32,
    pub height: u32,
    pub model: ModelStamp,
    pub detections: Vec<Detection>,
    pub timing_ms: Timing,
}
