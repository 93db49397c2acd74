//! Images in a row: a folder's, or those that a pattern names, as the frames of a video.
//!
//! They may differ in size. One that can't be read is left out, so that numbers have no holes while times keep its place,
//! and is told of at the end; only when there is not a single one that can be read, there is no source.

mod find;
mod order;

use std::path::{Path, PathBuf};

use kadr_shared::telemetry::chain;
use tracing::warn;

pub(super) use self::find::{in_folder, is_pattern, matching};
use super::{
    FileSource, Frame, FrameRate, Source, SourceError, SourceInfo, image, open_file,
    sniff::{self, Kind},
};
use crate::picture::Picture;

/// Images a second where the settings don't say: long enough to look at each in the annotated video.
const RATE: FrameRate = FrameRate::whole(1);

/// Images in a row.
pub(super) struct Images {
    paths: Vec<PathBuf>,
    info: SourceInfo,
    /// The first picture, until it is given.
    first: Option<Picture>,
    /// Of `paths`: those before it are done with.
    next: usize,
    given: u64,
    unreadable: u64,
    /// The first one of them, and why.
    why: Option<(PathBuf, SourceError)>,
}

impl Images {
    /// Looks for the first one that can be read.
    pub(super) fn open(paths: Vec<PathBuf>, rate: Option<FrameRate>) -> Result<Self, SourceError> {
        let frame_rate = rate.unwrap_or(RATE);
        let (mut unreadable, mut why) = (0, None);
        let found = paths.iter().enumerate().find_map(|(at, path)| match read(path) {
            Ok(picture) => Some((at, picture)),
            Err(error) => {
                leave_out(path, error, &mut unreadable, &mut why);
                None
            }
        });
        let Some((next, picture)) = found else { return Err(verdict(unreadable, paths.len(), why)) };
        let info = SourceInfo {
            size: picture.size(),
            frame_rate,
            timescale: frame_rate.numerator,
            frames: Some(paths.len() as u64),
            colour: picture.colour(),
        };
        Ok(Self { paths, info, first: Some(picture), next, given: 0, unreadable, why })
    }
}

impl FileSource for Images {
    fn info(&self) -> &SourceInfo {
        &self.info
    }
}

impl Source for Images {
    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        while let Some(path) = self.paths.get(self.next) {
            let at = self.next;
            self.next += 1;
            let picture = match self.first.take().map_or_else(|| read(path), Ok) {
                Ok(picture) => picture,
                Err(error) => {
                    leave_out(path, error, &mut self.unreadable, &mut self.why);
                    continue;
                }
            };
            let number = self.given;
            self.given += 1;
            let pts_ms = at as f64 * 1000.0 / self.info.frame_rate.hz();
            return Ok(Some(Frame { number, pts_ms, captured_at: None, picture }));
        }
        match self.why.take() {
            None => Ok(None),
            why => Err(verdict(self.unreadable, self.paths.len(), why)),
        }
    }
}

fn read(path: &Path) -> Result<Picture, SourceError> {
    let mut file = open_file(path)?;
    match sniff::kind(&mut file)? {
        Kind::Image(format) => image::decode(file, format),
        Kind::Mp4 | Kind::Matroska | Kind::AnnexB => Err(SourceError::NotAnImage { found: "a video" }),
    }
}

fn leave_out(path: &Path, error: SourceError, unreadable: &mut u64, why: &mut Option<(PathBuf, SourceError)>) {
    warn!(path = %path.display(), error = chain(&error), "an image can't be read and is left out");
    *unreadable += 1;
    why.get_or_insert_with(|| (path.to_owned(), error));
}

fn verdict(unreadable: u64, of: usize, why: Option<(PathBuf, SourceError)>) -> SourceError {
    match why {
        Some((first, source)) => SourceError::Unreadable { unreadable, of: of as u64, first, source: Box::new(source) },
        None => SourceError::NoFrames,
    }
}
