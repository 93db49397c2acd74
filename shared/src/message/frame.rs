//! A frame on its way to inference: raw planes as the body, everything else in headers.
//!
//! The body is I420 of exactly the model's input size: `width·height` bytes of luma, then a quarter of that of each
//! chroma plane, without padding.

use std::{fmt::Display, str::FromStr, time::Duration};

use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::{
    geometry::{InputSize, Letterbox, Size},
    id::{RunId, ScenarioId},
    settings::Ratio,
    time::Timestamp,
};

/// What a worker must know of a frame besides its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameHeader {
    pub scenario: ScenarioId,
    pub run: RunId,
    /// The sequence of the `runner_assigned` that the sender works under.
    pub fence: u64,
    pub frame: u64,
    pub pts_ms: f64,
    pub captured_at: Timestamp,
    pub source: Size,
    /// The size of the planes in the body.
    pub input: InputSize,
    pub colour: Colour,
    pub confidence: Ratio,
    pub iou: Ratio,
    /// Whether boxes of different classes may be one object.
    pub class_agnostic: bool,
    /// Labels to keep; empty: all.
    pub classes: Vec<String>,
    /// For how long after its publication the frame is worth analysing; `None`: for ever.
    pub patience: Option<Duration>,
}

/// How YUV is to be read as RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Colour {
    pub matrix: Matrix,
    pub range: Range,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Matrix {
    Bt601,
    Bt709,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Range {
    /// 16 to 235 for luma.
    Limited,
    /// 0 to 255.
    Full,
}

impl Default for Colour {
    /// What untagged video is read as.
    fn default() -> Self {
        Self { matrix: Matrix::Bt601, range: Range::Limited }
    }
}

impl Display for Colour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.matrix, self.range) {
            (Matrix::Bt601, Range::Limited) => "bt601-limited",
            (Matrix::Bt601, Range::Full) => "bt601-full",
            (Matrix::Bt709, Range::Limited) => "bt709-limited",
            (Matrix::Bt709, Range::Full) => "bt709-full",
        })
    }
}

impl FromStr for Colour {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (matrix, range) = match text {
            "bt601-limited" => (Matrix::Bt601, Range::Limited),
            "bt601-full" => (Matrix::Bt601, Range::Full),
            "bt709-limited" => (Matrix::Bt709, Range::Limited),
            "bt709-full" => (Matrix::Bt709, Range::Full),
            _ => return Err(()),
        };
        Ok(Self { matrix, range })
    }
}

/// A frame message that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the frame has no header {0}")]
    Missing(&'static str),
    #[error("the frame's header {0} can't be read")]
    Bad(&'static str),
    #[error("the frame's body has {found} bytes, {wanted} are wanted for {input}")]
    Body { input: InputSize, wanted: usize, found: usize },
}

const SCENARIO: &str = "Kadr-Scenario";
const RUN: &str = "Kadr-Run";
const FENCE: &str = "Kadr-Fence";
const FRAME: &str = "Kadr-Frame";
const PTS_MS: &str = "Kadr-Pts-Ms";
const CAPTURED_AT: &str = "Kadr-Captured-At";
const SOURCE: &str = "Kadr-Source-Size";
const INPUT: &str = "Kadr-Input-Size";
const FORMAT: &str = "Kadr-Format";
const COLOUR: &str = "Kadr-Colour";
const CONFIDENCE: &str = "Kadr-Confidence";
const IOU: &str = "Kadr-Iou";
const CLASS_AGNOSTIC: &str = "Kadr-Class-Agnostic";
const CLASSES: &str = "Kadr-Classes";
const PATIENCE_MS: &str = "Kadr-Patience-Ms";

/// The only format yet.
const I420: &str = "i420";

impl FrameHeader {
    /// How the source's picture lies in the body.
    pub fn letterbox(&self) -> Letterbox {
        Letterbox::fit(self.source, self.input)
    }

    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &dyn Display| headers.insert(name, value.to_string());
        put(SCENARIO, &self.scenario);
        put(RUN, &self.run);
        put(FENCE, &self.fence);
        put(FRAME, &self.frame);
        put(PTS_MS, &self.pts_ms);
        put(CAPTURED_AT, &self.captured_at);
        put(SOURCE, &self.source);
        put(INPUT, &self.input);
        put(FORMAT, &I420);
        put(COLOUR, &self.colour);
        put(CONFIDENCE, &self.confidence);
        put(IOU, &self.iou);
        put(CLASS_AGNOSTIC, &self.class_agnostic);
        // Labels may hold any character but a comma has a meaning here: JSON keeps them apart.
        put(CLASSES, &serde_json::Value::from(self.classes.clone()));
        if let Some(patience) = self.patience {
            put(PATIENCE_MS, &patience.as_millis());
        }
        headers
    }

    /// Reads the headers and checks that `body` is as long as they say.
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, FrameError> {
        fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, FrameError> {
            headers.get(name).map(|v| v.as_str()).ok_or(FrameError::Missing(name))
        }
        fn read<T: FromStr>(headers: &HeaderMap, name: &'static str) -> Result<T, FrameError> {
            text(headers, name)?.parse().map_err(|_| FrameError::Bad(name))
        }
        // Senders of an earlier version know nothing of it.
        fn read_if_there<T: FromStr>(headers: &HeaderMap, name: &'static str) -> Result<Option<T>, FrameError> {
            headers.get(name).map(|_| read(headers, name)).transpose()
        }
        if text(headers, FORMAT)? != I420 {
            return Err(FrameError::Bad(FORMAT));
        }
        let header = Self {
            scenario: read(headers, SCENARIO)?,
            run: read(headers, RUN)?,
            fence: read(headers, FENCE)?,
            frame: read(headers, FRAME)?,
            pts_ms: read(headers, PTS_MS)?,
            captured_at: read(headers, CAPTURED_AT)?,
            source: read(headers, SOURCE)?,
            input: read(headers, INPUT)?,
            colour: read(headers, COLOUR)?,
            confidence: read(headers, CONFIDENCE)?,
            iou: read(headers, IOU)?,
            class_agnostic: read_if_there(headers, CLASS_AGNOSTIC)?.unwrap_or_default(),
            classes: serde_json::from_str(text(headers, CLASSES)?).map_err(|_| FrameError::Bad(CLASSES))?,
            patience: read_if_there(headers, PATIENCE_MS)?.map(Duration::from_millis),
        };
        let wanted = i420_len(header.input);
        if body.len() != wanted {
            return Err(FrameError::Body { input: header.input, wanted, found: body.len() });
        }
        Ok(header)
    }
}

/// The bytes of an I420 picture of a model's input size.
pub const fn i420_len(input: InputSize) -> usize {
    (input.width() as usize) * (input.height() as usize) * 3 / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            scenario: "gate".parse().unwrap(),
            run: RunId::from_u128(7),
            fence: 9,
            frame: 3,
            pts_ms: 100.1,
            captured_at: Timestamp::from_millis(5),
            source: "1280x720".parse().unwrap(),
            input: "64x32".parse().unwrap(),
            colour: Colour { matrix: Matrix::Bt709, range: Range::Full },
            confidence: Ratio::new(0.25).unwrap(),
            iou: Ratio::new(0.7).unwrap(),
            class_agnostic: true,
            classes: vec!["car".into(), "a, b".into()],
            patience: Some(Duration::from_millis(1500)),
        }
    }

    #[test]
    fn a_header_comes_back() {
        let body = vec![0; i420_len(header().input)];
        assert_eq!(FrameHeader::parse(&header().to_headers(), &body).unwrap(), header());
    }

    #[test]
    fn what_earlier_versions_did_not_send_need_not_be_there() {
        let plain = FrameHeader { class_agnostic: false, patience: None, ..header() };
        let all = plain.to_headers();
        let mut headers = HeaderMap::new();
        for (name, values) in all.iter().filter(|(name, _)| name.as_ref() as &str != CLASS_AGNOSTIC) {
            values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
        }
        let body = vec![0; i420_len(plain.input)];
        assert_eq!(FrameHeader::parse(&headers, &body).unwrap(), plain);
        headers.insert(PATIENCE_MS, "soon");
        assert_eq!(FrameHeader::parse(&headers, &body), Err(FrameError::Bad(PATIENCE_MS)));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let body = vec![0; i420_len(header().input)];
        assert_eq!(FrameHeader::parse(&HeaderMap::new(), &body), Err(FrameError::Missing(FORMAT)));
        let mut headers = header().to_headers();
        headers.insert(RUN, "x");
        assert_eq!(FrameHeader::parse(&headers, &body), Err(FrameError::Bad(RUN)));
        assert!(matches!(FrameHeader::parse(&header().to_headers(), &body[1..]), Err(FrameError::Body { .. })));
    }
}
