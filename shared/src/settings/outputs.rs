//! What is made of a scenario besides its stored detections. Fields that came later are left out where they have their
//! default, so that events keep the shape they always had.

use std::{num::NonZeroU64, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use super::text::{self, TextFormat, Webhook};

/// What is made besides the stored detections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outputs {
    /// An annotated MP4 of each run; of files.
    pub video: bool,
    /// How objects are marked.
    #[serde(skip_serializing_if = "Overlay::is_default")]
    pub overlay: Overlay,
    /// A recording to go back to, of a camera.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// Files of each run's results, beside its video.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "text::without_repeats")]
    pub files: Vec<TextFormat>,
    /// Where results are sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

impl Default for Outputs {
    fn default() -> Self {
        Self { video: true, overlay: Overlay::default(), record: None, files: Vec::new(), webhook: None }
    }
}

/// What is drawn, in annotated files as in live video.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overlay {
    /// A box around each object.
    pub boxes: bool,
    /// Its class beside it.
    pub labels: bool,
    /// How sure it is, behind the class.
    pub confidence: bool,
    /// The scenario's name and the time, in a corner.
    pub caption: bool,
    /// Lines and letters, so many times as large as usual.
    pub scale: Scale,
    /// What a frame shows that was not analysed itself.
    pub between: Between,
}

impl Default for Overlay {
    fn default() -> Self {
        Self {
            boxes: true,
            labels: true,
            confidence: true,
            caption: true,
            scale: Scale::default(),
            between: Between::default(),
        }
    }
}

impl Overlay {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is recorded, and for how long it is kept: the oldest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    #[serde(default)]
    pub what: Recorded,
    #[serde(default = "Record::days")]
    pub keep_days: KeepDays,
    /// None: as much as there is room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_bytes: Option<NonZeroU64>,
}

impl Record {
    const fn days() -> KeepDays {
        KeepDays(7.0)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recorded {
    /// With every object marked.
    #[default]
    Annotated,
    /// The camera's own video, as it came.
    Untouched,
}

/// From a minute to ten years.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub struct KeepDays(f64);

impl KeepDays {
    const LEAST: f64 = 1.0 / (24.0 * 60.0);
    const MOST: f64 = 3_650.0;

    pub const fn get(self) -> f64 {
        self.0
    }

    pub fn span(self) -> Duration {
        Duration::from_secs_f64(self.0 * 24.0 * 60.0 * 60.0)
    }
}

impl<'de> Deserialize<'de> for KeepDays {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let days = f64::deserialize(deserializer)?;
        if (Self::LEAST..=Self::MOST).contains(&days) {
            return Ok(Self(days));
        }
        Err(serde::de::Error::custom(format!("record.keep_days {days} is not between a minute (0.0007) and 3650")))
    }
}

/// From a quarter to four times the usual size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Scale(f32);

impl Scale {
    pub const LEAST: f32 = 0.25;
    pub const MOST: f32 = 4.0;

    pub const fn get(self) -> f32 {
        self.0
    }
}

impl Default for Scale {
    fn default() -> Self {
        Self(1.0)
    }
}

impl<'de> Deserialize<'de> for Scale {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let scale = f32::deserialize(deserializer)?;
        if (Self::LEAST..=Self::MOST).contains(&scale) {
            return Ok(Self(scale));
        }
        let range = format!("overlay.scale {scale} is not between {} and {}", Self::LEAST, Self::MOST);
        Err(serde::de::Error::custom(range))
    }
}

/// Boxes of frames between two that were analysed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Between {
    /// Those of the one before.
    #[default]
    Hold,
    /// On their way from the one before to the one behind. Live video waits for that one.
    Interpolate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default_and_is_left_out_again() {
        let plain: Outputs = serde_json::from_str(r#"{"video": false}"#).unwrap();
        assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"video":false}"#);
        let styled = r#"{"overlay": {"labels": false, "scale": 1.5, "between": "interpolate"}}"#;
        let styled: Outputs = serde_json::from_str(styled).unwrap();
        assert!(styled.video && styled.overlay.boxes && !styled.overlay.labels);
        let again: Outputs = serde_json::from_str(&serde_json::to_string(&styled).unwrap()).unwrap();
        assert_eq!(again, styled);
        let kept: Outputs = serde_json::from_str(r#"{"record": {"what": "untouched"}}"#).unwrap();
        assert_eq!(kept.record.unwrap().keep_days.span().as_secs(), 7 * 24 * 60 * 60);
        for bad in [
            r#"{"record": {"keep_days": 0}}"#,
            r#"{"record": {"keep_bytes": 0}}"#,
            r#"{"overlay": {"scale": 9}}"#,
            r#"{"overlay": {"colour": "red"}}"#,
        ] {
            assert!(serde_json::from_str::<Outputs>(bad).is_err(), "{bad}");
        }
    }
}
