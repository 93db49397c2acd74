//! The elements a Matroska file is made of (EBML, RFC 8794): where each lies, without reading what is in it.
//!
//! Every length comes from the file and is believed only as far as there are bytes for it.

use std::io::{Read, Seek};

use crate::source::{SourceError, input::Input};

/// An identifier has 4 bytes at most, a length 8.
const HEADER: u64 = 12;

/// An element in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    /// With the bits that tell its length, as identifiers are written.
    pub(super) id: u32,
    /// Where its header begins.
    pub(super) start: u64,
    /// Where its content begins.
    pub(super) content: u64,
    /// The first byte after it, as it says; it may lie beyond the file's end. None: it does not say, as in a live
    /// recording.
    pub(super) end: Option<u64>,
}

impl<R: Read + Seek> Input<R> {
    /// The element that begins at `start`; none where fewer bytes are left than its header has.
    pub(super) fn element_at(&mut self, start: u64) -> Result<Option<Element>, SourceError> {
        let head = self.head(start, HEADER)?;
        let Some(&first) = head.first() else { return Ok(None) };
        let malformed =
            || SourceError::Malformed { what: "no element of it begins here".into(), position: Some(start) };
        // An identifier that is longer than 4 bytes is none.
        if first < 0x10 {
            return Err(malformed());
        }
        let Some((id, rest)) = head.split_at_checked(length(first)) else { return Ok(None) };
        let id = id.iter().fold(0, |id, &byte| id << 8 | u32::from(byte));
        let Some(&first) = rest.first() else { return Ok(None) };
        if first == 0 {
            return Err(malformed());
        }
        let (Some(size), header) = (number(rest), length_of(id) + length(first) as u64) else { return Ok(None) };
        let content = start.saturating_add(header);
        let end = match size {
            Number::Known(size) => Some(content.checked_add(size).ok_or_else(malformed)?),
            Number::Unknown => None,
        };
        Ok(Some(Element { id, start, content, end }))
    }
}

/// A number of variable length (RFC 8794, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Known(u64),
    /// All bits set: a length that was not known when it was written.
    Unknown,
}

/// The number that `data` begins with; none if its bytes are not all there.
pub(super) fn number(data: &[u8]) -> Option<Number> {
    let first = *data.first().filter(|&&first| first != 0)?;
    let length = length(first);
    // Shifted by 8 where it takes a whole byte to tell the length.
    let mask = 0xff_u8.checked_shr(u32::try_from(length).ok()?).unwrap_or(0);
    let rest = data.get(1..length)?;
    let value = rest.iter().fold(u64::from(first & mask), |value, &byte| value << 8 | u64::from(byte));
    let all = (1 << (7 * length)) - 1;
    Some(if value == all { Number::Unknown } else { Number::Known(value) })
}

/// How many bytes a number or an identifier has that begins with this one, which is not 0.
pub(super) const fn length(first: u8) -> usize {
    first.leading_zeros() as usize + 1
}

/// How many bytes an identifier has.
const fn length_of(id: u32) -> u64 {
    4 - id.leading_zeros() as u64 / 8
}

/// The elements that `content` is filled with, each as its identifier and its own content. Ends at the first that does
/// not fit.
pub(super) fn children(content: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = content;
    std::iter::from_fn(move || {
        let first = *rest.first().filter(|&&first| first >= 0x10)?;
        let (id, behind) = rest.split_at_checked(length(first))?;
        let id = id.iter().fold(0, |id, &byte| id << 8 | u32::from(byte));
        let Number::Known(size) = number(behind)? else { return None };
        let behind = behind.get(length(*behind.first()?)..)?;
        let (child, after) = behind.split_at_checked(usize::try_from(size).ok()?)?;
        rest = after;
        Some((id, child))
    })
}

/// The first child of this kind.
pub(super) fn child(content: &[u8], wanted: u32) -> Option<&[u8]> {
    children(content).find(|(id, _)| *id == wanted).map(|(_, child)| child)
}

/// An element's content as a number; none if it has more bytes than one.
pub(super) fn unsigned(content: &[u8]) -> Option<u64> {
    (content.len() <= 8).then(|| content.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn at(bytes: &[u8], start: u64) -> Result<Option<Element>, SourceError> {
        Input::new(Cursor::new(bytes.to_vec())).unwrap().element_at(start)
    }

    #[test]
    fn numbers_tell_their_length() {
        assert_eq!(number(&[0x82]), Some(Number::Known(2)));
        assert_eq!(number(&[0x40, 0x02, 9]), Some(Number::Known(2)));
        assert_eq!(number(&[0xff]), Some(Number::Unknown));
        assert_eq!(number(&[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Some(Number::Unknown));
        assert_eq!(number(&[0x01, 0, 0, 0, 0, 0, 1, 0]), Some(Number::Known(256)));
        assert_eq!((number(&[0x40]), number(&[0]), number(&[])), (None, None, None));
    }

    #[test]
    fn elements_lie_where_they_say() {
        let block = at(b"..\xa3\x84abcd", 2).unwrap().unwrap();
        assert_eq!(block, Element { id: 0xa3, start: 2, content: 4, end: Some(8) });
        let cluster = at(b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff", 0).unwrap().unwrap();
        assert_eq!((cluster.id, cluster.content, cluster.end), (0x1f43_b675, 12, None));
        assert_eq!(at(b"\x1f\x43\xb6", 0).unwrap(), None);
        assert_eq!(at(b"\xa3", 0).unwrap(), None);
        assert!(at(b"\x08\x81a", 0).is_err() && at(b"\xa3\x00", 0).is_err());
        let beyond = at(b"\xa3\x01\xff\xff\xff\xff\xff\xff\xfe", 0).unwrap().unwrap();
        assert_eq!(beyond.end, Some(9 + 0xff_ffff_ffff_fffe));
    }

    #[test]
    fn children_end_where_one_does_not_fit() {
        let content = b"\xd7\x81\x05\x83\x81\x01\x86\x89short";
        assert_eq!(children(content).collect::<Vec<_>>(), [(0xd7, &b"\x05"[..]), (0x83, b"\x01")]);
        assert_eq!(child(content, 0x83).and_then(unsigned), Some(1));
        assert_eq!(unsigned(&[1; 9]), None);
    }
}
