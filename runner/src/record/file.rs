//! The MP4 file of a recording: written as a part, named when it is whole.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use kadr_shared::mp4;
use shiguredo_mp4::{
    TrackKind,
    boxes::SampleEntry,
    mux::{Mp4FileMuxer, Mp4FileMuxerOptions, Sample, estimate_maximum_moov_box_size},
};

use super::{RecordError, encoder::Coded};

/// Reserving room for an index of more frames than this would waste more than it helps: 2 million are 22 hours.
const MAX_RESERVED_FRAMES: u64 = 2_000_000;

/// A file that is being written.
pub(super) struct Mp4File {
    /// Its name when it is whole.
    path: PathBuf,
    writer: BufWriter<File>,
    muxer: Mp4FileMuxer,
    timescale: NonZeroU32,
    /// Where the next sample begins.
    position: u64,
    /// Written, but how long it is shown is not known before the next one comes.
    open: Option<Sample>,
    entry: Option<SampleEntry>,
    /// Last, so that the file is closed before it is removed.
    part: Part,
}

/// Removes the unfinished file if it is still there.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // After the renaming there is none, and nobody could act on another error.
        let _ = fs::remove_file(&self.0);
    }
}

impl Mp4File {
    /// Begins a file that will lie at `path`. With the number of frames, its index comes first.
    pub(super) fn create(path: &Path, timescale: NonZeroU32, frames: Option<u64>) -> Result<Self, RecordError> {
        let part = Part(path.with_added_extension("part"));
        let mut options = Mp4FileMuxerOptions::default();
        if let Some(frames) = frames.filter(|&n| n <= MAX_RESERVED_FRAMES) {
            options.reserved_moov_box_size =
                estimate_maximum_moov_box_size(&[usize::try_from(frames).unwrap_or_default()]);
        }
        let muxer = Mp4FileMuxer::with_options(options)?;
        let begin = || {
            let mut writer = BufWriter::new(File::create(&part.0)?);
            writer.write_all(muxer.initial_boxes_bytes())?;
            Ok(writer)
        };
        let writer = begin().map_err(|source| RecordError::Write { path: part.0.clone(), source })?;
        let position = muxer.initial_boxes_bytes().len() as u64;
        Ok(Self { path: path.to_owned(), part, writer, muxer, timescale, position, open: None, entry: None })
    }

    /// Writes a coded picture; [`Self::close_sample`] says later how long it is shown.
    pub(super) fn write_sample(&mut self, coded: &Coded) -> Result<(), RecordError> {
        // Only where the picture brings its parameter sets.
        let entry = mp4::avc1(&coded.sps, &coded.pps, coded.size);
        // Given only where it changes: each time it is given, the muxer compares.
        let changed = entry.is_some() && entry != self.entry;
        self.writer.write_all(&coded.data).map_err(|source| self.failed(source))?;
        self.open = Some(Sample {
            track_kind: TrackKind::Video,
            sample_entry: if changed { entry.clone() } else { None },
            keyframe: coded.key_frame,
            timescale: self.timescale,
            duration: 0,
            composition_time_offset: None,
            data_offset: self.position,
            data_size: coded.data.len(),
        });
        if changed {
            self.entry = entry;
        }
        self.position += coded.data.len() as u64;
        Ok(())
    }

    /// Says how many ticks the last picture is shown.
    pub(super) fn close_sample(&mut self, ticks: u64) -> Result<(), RecordError> {
        if let Some(mut sample) = self.open.take() {
            // A pause of more than 32 bits of ticks is shortened to that.
            sample.duration = u32::try_from(ticks).unwrap_or(u32::MAX);
            self.muxer.append_sample(&sample)?;
        }
        Ok(())
    }

    /// Writes the index and gives the file its name. Gives that and the file's length.
    pub(super) fn finish(mut self) -> Result<(PathBuf, u64), RecordError> {
        let boxes: Vec<(u64, Vec<u8>)> =
            self.muxer.finalize()?.offset_and_bytes_pairs().map(|(at, bytes)| (at, bytes.to_vec())).collect();
        let mut complete = || {
            for (at, bytes) in &boxes {
                self.writer.seek(SeekFrom::Start(*at))?;
                self.writer.write_all(bytes)?;
            }
            self.writer.flush()?;
            let file = self.writer.get_ref();
            let length = file.metadata()?.len();
            fs::rename(&self.part.0, &self.path)?;
            Ok(length)
        };
        let length = complete().map_err(|source| self.failed(source))?;
        Ok((self.path, length))
    }

    fn failed(&self, source: io::Error) -> RecordError {
        RecordError::Write { path: self.part.0.clone(), source }
    }
}
