//! Where frames come from: a video file or an image, opened by what it contains, not by what it is called, images in a
//! row, or a camera, or whoever sends images.
//!
//! A source gives whole frames in presentation order, numbered from 0 without holes. It knows no network, no model and
//! no scenario; waiting and dropping are the pipeline's business.

mod annexb;
mod coded;
mod error;
mod h264;
mod image;
mod images;
mod input;
mod live;
mod looped;
mod mkv;
mod mp4;
pub mod multipart;
mod onvif;
mod rtsp;
mod sniff;
mod stream;
mod turn;

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    num::NonZeroU32,
    path::Path,
};

use kadr_shared::{geometry::Size, message::frame::Colour, time::Timestamp};

pub use self::{
    error::SourceError,
    live::{Came, Live, Losses},
    rtsp::{Access, Deadlines, RtspSource, relay::framing},
    stream::{ImageStream, Published},
};
use self::{images::Images, looped::Looped, sniff::Kind};
use crate::picture::Picture;

/// Frames, one after another: what all sources have in common.
pub trait Source: Send {
    /// The next frame in presentation order; none after the last. Waits for it. Frames are numbered from 0 without holes; their
    /// times begin with 0 and do not go back.
    ///
    /// A damaged or cut file still gives every frame that can be decoded, and then one error that counts what is
    /// missing ([`SourceError::Truncated`], [`SourceError::Incomplete`]). After any error there are no more frames.
    /// A live source ([`Live`]) has no last frame: it ends with an error.
    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError>;
}

/// A file, or images in a row: it is there, and can be looked at before its first frame is wanted.
pub trait FileSource: Source {
    fn info(&self) -> &SourceInfo;
}

/// A picture as a camera coded it.
#[derive(Debug, Clone, PartialEq)]
pub struct Coded {
    /// When it is shown, in milliseconds after the first frame.
    pub pts_ms: f64,
    pub captured_at: Timestamp,
    /// Others can follow on it alone.
    pub key: bool,
    pub size: Size,
    /// NAL units, each behind its length in four bytes; a key frame's begins with its parameter sets.
    pub data: Vec<u8>,
}

/// What is known of a source before its first frame.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceInfo {
    /// The size of every frame; of a camera, and of images in a row, that of the first one.
    pub size: Size,
    /// The mean rate; frames need not be evenly spaced.
    pub frame_rate: FrameRate,
    /// Ticks a second in which the source's own timestamps are whole numbers.
    pub timescale: NonZeroU32,
    /// How many frames the source says it has.
    pub frames: Option<u64>,
    /// How all frames are to be read as RGB.
    pub colour: Colour,
}

/// Frames a second as a fraction in lowest terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    pub numerator: NonZeroU32,
    pub denominator: NonZeroU32,
}

/// A decoded frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Counts from 0 without holes.
    pub number: u64,
    /// When it is shown, in milliseconds after the first frame.
    pub pts_ms: f64,
    /// When it was taken, if the source tells.
    pub captured_at: Option<Timestamp>,
    pub picture: Picture,
}

impl FrameRate {
    /// What a source without timing is taken to have.
    pub const DEFAULT: Self = Self { numerator: NonZeroU32::MIN.saturating_add(24), denominator: NonZeroU32::MIN };

    /// `frames` frames in `ticks` ticks of which a second has `timescale`; none if either is 0.
    fn mean(frames: u64, ticks: u64, timescale: NonZeroU32) -> Option<Self> {
        let (mut above, mut below) = (u128::from(frames) * u128::from(timescale.get()), u128::from(ticks));
        let divisor = gcd(above, below);
        if divisor == 0 {
            return None;
        }
        (above, below) = (above / divisor, below / divisor);
        // Uneven timing can leave a fraction that needs more than 32 bits; its last bits say nothing.
        while above > u128::from(u32::MAX) || below > u128::from(u32::MAX) {
            (above, below) = (above / 2, below / 2);
        }
        let part = |n: u128| u32::try_from(n).ok().and_then(NonZeroU32::new);
        Some(Self { numerator: part(above)?, denominator: part(below)? })
    }

    /// So many frames a second; 1 for 0.
    const fn whole(frames: u32) -> Self {
        let numerator = match NonZeroU32::new(frames) {
            Some(frames) => frames,
            None => NonZeroU32::MIN,
        };
        Self { numerator, denominator: NonZeroU32::MIN }
    }

    /// The fraction that is as good as `hz`, which is from 0.001 to some thousands.
    pub fn of(hz: f64) -> Option<Self> {
        let millis = hz * 1000.0;
        (1.0..1e9).contains(&millis).then(|| Self::mean(millis.round() as u64, 1_000, NonZeroU32::MIN))?
    }

    /// Frames a second.
    pub fn hz(self) -> f64 {
        f64::from(self.numerator.get()) / f64::from(self.denominator.get())
    }
}

const fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// How a file is played.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Play {
    /// Frames a second of what has no times of its own; refused for what has.
    pub rate: Option<FrameRate>,
    /// Starts over at its end, for ever, beginning with the frame of this number.
    pub looped_from: Option<u64>,
}

/// Opens a file.
pub fn open(path: &Path) -> Result<Box<dyn FileSource>, SourceError> {
    play(path, Play::default())
}

/// Opens a file, a folder of images, or the images that a pattern names.
pub fn play(path: &Path, play: Play) -> Result<Box<dyn FileSource>, SourceError> {
    let rate = play.rate;
    let Some(from) = play.looped_from else { return once(path, rate) };
    let path = path.to_owned();
    Ok(Box::new(Looped::open(Box::new(move || once(&path, rate)), from)?))
}

fn once(path: &Path, rate: Option<FrameRate>) -> Result<Box<dyn FileSource>, SourceError> {
    // A file's own name may look like a pattern.
    let images = match fs::metadata(path) {
        Ok(found) if found.is_dir() => images::in_folder(path)?,
        Err(_) if images::is_pattern(path) => images::matching(path)?,
        _ => return read_at(open_file(path)?, rate),
    };
    Ok(Box::new(Images::open(images, rate)?))
}

/// Opens a source from its bytes: H.264 in MP4 or Matroska or without a container, a JPEG or a PNG. Only what is needed is
/// read, as it is needed.
pub fn read<R: Read + Seek + Send + 'static>(reader: R) -> Result<Box<dyn FileSource>, SourceError> {
    read_at(reader, None)
}

fn read_at<R: Read + Seek + Send + 'static>(
    mut reader: R,
    rate: Option<FrameRate>,
) -> Result<Box<dyn FileSource>, SourceError> {
    let kind = sniff::kind(&mut reader)?;
    match (kind, rate) {
        (Kind::Mp4 | Kind::Matroska, Some(rate)) => Err(SourceError::OwnTimes { given: rate.hz() }),
        (Kind::Mp4, None) => Ok(Box::new(mp4::open(reader)?)),
        (Kind::Matroska, None) => Ok(Box::new(mkv::open(reader)?)),
        (Kind::AnnexB, rate) => Ok(Box::new(annexb::open(reader, rate)?)),
        (Kind::Image(format), rate) => Ok(Box::new(image::ImageSource::open(reader, format, rate)?)),
    }
}

fn open_file(path: &Path) -> Result<File, SourceError> {
    // Asked before opening: opening a named pipe would wait for its writer.
    if !fs::metadata(path).map_err(|error| explain(path, error))?.is_file() {
        return Err(SourceError::NotAFile { path: path.to_owned() });
    }
    File::open(path).map_err(|error| explain(path, error))
}

/// Why a path can't be opened.
fn explain(path: &Path, source: io::Error) -> SourceError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => SourceError::NotFound { path },
        io::ErrorKind::PermissionDenied => SourceError::Denied { path },
        _ => SourceError::Open { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(frames: u64, ticks: u64, timescale: u32) -> Option<(u32, u32)> {
        FrameRate::mean(frames, ticks, NonZeroU32::new(timescale).unwrap())
            .map(|r| (r.numerator.get(), r.denominator.get()))
    }

    #[test]
    fn rates_are_exact_fractions() {
        assert_eq!(rate(250, 250 * 1001, 30_000), Some((30_000, 1001)));
        assert_eq!(rate(10, 5120, 12_800), Some((25, 1)));
        assert_eq!(rate(0, 1, 25), None);
        assert_eq!(rate(1, 0, 25), None);
        assert_eq!(FrameRate::DEFAULT.hz(), 25.0);
    }

    #[test]
    fn rates_beyond_32_bits_stay_close() {
        let frames = 1_000_003;
        let (above, below) = rate(frames, 600_000_011_003, 15_000_017).unwrap();
        let exact = frames as f64 * 15_000_017.0 / 600_000_011_003.0;
        assert!((f64::from(above) / f64::from(below) - exact).abs() < 1e-6);
    }
}
