//! H.264 without a container (ITU-T H.264, annex B): NAL units, each behind a start code.
//!
//! It has no list of frames and no times: frames are counted as they come, at the rate that the settings or the stream
//! itself give, or 25 a second. What stands before the first sequence parameter set is left out.

use std::io::{self, Read, Seek, SeekFrom};

use super::{
    FrameRate, SourceError, SourceInfo,
    coded::{Demux, Fed, SAMPLE_LIMIT, Video},
    h264::{
        self, Decoder,
        sps::{self, Stream},
    },
    turn::Turn,
};

/// Read at a time.
const CHUNK: usize = 64 << 10;
/// A stream whose first parameter set is further away is none.
const SEARCH_LIMIT: u64 = 32 << 20;
const UNIT_LIMIT: usize = SAMPLE_LIMIT as usize;

/// A bare stream.
pub(super) struct AnnexB<R> {
    units: Units<R>,
    /// A picture's time, in ticks.
    step: i64,
    pictures: i64,
}

/// Opens a bare stream; `rate` counts before what the stream says.
pub(super) fn open<R: Read + Seek + Send>(
    mut reader: R,
    rate: Option<FrameRate>,
) -> Result<Video<AnnexB<R>>, SourceError> {
    reader.seek(SeekFrom::Start(0)).map_err(|source| SourceError::Read { position: 0, source })?;
    let mut units = Units::new(reader);
    let first = loop {
        let unit = if units.position > SEARCH_LIMIT { None } else { units.next()? };
        let none = || SourceError::Malformed { what: "its H.264 has no sequence parameter set".into(), position: None };
        let unit = unit.ok_or_else(none)?;
        if h264::is_sps(unit) {
            break unit.to_vec();
        }
    };
    let stream = Stream::of(&first, None)?;
    let frame_rate = rate.or_else(|| sps::rate(&first)).unwrap_or(FrameRate::DEFAULT);
    let info = SourceInfo {
        size: stream.size,
        frame_rate,
        timescale: frame_rate.numerator,
        frames: None,
        colour: stream.colour,
    };
    let demux = AnnexB { units, step: i64::from(frame_rate.denominator.get()), pictures: 0 };
    Video::new(demux, stream, info, Turn::None, &[first])
}

impl<R: Read + Send> Demux for AnnexB<R> {
    fn feed(&mut self, decoder: &mut Decoder) -> Result<Fed, SourceError> {
        let Some(unit) = self.units.next()? else { return Ok(Fed::End) };
        let taken = decoder.unit(unit)?;
        if !h264::begins_picture(unit) {
            return Ok(Fed::Other);
        }
        let pts = self.pictures.saturating_mul(self.step);
        self.pictures += 1;
        Ok(if taken == Some(true) { Fed::Picture(pts) } else { Fed::Other })
    }

    fn expected(&self) -> u64 {
        self.pictures.unsigned_abs()
    }
}

/// Cuts a stream into NAL units.
struct Units<R> {
    reader: R,
    chunk: Vec<u8>,
    buffer: Vec<u8>,
    /// Where in the buffer the next unit begins, or something before its start code.
    begin: usize,
    /// How many bytes were read.
    position: u64,
    over: bool,
}

impl<R: Read> Units<R> {
    fn new(reader: R) -> Self {
        Self { reader, chunk: vec![0; CHUNK], buffer: Vec::new(), begin: 0, position: 0, over: false }
    }

    /// The next unit, without its start code and the zero bytes around it. None: the stream is over.
    fn next(&mut self) -> Result<Option<&[u8]>, SourceError> {
        loop {
            // What was given, or was nothing, is not needed any more.
            if self.begin > CHUNK {
                self.buffer.drain(..self.begin);
                self.begin = 0;
            }
            let Some(start) = self.find(self.begin)? else { return Ok(None) };
            let end = self.find(start + 3)?.unwrap_or(self.buffer.len());
            // A unit of nothing but zeros is none.
            let unit = self.buffer.get(start + 3..end).unwrap_or_default();
            let length = unit.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            self.begin = end;
            if length > 0 {
                return Ok(self.buffer.get(start + 3..start + 3 + length));
            }
        }
    }

    /// Where the next start code is, from `from` on; reads as far as it has to.
    fn find(&mut self, mut from: usize) -> Result<Option<usize>, SourceError> {
        loop {
            if let Some(found) = start_code(self.buffer.get(from..).unwrap_or_default()) {
                return Ok(Some(from + found));
            }
            if self.over {
                return Ok(None);
            }
            // A start code may lie across.
            from = from.max(self.buffer.len().saturating_sub(2));
            if self.buffer.len() - self.begin.min(self.buffer.len()) > UNIT_LIMIT {
                let what = "a part of its H.264 is longer than 32 MB".into();
                return Err(SourceError::Malformed { what, position: Some(self.position) });
            }
            let read = match self.reader.read(&mut self.chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(|source| SourceError::Read { position: self.position, source })?,
            };
            self.buffer.extend_from_slice(self.chunk.get(..read).unwrap_or_default());
            self.position += read as u64;
            self.over = read == 0;
        }
    }
}

/// Where the first three bytes 0, 0, 1 are.
fn start_code(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match data.get(at..)?.first_chunk()? {
            [0, 0, 1] => return Some(at),
            [_, _, last] if *last > 1 => at += 3,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn units(stream: &[u8]) -> Vec<Vec<u8>> {
        /// A byte at a time: every border is met.
        struct Slow<'a>(Cursor<&'a [u8]>);
        impl Read for Slow<'_> {
            fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
                let length = to.len().min(1);
                self.0.read(&mut to[..length])
            }
        }
        let mut units = Units::new(Slow(Cursor::new(stream)));
        let mut all = Vec::new();
        while let Some(unit) = units.next().unwrap() {
            all.push(unit.to_vec());
        }
        all
    }

    #[test]
    fn units_lie_between_start_codes() {
        let stream = b"junk\0\0\x01\x67ab\0\0\0\x01\x68\0\x03c\0\0\0\0\0\x01\0\0\0\x01\x65\0\0\x03\x01d\0\0";
        assert_eq!(units(stream), [&b"\x67ab"[..], b"\x68\0\x03c", b"\x65\0\0\x03\x01d"]);
        assert!(units(b"").is_empty() && units(b"\0\0").is_empty() && units(b"\0\0\x01").is_empty());
    }

    #[test]
    fn nothing_but_start_codes_is_not_kept() {
        let nothing = b"\0\0\x01".repeat(1 << 20);
        let mut units = Units::new(Cursor::new(&nothing));
        assert_eq!(units.next().unwrap(), None);
        assert!(units.buffer.capacity() < 8 * CHUNK, "{} bytes", units.buffer.capacity());
    }

    #[test]
    fn start_codes_are_found_wherever_they_are() {
        for before in 0..8 {
            let mut data = vec![7; before];
            data.extend([0, 0, 1, 9]);
            assert_eq!(start_code(&data), Some(before));
        }
        assert_eq!(start_code(&[0, 0, 0, 1]), Some(1));
        assert_eq!(start_code(&[0, 0, 2, 0, 1]), None);
    }
}
