//! The boxes an MP4 file is made of: where each lies, without reading what is in it.
//!
//! Every length comes from the file and is believed only as far as there are bytes for it.

use std::io::{self, Read, Seek, SeekFrom};

use crate::source::SourceError;

/// The file and how long it was when it was opened.
pub(super) struct Input<R> {
    reader: R,
    len: u64,
}

/// A box at the file's top level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BoxAt {
    pub(super) kind: [u8; 4],
    pub(super) start: u64,
    /// The first byte after the box, as the box says; it may lie beyond the file's end.
    pub(super) end: u64,
}

impl<R: Read + Seek> Input<R> {
    pub(super) fn new(mut reader: R) -> Result<Self, SourceError> {
        let len = reader.seek(SeekFrom::End(0)).map_err(|source| SourceError::Read { position: 0, source })?;
        Ok(Self { reader, len })
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

    /// The box that begins at `start`; none where fewer bytes are left than a box's header has.
    pub(super) fn box_at(&mut self, start: u64) -> Result<Option<BoxAt>, SourceError> {
        let left = self.len.saturating_sub(start);
        if left < 8 {
            return Ok(None);
        }
        let mut head = Vec::with_capacity(16);
        self.read(start, start + left.min(16), &mut head)?;
        let kind = array(&head, 4).unwrap_or_default();
        let (size, header) = match be32(&head, 0) {
            // The box reaches to the file's end.
            Some(0) => (left, 8),
            Some(1) => match be64(&head, 8) {
                Some(size) => (size, 16),
                None => return Ok(None),
            },
            Some(size) => (u64::from(size), 8),
            None => return Ok(None),
        };
        match start.checked_add(size) {
            Some(end) if size >= header => Ok(Some(BoxAt { kind, start, end })),
            _ => Err(SourceError::Malformed {
                what: format!("the box {:?} says it is {size} bytes long", kind.escape_ascii().to_string()),
                position: Some(start),
            }),
        }
    }
}

/// The boxes that `payload` is filled with, each as its kind and its own payload. Ends at the first that does not fit.
pub(super) fn children(payload: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let kind = array(rest, 4)?;
        let (size, header) = match be32(rest, 0)? {
            0 => (rest.len(), 8),
            1 => (usize::try_from(be64(rest, 8)?).ok()?, 16),
            size => (usize::try_from(size).ok()?, 8),
        };
        let child = rest.get(header..size)?;
        rest = rest.get(size..)?;
        Some((kind, child))
    })
}

/// The four bytes at `at`.
pub(super) fn array(data: &[u8], at: usize) -> Option<[u8; 4]> {
    data.get(at..)?.first_chunk().copied()
}

/// The big-endian number at `at`.
pub(super) fn be32(data: &[u8], at: usize) -> Option<u32> {
    array(data, at).map(u32::from_be_bytes)
}

/// The big-endian number at `at`.
pub(super) fn be64(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..)?.first_chunk().copied().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn at(bytes: &[u8], start: u64) -> Result<Option<BoxAt>, SourceError> {
        Input::new(Cursor::new(bytes.to_vec())).unwrap().box_at(start)
    }

    #[test]
    fn sizes_are_short_long_or_to_the_end() {
        let short = at(b"\0\0\0\x09free!", 0).unwrap().unwrap();
        assert_eq!((short.kind, short.end), (*b"free", 9));
        let long = at(b"\0\0\0\x01mdat\0\0\0\0\0\0\x10\0", 0).unwrap().unwrap();
        assert_eq!((long.kind, long.end), (*b"mdat", 4096));
        let rest = at(b"..\0\0\0\0mdat123", 2).unwrap().unwrap();
        assert_eq!((rest.kind, rest.end), (*b"mdat", 13));
        assert_eq!(at(b"\0\0\0\x09fre", 0).unwrap(), None);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(at(b"\0\0\0\x07free", 0).is_err());
        assert!(at(b"....\0\0\0\x01mdat\xff\xff\xff\xff\xff\xff\xff\xff", 4).is_err());
        assert_eq!(children(b"\0\0\0\x09aaaa1\0\0\0\x07bbbb").collect::<Vec<_>>(), [(*b"aaaa", &b"1"[..])]);
        assert_eq!(children(b"\0\0\x01\0aaaa1").count(), 0);
    }
}
