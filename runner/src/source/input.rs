//! A file that is read here and there. What lies in it is not known here.

use std::io::{self, Read, Seek, SeekFrom};

use super::SourceError;

/// Bytes that are read ahead of where something small is looked at: a file of many small parts is not read part by part.
const AHEAD: u64 = 4096;

/// The file and how long it was when it was opened.
pub(super) struct Input<R> {
    reader: R,
    len: u64,
    /// What was read ahead, and where it begins.
    window: Vec<u8>,
    window_at: u64,
}

impl<R: Read + Seek> Input<R> {
    pub(super) fn new(mut reader: R) -> Result<Self, SourceError> {
        let len = reader.seek(SeekFrom::End(0)).map_err(|source| SourceError::Read { position: 0, source })?;
        Ok(Self { reader, len, window: Vec::new(), window_at: 0 })
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Puts the bytes from `start` to `end` into `buffer`; the caller has checked that the file has them and that
    /// they are few enough to be held.
    pub(super) fn read(&mut self, start: u64, end: u64, buffer: &mut Vec<u8>) -> Result<(), SourceError> {
        let failed = |source| SourceError::Read { position: start, source };
        buffer.clear();
        self.reader.seek(SeekFrom::Start(start)).map_err(failed)?;
        let wanted = end.saturating_sub(start);
        let got = self.reader.by_ref().take(wanted).read_to_end(buffer).map_err(failed)?;
        // The file can have been cut since it was opened.
        if got as u64 == wanted { Ok(()) } else { Err(failed(io::ErrorKind::UnexpectedEof.into())) }
    }

    /// The bytes from `start` on, `most` of them or fewer where the file ends. `most` is small.
    pub(super) fn head(&mut self, start: u64, most: u64) -> Result<&[u8], SourceError> {
        let end = start.saturating_add(most).min(self.len).max(start);
        if start < self.window_at || end > self.window_at + self.window.len() as u64 {
            let mut window = std::mem::take(&mut self.window);
            self.read(start, start.saturating_add(AHEAD.max(most)).min(self.len).max(start), &mut window)?;
            (self.window, self.window_at) = (window, start);
        }
        let within = |at: u64| usize::try_from(at.saturating_sub(self.window_at)).unwrap_or(usize::MAX);
        Ok(self.window.get(within(start)..within(end)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn heads_are_the_files_bytes_wherever_they_are_looked_at() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
        let mut input = Input::new(Cursor::new(bytes.clone())).unwrap();
        for at in [0, 5, 4_090, 4_094, 4_096, 9_999, 100, 8_000, 0] {
            let end = (at + 16).min(bytes.len());
            assert_eq!(input.head(at as u64, 16).unwrap(), &bytes[at..end], "{at}");
        }
        assert!(input.head(10_000, 16).unwrap().is_empty() && input.head(20_000, 16).unwrap().is_empty());
    }
}
