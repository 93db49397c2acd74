//! Recording: pictures in, a finished MP4 out.
//!
//! The file has the source's size (that of its first picture), rate, timestamps and number of frames, plays in browsers (H.264 Baseline, 4:2:0)
//! and begins with its index wherever the source's number of frames is known. It is written beside its name and
//! renamed when it is complete: a file that is called `.mp4` can be played. There is no sound.

pub(crate) mod encoder;
mod file;
mod fit;

use std::{
    io,
    path::{Path, PathBuf},
};

use kadr_shared::geometry::Size;

use self::{encoder::Encoder, file::Mp4File, fit::Fitter};
use crate::{picture::Picture, source::SourceInfo};

/// Seconds between key frames: how far a player is from one when somebody jumps.
const KEY_FRAME_INTERVAL: f64 = 2.0;

/// A recording that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the recording {} can't be written: is there room, and may the runner write there?", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "a video of {size} can't be encoded: the encoder takes 16x16 to 3840x2160 (or upright); \
         turn the scenario's video output off, or scale the source"
    )]
    OutOfRange { size: Size },
    #[error("frame {frame}, {found} large, can't be scaled to the recording's {wanted}")]
    Size { frame: u64, wanted: Size, found: Size },
    #[error("frame {frame} is at {pts_ms} ms, which is before the frame that precedes it or no time at all")]
    Time { frame: u64, pts_ms: f64 },
    #[error("the encoder can't be started for {size}")]
    Start { size: Size, source: openh264::Error },
    #[error("frame {frame} could not be encoded")]
    Encode { frame: u64, source: openh264::Error },
    #[error("the encoder left out frame {frame}")]
    Dropped { frame: u64 },
    #[error("the recording has no frame")]
    Empty,
    #[error("the recording's index can't be made")]
    Index(#[from] shiguredo_mp4::mux::MuxError),
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub path: PathBuf,
    pub frames: u64,
    /// The file's length.
    pub bytes: u64,
    /// From the first frame to the end of the last one.
    pub duration_ms: f64,
}

/// Records one video. Dropped before it is finished, it leaves nothing behind.
pub struct Recorder {
    encoder: Encoder,
    file: Mp4File,
    size: Size,
    fitter: Fitter,
    /// Ticks a second.
    timescale: f64,
    /// How long the last frame is shown, in ticks; the source does not say.
    last_duration: u64,
    frames: u64,
    last_tick: Option<u64>,
}

impl Recorder {
    /// Begins a recording of `source` that will lie at `path`; replaces a file there when it is finished.
    pub fn create(path: &Path, source: &SourceInfo) -> Result<Self, RecordError> {
        let encoder = Encoder::new(source, KEY_FRAME_INTERVAL)?;
        let timescale = f64::from(source.timescale.get());
        Ok(Self {
            encoder,
            file: Mp4File::create(path, source.timescale, source.frames)?,
            size: source.size,
            fitter: Fitter::default(),
            timescale,
            last_duration: (timescale / source.frame_rate.hz()).round().max(1.0) as u64,
            frames: 0,
            last_tick: None,
        })
    }

    /// Appends a picture that is shown `pts_ms` milliseconds after the first; times never go back. One of another size than
    /// the source's is scaled.
    pub fn push(&mut self, picture: &Picture, pts_ms: f64) -> Result<(), RecordError> {
        let frame = self.frames;
        let fitted;
        let picture = if picture.size() == self.size {
            picture
        } else {
            let (wanted, found) = (self.size, picture.size());
            fitted = self.fitter.fit(picture, wanted).ok_or(RecordError::Size { frame, wanted, found })?;
            &fitted
        };
        let exact = pts_ms * self.timescale / 1000.0;
        // Exact in a float; a recording of that many ticks lasts for centuries.
        const LAST_TICK: f64 = 9e15;
        let mut tick = exact.round() as u64;
        if !(0.0..LAST_TICK).contains(&exact.round()) || self.last_tick.is_some_and(|last| tick < last) {
            return Err(RecordError::Time { frame, pts_ms });
        }
        if let Some(last) = self.last_tick {
            // Two frames of one time: a player would leave one out.
            tick = tick.max(last + 1);
            self.file.close_sample(tick - last)?;
        }
        let coded = self.encoder.encode(picture, frame, pts_ms)?;
        self.file.write_sample(coded)?;
        self.last_tick = Some(tick);
        self.frames += 1;
        Ok(())
    }

    /// Completes the file and gives it its name.
    pub fn finish(mut self) -> Result<Recorded, RecordError> {
        let last = self.last_tick.ok_or(RecordError::Empty)?;
        self.file.close_sample(self.last_duration)?;
        let (path, bytes) = self.file.finish()?;
        let duration_ms = (last + self.last_duration) as f64 * 1000.0 / self.timescale;
        Ok(Recorded { path, frames: self.frames, bytes, duration_ms })
    }
}
