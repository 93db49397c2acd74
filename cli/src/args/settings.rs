//! The flags that make up a scenario's settings.

use std::{num::NonZeroU32, path::PathBuf};

use clap::{Args, ValueEnum};
use kadr_shared::{
    filter::Rate,
    geometry::{InputSize, Size},
    id::ModelName,
    settings::{DEFAULT_MODEL, Fps, Quirk, Ratio},
};

/// How frames are analysed.
#[derive(Debug, Clone, Args)]
pub struct AnalysisArgs {
    /// The model
    #[arg(long, default_value = DEFAULT_MODEL)]
    pub model: ModelName,
    /// Leave out detections of less confidence
    #[arg(long, default_value = "0.25")]
    pub confidence: Ratio,
    /// Boxes of a class that overlap more are one object
    #[arg(long, default_value = "0.7")]
    pub iou: Ratio,
    /// Boxes of different classes that overlap so are one object, too
    #[arg(long)]
    pub class_agnostic: bool,
    /// Classes to look for, separated by commas (car,bus); all if not given
    #[arg(long, value_delimiter = ',')]
    pub classes: Vec<String>,
    /// The model's input, width x height, multiples of 32; by default the source letterboxed into 640
    #[arg(long, value_name = "WxH")]
    pub input_size: Option<InputSize>,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    /// Make no annotated video
    #[arg(long)]
    pub no_video: bool,
}

/// What inference sees of frames.
#[derive(Debug, Clone, Args)]
pub struct PreprocessArgs {
    /// Analyse at most so many frames a second
    #[arg(long, value_name = "N", conflicts_with = "every")]
    pub analysis_fps: Option<f64>,
    /// Analyse every n-th frame
    #[arg(long, value_name = "N")]
    pub every: Option<NonZeroU32>,
    /// Analyse only this part of the picture: LEFT,TOP,WIDTH,HEIGHT in its pixels
    #[arg(long, value_name = "REGION", value_delimiter = ',', num_args = 1)]
    pub crop: Vec<u32>,
    /// Analyse without colours
    #[arg(long)]
    pub grey: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordArg {
    /// With every object marked
    Annotated,
    /// The camera's own video, as it comes
    Untouched,
}

/// Where the video comes from.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// The source: a path on the runner's machine (a video, an image, a folder of images, or a pattern such as
    /// '/data/*.jpg'), a camera's address (rtsp://host:port/path or rtsps://…, onvif://host, http://host:port/path), push: for images that are sent to
    /// the API, or nats:SUBJECT for those that are published there
    #[arg(long)]
    pub source: String,
    /// The camera's user
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// A file that holds the camera's password in its first line; `-`: the standard input
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// How the camera's packets come [default: tcp]
    #[arg(long, value_enum)]
    pub transport: Option<TransportArg>,
    /// Whom to trust as a camera by rtsps:// [default: verify]
    #[arg(long, value_enum)]
    pub tls: Option<TlsArg>,
    /// Images a second [default: 1], or the frames of H.264 without a container; of an ONVIF device the stream whose frames
    /// a second come nearest
    #[arg(long)]
    pub fps: Option<Fps>,
    /// When a file's frames are read: as soon as they can be analysed, or at their own times [default: full]
    #[arg(long, value_enum)]
    pub pace: Option<PaceArg>,
    /// A file that starts over at its end, until it is stopped
    #[arg(long = "loop")]
    pub looped: bool,
    /// Of an ONVIF device: the stream whose size comes nearest [default: the largest]
    #[arg(long, value_name = "WxH")]
    pub size: Option<Size>,
    /// Of an ONVIF device: this profile and no other, by its token or name
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// What is known to be wrong with a camera by RTSP, separated by commas: wrong-times, wrong-clock, wrong-sequence,
    /// foreign-reports, stale-sessions, no-teardown
    #[arg(long, value_name = "QUIRKS", value_delimiter = ',')]
    pub quirks: Vec<Quirk>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PaceArg {
    Full,
    Own,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TransportArg {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TlsArg {
    /// Whose certificate is signed by an authority that the runner's machine knows
    Verify,
    /// Whoever answers: most cameras have signed theirs themselves
    Any,
}

/// What is made of results besides storing them and the video.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Files of each run's results, beside its video on the runner's disk, separated by commas
    #[arg(long, value_name = "FORMATS", value_enum, value_delimiter = ',')]
    pub files: Vec<TextFormatArg>,
    /// Record a camera, to go back to (see /v1/scenarios/ID/clip)
    #[arg(long, value_enum)]
    pub record: Option<RecordArg>,
    /// How many days of it are kept [default: 7]
    #[arg(long, value_name = "DAYS", requires = "record")]
    pub keep_days: Option<f64>,
    /// An http:// or https:// address that results are posted to
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,
    /// A file that holds in its first line what the webhook's requests are signed with; `-`: the standard input
    #[arg(long, value_name = "FILE", requires = "webhook")]
    pub webhook_secret_file: Option<PathBuf>,
    /// Classes that the webhook is told of, separated by commas; all if not given
    #[arg(long, value_name = "CLASSES", requires = "webhook", value_delimiter = ',')]
    pub webhook_classes: Vec<String>,
    /// Tell the webhook of no detections of less confidence
    #[arg(long, value_name = "CONFIDENCE", requires = "webhook")]
    pub webhook_confidence: Option<Ratio>,
    /// The most results a second that the webhook is told of
    #[arg(long, value_name = "RATE", requires = "webhook")]
    pub webhook_rate: Option<Rate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextFormatArg {
    /// A line a frame
    Jsonl,
    /// A line a detection
    Csv,
}
