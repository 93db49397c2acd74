//! A scenario's settings as they are documented and shown. They are parsed as the domain's own
//! [`Settings`](kadr_shared::settings::Settings); a test holds the two together.

use kadr_shared::settings::{self, RestartPolicy, Settings};
use poem_openapi::{Enum, Object};
use serde::Serialize;

use super::{
    source::Source,
    text::{FileFormat, Webhook},
};

/// What a scenario is told to do. Only `source` has to be given.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
#[oai(rename = "Settings")]
pub(crate) struct SettingsBody {
    source: Source,
    /// A model's name in the catalogue.
    #[oai(default = "default_model")]
    model: String,
    /// What becomes of frames before they are analysed.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    preprocess: Option<Preprocess>,
    #[oai(default)]
    analysis: Analysis,
    #[oai(default)]
    outputs: Outputs,
    #[oai(default)]
    restart: Restart,
}

/// What inference sees of frames. Live video and recordings show whole frames, whatever stands here.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
struct Preprocess {
    /// Only this part of the picture. Boxes are in the pixels of the whole picture nevertheless.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    crop: Option<Region>,
    /// At most so many frames a second are analysed.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "0.001"), maximum(value = "1000")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    fps: Option<f64>,
    /// Every n-th frame is analysed.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "1")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    every: Option<u32>,
    /// Without colours.
    #[oai(default, skip_serializing_if = "is_false")]
    #[serde(skip_serializing_if = "is_false")]
    grey: bool,
    /// Areas that are covered with grey: polygons of corners `[x, y]` in the source's own pixels.
    #[oai(default, skip_serializing_if_is_empty)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    masks: Vec<Vec<[u32; 2]>>,
}

/// A part of a picture, in the source's own pixels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Object)]
struct Region {
    left: u32,
    top: u32,
    #[oai(validator(minimum(value = "1")))]
    width: u32,
    #[oai(validator(minimum(value = "1")))]
    height: u32,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// How frames are analysed.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
struct Analysis {
    /// The model's input, width x height in multiples of 32, such as `640x384`; null: the source letterboxed into 640.
    input_size: Option<String>,
    /// Detections below it are left out.
    #[oai(default = "default_confidence", validator(minimum(value = "0"), maximum(value = "1")))]
    confidence: f64,
    /// Two boxes of one class that overlap more than this are one object.
    #[oai(default = "default_iou", validator(minimum(value = "0"), maximum(value = "1")))]
    iou: f64,
    /// Boxes of different classes that overlap so are one object, too: that of the surer.
    #[oai(default)]
    class_agnostic: bool,
    /// Labels to keep; empty: all.
    #[oai(default)]
    classes: Vec<String>,
}

/// What is made besides the stored detections.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
struct Outputs {
    /// An annotated MP4 of each run.
    #[oai(default = "default_video")]
    video: bool,
    /// How objects are marked.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    overlay: Option<Overlay>,
    /// A recording to go back to, of a camera: see `/v1/scenarios/{id}/clip`.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Record>,
    /// Files of each run's results, beside its video on the runner's disk.
    #[oai(default, skip_serializing_if_is_empty)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<FileFormat>,
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<Webhook>,
}

/// What is recorded, and for how long it is kept: the oldest goes first.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
struct Record {
    #[oai(default)]
    what: Recorded,
    #[oai(default = "seven", validator(minimum(value = "0.0007"), maximum(value = "3650")))]
    keep_days: f64,
    /// As much as there is room for, if it is left out.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "1")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum Recorded {
    /// With every object marked.
    #[default]
    Annotated,
    /// The camera's own video, as it came.
    Untouched,
}

const fn seven() -> f64 {
    7.0
}

/// What is drawn, in annotated files as in live video.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
struct Overlay {
    /// A box around each object.
    #[oai(default = "yes")]
    boxes: bool,
    /// Its class beside it.
    #[oai(default = "yes")]
    labels: bool,
    /// How sure it is, behind the class.
    #[oai(default = "yes")]
    confidence: bool,
    /// The scenario's name and the time, in a corner.
    #[oai(default = "yes")]
    caption: bool,
    /// Lines and letters, so many times as large as usual.
    #[oai(default = "usual_scale", validator(minimum(value = "0.25"), maximum(value = "4")))]
    scale: f32,
    /// What a frame shows that was not analysed itself.
    #[oai(default)]
    between: Between,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum Between {
    /// The boxes of the one before.
    #[default]
    Hold,
    /// Boxes on their way to the one behind, which live video waits for.
    Interpolate,
}

const fn yes() -> bool {
    true
}

const fn usual_scale() -> f32 {
    1.0
}

/// What happens when an attempt fails for a reason that may pass.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
struct Restart {
    #[oai(default = "default_policy")]
    policy: Policy,
    /// The most attempts that follow the first one within a run; for `on_failure` only.
    #[oai(default = "default_limit")]
    limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case", rename = "RestartPolicy")]
#[serde(rename_all = "snake_case")]
enum Policy {
    Never,
    OnFailure,
    Always,
}

impl From<&Settings> for SettingsBody {
    fn from(settings: &Settings) -> Self {
        let Settings { source, model, preprocess, analysis, outputs, restart } = settings;
        Self {
            source: source.into(),
            model: model.to_string(),
            preprocess: (*preprocess != settings::Preprocess::default()).then(|| preprocess.into()),
            analysis: analysis.into(),
            outputs: outputs.into(),
            restart: restart.into(),
        }
    }
}

impl From<&settings::Preprocess> for Preprocess {
    fn from(preprocess: &settings::Preprocess) -> Self {
        let settings::Preprocess { crop, fps, every, grey, masks } = preprocess;
        let region = |&settings::Region { left, top, width, height }: &settings::Region| Region {
            left,
            top,
            width: width.get(),
            height: height.get(),
        };
        Self {
            crop: crop.as_ref().map(region),
            fps: *fps,
            every: every.map(std::num::NonZeroU32::get),
            grey: *grey,
            masks: masks.clone(),
        }
    }
}

impl From<&settings::Analysis> for Analysis {
    fn from(analysis: &settings::Analysis) -> Self {
        let settings::Analysis { input_size, confidence, iou, class_agnostic, classes } = analysis;
        Self {
            input_size: input_size.map(|size| size.to_string()),
            confidence: confidence.get(),
            iou: iou.get(),
            class_agnostic: *class_agnostic,
            classes: classes.clone(),
        }
    }
}

impl From<&settings::Outputs> for Outputs {
    fn from(settings::Outputs { video, overlay, record, files, webhook }: &settings::Outputs) -> Self {
        let overlay = (*overlay != settings::Overlay::default()).then(|| overlay.into());
        Self {
            video: *video,
            overlay,
            record: record.as_ref().map(Into::into),
            files: files.iter().map(Into::into).collect(),
            webhook: webhook.as_ref().map(Into::into),
        }
    }
}

impl From<&settings::Record> for Record {
    fn from(settings::Record { what, keep_days, keep_bytes }: &settings::Record) -> Self {
        let what = match what {
            settings::Recorded::Annotated => Recorded::Annotated,
            settings::Recorded::Untouched => Recorded::Untouched,
        };
        Self { what, keep_days: keep_days.get(), keep_bytes: keep_bytes.map(std::num::NonZeroU64::get) }
    }
}

impl From<&settings::Overlay> for Overlay {
    fn from(overlay: &settings::Overlay) -> Self {
        let settings::Overlay { boxes, labels, confidence, caption, scale, between } = *overlay;
        let between = match between {
            settings::Between::Hold => Between::Hold,
            settings::Between::Interpolate => Between::Interpolate,
        };
        Self { boxes, labels, confidence, caption, scale: scale.get(), between }
    }
}

impl From<&settings::Restart> for Restart {
    fn from(settings::Restart { policy, limit }: &settings::Restart) -> Self {
        let policy = match policy {
            RestartPolicy::Never => Policy::Never,
            RestartPolicy::OnFailure => Policy::OnFailure,
            RestartPolicy::Always => Policy::Always,
        };
        Self { policy, limit: *limit }
    }
}

// The document's defaults are the domain's.

impl Default for Analysis {
    fn default() -> Self {
        (&settings::Analysis::default()).into()
    }
}

impl Default for Outputs {
    fn default() -> Self {
        (&settings::Outputs::default()).into()
    }
}

impl Default for Restart {
    fn default() -> Self {
        (&settings::Restart::default()).into()
    }
}

fn default_model() -> String {
    settings::DEFAULT_MODEL.to_owned()
}

fn default_confidence() -> f64 {
    Analysis::default().confidence
}

fn default_iou() -> f64 {
    Analysis::default().iou
}

fn default_video() -> bool {
    Outputs::default().video
}

fn default_policy() -> Policy {
    Restart::default().policy
}

fn default_limit() -> u32 {
    Restart::default().limit
}

#[cfg(test)]
mod tests {
    use poem_openapi::{registry::Registry, types::Type};
    use serde_json::Value;

    use super::*;

    const FULL: &str = r#"{"source": {"url": "onvif://cam", "username": "me", "transport": "udp", "tls": "any", "fps": 10.0,
        "size": "1280x720", "profile": "main", "quirks": ["wrong_times", "wrong_clock", "wrong_sequence", "foreign_reports",
            "stale_sessions"]}, "model": "yolov8s",
        "preprocess": {"crop": {"left": 0, "top": 2, "width": 64, "height": 32}, "fps": 5.0, "grey": true,
            "masks": [[[0, 0], [9, 0], [9, 9]]]},
        "analysis": {"input_size": "640x384", "confidence": 0.7, "iou": 0.1, "class_agnostic": true, "classes": ["car", "bus"]},
        "outputs": {"video": false, "overlay": {"boxes": true, "labels": false, "confidence": true, "caption": false,
            "scale": 2.0, "between": "interpolate"}, "record": {"what": "untouched", "keep_days": 0.5, "keep_bytes": 9},
            "files": ["csv"], "webhook": {"url": "http://b/", "classes": ["car"], "confidence": 0.5, "rate": 2.0}},
        "restart": {"policy": "always", "limit": 9}}"#;

    #[test]
    fn what_is_shown_is_what_the_domain_would_write() {
        let file = r#"{"source": {"url": "/stills/*.jpg", "fps": 12.5, "pace": "own", "loop": true}}"#;
        for json in [FULL, file, r#"{"source": {"url": "/data/a clip.mp4"}}"#] {
            let settings: Settings = serde_json::from_str(json).unwrap();
            let shown = serde_json::to_string(&SettingsBody::from(&settings)).unwrap();
            assert_eq!(shown, serde_json::to_string(&settings).unwrap(), "field by field, in order, without noise");
        }
    }

    #[test]
    fn what_is_documented_is_what_the_domain_takes() {
        let mut registry = Registry::new();
        SettingsBody::register(&mut registry);
        let full: Value = serde_json::from_str(FULL).unwrap();
        for (schema, part) in [
            ("Settings", "/"),
            ("Source", "/source"),
            ("Analysis", "/analysis"),
            ("Outputs", "/outputs"),
            ("Overlay", "/outputs/overlay"),
            ("Record", "/outputs/record"),
            ("Webhook", "/outputs/webhook"),
            ("Restart", "/restart"),
        ] {
            let documented: Vec<_> = registry.schemas[schema].properties.iter().map(|(name, _)| *name).collect();
            let mut fields: Vec<_> =
                full.pointer(part.trim_end_matches('/')).unwrap().as_object().unwrap().keys().collect();
            // A password and a signing secret are given, and go no further (`Given`); the rest is for files.
            let more = ["password", "pace", "loop"].map(str::to_owned);
            fields.extend(more.iter().filter(|_| schema == "Source"));
            let secret = "secret".to_owned();
            fields.extend((schema == "Webhook").then_some(&secret));
            fields.sort();
            let mut sorted = documented.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, fields, "{schema}");
        }
        assert_eq!(registry.schemas["Settings"].required, ["source"]);
    }
}
