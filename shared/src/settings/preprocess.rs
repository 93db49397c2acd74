//! What becomes of frames before they are analysed: which of them are, and which part of each. Live video and recordings show
//! whole frames, whatever stands here.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// What inference is to see.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, try_from = "Given")]
pub struct Preprocess {
    /// Only this part of the picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<Region>,
    /// At most so many frames a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// Every n-th frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<NonZeroU32>,
    /// Without colours.
    #[serde(skip_serializing_if = "is_false")]
    pub grey: bool,
    /// Areas that are covered with grey: polygons of corners `[x, y]` in the source's own pixels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<Vec<[u32; 2]>>,
}

/// A part of a picture, in the source's own pixels. What reaches beyond the picture is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    pub left: u32,
    pub top: u32,
    pub width: NonZeroU32,
    pub height: NonZeroU32,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Preprocess {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether some frames are not to be analysed.
    pub const fn skips(&self) -> bool {
        self.fps.is_some() || self.every.is_some()
    }
}

/// As it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Given {
    crop: Option<Region>,
    fps: Option<f64>,
    every: Option<NonZeroU32>,
    grey: bool,
    masks: Vec<Vec<[u32; 2]>>,
}

/// The most masks, and the most corners of one.
const MASKS: usize = 32;
const CORNERS: usize = 64;
/// Frames a second: no camera has more, and one in a thousand seconds is few enough.
const LEAST_FPS: f64 = 0.001;
const MOST_FPS: f64 = 1_000.0;

/// What makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PreprocessError {
    #[error("preprocess.fps {0} is not between {LEAST_FPS} and {MOST_FPS}")]
    Fps(f64),
    #[error("preprocess.fps and preprocess.every both say which frames are analysed: give one of them")]
    Both,
    #[error("preprocess.masks are at most {MASKS} polygons of 3 to {CORNERS} corners")]
    Masks,
}

impl TryFrom<Given> for Preprocess {
    type Error = PreprocessError;

    fn try_from(Given { crop, fps, every, grey, masks }: Given) -> Result<Self, PreprocessError> {
        if let Some(fps) = fps.filter(|fps| !(LEAST_FPS..=MOST_FPS).contains(fps)) {
            return Err(PreprocessError::Fps(fps));
        }
        if fps.is_some() && every.is_some() {
            return Err(PreprocessError::Both);
        }
        if masks.len() > MASKS || masks.iter().any(|mask| !(3..=CORNERS).contains(&mask.len())) {
            return Err(PreprocessError::Masks);
        }
        Ok(Self { crop, fps, every, grey, masks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_comes_back_and_nonsense_is_refused() {
        let parse = |json: &str| serde_json::from_str::<Preprocess>(json);
        let full =
            r#"{"crop":{"left":2,"top":4,"width":64,"height":32},"fps":5.0,"grey":true,"masks":[[[0,0],[9,0],[9,9]]]}"#;
        assert_eq!(serde_json::to_string(&parse(full).unwrap()).unwrap(), full);
        assert_eq!(parse("{}").unwrap(), Preprocess::default());
        for (bad, words) in [
            (r#"{"fps": 0}"#, "between"),
            (r#"{"every": 0}"#, "nonzero"),
            (r#"{"every": 2, "fps": 2}"#, "one of them"),
            (r#"{"masks": [[[0, 0], [1, 1]]]}"#, "corners"),
            (r#"{"crop": {"left": 0, "top": 0, "width": 0, "height": 9}}"#, "nonzero"),
            (r#"{"crop": {"left": 0, "top": 0, "width": 9}}"#, "height"),
            (r#"{"resize": 2}"#, "resize"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }
}
