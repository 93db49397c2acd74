//! The boxes an MP4 file is made of: where each lies, without reading what is in it.
//!
//! Every length comes from the file and is believed only as far as there are bytes for it.

use std::io::{Read, Seek};

use crate::source::{SourceError, input::Input};

/// A box at the file's top level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BoxAt {
    pub(super) kind: [u8; 4],
    pub(super) start: u64,
    /// The first byte after the box, as the box says; it may lie beyond the file's end.
    pub(super) end: u64,
}

impl<R: Read + Seek> Input<R> {
    /// The box that begins at `start`; none where fewer bytes are left than a box's header has.
    pub(super) fn box_at(&mut self, start: u64) -> Result<Option<BoxAt>, SourceError> {
        let left = self.len().saturating_sub(start);
        if left < 8 {
            return Ok(None);
        }
        let head = self.head(start, 16)?;
        let kind = array(head, 4).unwrap_or_default();
        let (size, header) = match be32(head, 0) {
            // The box reaches to the file's end.
            Some(0) => (left, 8),
            Some(1) => match be64(head, 8) {
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
