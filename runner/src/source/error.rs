//! Why a source can't be read, and what its owner can do about it.

use std::{io, path::PathBuf, time::Duration};

use kadr_shared::geometry::Size;

/// A source that can't be opened, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("there is no file {}: give a path that exists on the runner's machine", path.display())]
    NotFound { path: PathBuf },
    #[error("reading {} is not permitted: let the user that the runner runs as read it", path.display())]
    Denied { path: PathBuf },
    #[error("{} is a pipe or a device: give a file, or a folder of images", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} can't be opened", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("reading the file at byte {position} failed")]
    Read { position: u64, source: io::Error },

    #[error("this is {found}, which kadr can't read: give H.264 in MP4 or MKV, a JPEG or a PNG{}", hint(convert))]
    NotAVideo { found: &'static str, convert: Option<&'static str> },
    #[error(
        "the file is not complete: its index (moov) is missing, so that not one frame can be found; \
         the recording or the copying did not finish, make it again"
    )]
    NoIndex,
    #[error("the file is damaged: {what}{}", at(*position))]
    Malformed {
        what: String,
        /// The byte where that stands, if it is one place.
        position: Option<u64>,
    },
    #[error("the file has no video track")]
    NoVideoTrack,
    #[error("the file has a video track without a single frame")]
    NoFrames,
    #[error("the video is {found}, kadr decodes H.264 only: convert it with {REENCODE}")]
    Codec { found: String },
    #[error("the video is encrypted: give it without DRM")]
    Encrypted,
    #[error("the file's frames are compressed once more, which kadr can't undo: write it anew with {convert}")]
    Packed { convert: &'static str },
    #[error("source.fps is {given}, but the video has times of its own: leave it out")]
    OwnTimes { given: f64 },
    #[error("{found} can't be decoded, only progressive 8-bit 4:2:0 can: convert it with {convert}")]
    Unsupported { found: String, convert: &'static str },
    #[error("{size} is too large: {limit}")]
    TooLarge { size: Size, limit: &'static str },

    #[error(
        "the picture's size changes from {from} to {to} after {frames} frames: a scenario analyses one size, \
         convert the video with {REENCODE}"
    )]
    SizeChanged { from: Size, to: Size, frames: u64 },
    #[error("the file is cut off: {decoded} of the {expected} frames that are listed in it could be read")]
    Truncated {
        decoded: u64,
        /// All that are listed; a fragmented file lists each fragment's by itself, so that there may have been more.
        expected: u64,
    },
    #[error("the video is damaged: {decoded} of its {expected} frames could be decoded")]
    Incomplete { decoded: u64, expected: u64 },

    #[error("{status}: {what}")]
    Refused { status: u16, what: String },
    #[error("the camera did not {what} within {} s", after.as_secs_f64())]
    Silent { what: &'static str, after: Duration },
    #[error("{what}")]
    Session { what: String },
    #[error("the images that come can't be read")]
    NoImage { source: Box<SourceError> },
    #[error("the camera ended the stream")]
    Gone,
    #[error(
        "the camera sends {found}, kadr decodes H.264 only: choose H.264 in the camera's settings, or another stream"
    )]
    CameraCodec { found: String },
    #[error("{what}")]
    NoStream { what: String },
    #[error("the camera sends no video but {found}: check the address")]
    NoVideo { found: String },
    #[error("told to stop")]
    Stopped,

    #[error(
        "there is no JPEG or PNG in the folder {}: give one with images (its subfolders are not looked into), or a file",
        path.display()
    )]
    NoImages { path: PathBuf },
    #[error(
        "no file matches {pattern}: give a pattern, such as /data/*.jpg, that names images on the runner's machine"
    )]
    NoMatch { pattern: String },
    #[error("{pattern} is no pattern: {what}; it takes *, ?, [a-z] and **")]
    Pattern { pattern: String, what: &'static str },
    #[error("{path} holds more than {most} images: analyse them in parts")]
    TooMany { path: String, most: usize },
    #[error("{found} can't be one of a row of images: give JPEG and PNG only")]
    NotAnImage { found: &'static str },
    #[error("{unreadable} of the {of} images could not be read, first of all {}", first.display())]
    Unreadable { unreadable: u64, of: u64, first: PathBuf, source: Box<SourceError> },

    #[error("the H.264 decoder can't be started")]
    Decoder { source: openh264::Error },
    #[error("the image is damaged or of a kind that can't be read")]
    Image { source: image::ImageError },
}

/// The command that makes what kadr reads of nearly everything.
pub(super) const REENCODE: &str = "ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4";
/// The same for fields instead of frames.
pub(super) const DEINTERLACE: &str = "ffmpeg -i IN -vf bwdif -c:v libx264 -pix_fmt yuv420p OUT.mp4";
/// For a file whose stream fits and whose container does not.
pub(super) const REMUX: &str = "ffmpeg -i IN -c copy OUT.mp4";

fn at(position: Option<u64>) -> String {
    position.map(|byte| format!(" (at byte {byte})")).unwrap_or_default()
}

fn hint(convert: &Option<&'static str>) -> String {
    convert.map(|command| format!(" (made by {command})")).unwrap_or_default()
}
