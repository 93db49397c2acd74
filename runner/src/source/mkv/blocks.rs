//! The blocks of one track: where each coded picture lies in a Matroska file, and when it is shown.
//!
//! The file is walked from element to element, down into clusters and block groups and over everything else; nothing is
//! expanded beforehand, and each step goes forward.

use std::io::{Read, Seek};

use super::ebml::{Number, length, number, unsigned};
use crate::source::{SourceError, input::Input};

/// Identifiers of elements.
pub(super) mod id {
    pub(in crate::source::mkv) const CLUSTER: u32 = 0x1f43_b675;
    pub(super) const TIMESTAMP: u32 = 0xe7;
    pub(super) const BLOCK_GROUP: u32 = 0xa0;
    pub(super) const BLOCK: u32 = 0xa1;
    pub(super) const SIMPLE_BLOCK: u32 = 0xa3;
}

/// A track number of 8 bytes, a time and flags.
const HEAD: u64 = 11;
/// The bits of a block's flags that say that it holds several frames.
const LACED: u8 = 0x06;

/// A coded picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) end: u64,
    /// When it is shown, in the file's ticks.
    pub(super) ticks: i64,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Block(Block),
    End,
    /// The file ends before what it announces.
    Cut,
}

/// Walks a track's blocks in decoding order.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    track: u64,
    position: u64,
    /// The segment's, if it says so.
    end: Option<u64>,
    cluster_ticks: i64,
    /// How far the file should reach by what was seen of it.
    announced: u64,
}

impl Blocks {
    /// The blocks of `track` from `position` on, where the first cluster begins, to the segment's end.
    pub(super) const fn new(track: u64, position: u64, end: Option<u64>) -> Self {
        Self { track, position, end, cluster_ticks: 0, announced: 0 }
    }

    pub(super) fn next<R: Read + Seek>(&mut self, input: &mut Input<R>) -> Result<Step, SourceError> {
        loop {
            if self.end.is_some_and(|end| self.position >= end) && self.position <= input.len() {
                return Ok(Step::End);
            }
            let Some(element) = input.element_at(self.position)? else {
                let whole = self.position == input.len() && self.announced.max(self.end.unwrap_or(0)) <= input.len();
                return Ok(if whole { Step::End } else { Step::Cut });
            };
            if matches!(element.id, id::CLUSTER | id::BLOCK_GROUP) {
                self.announced = self.announced.max(element.end.unwrap_or(0));
                self.position = element.content;
                continue;
            }
            let end = element.end.ok_or_else(|| malformed("an element of it has no length", element.start))?;
            self.position = end;
            if end > input.len() && matches!(element.id, id::TIMESTAMP | id::BLOCK | id::SIMPLE_BLOCK) {
                return Ok(Step::Cut);
            }
            match element.id {
                id::TIMESTAMP => {
                    let wrong = || malformed("a cluster's time can't be read", element.start);
                    let bytes = input.head(element.content, (end - element.content).min(9))?;
                    let ticks = unsigned(bytes).and_then(|ticks| i64::try_from(ticks).ok());
                    self.cluster_ticks = ticks.ok_or_else(wrong)?;
                }
                id::BLOCK | id::SIMPLE_BLOCK => {
                    if let Some(block) = self.block(input, element.content, end)? {
                        return Ok(Step::Block(block));
                    }
                }
                _ => {}
            }
        }
    }

    /// The block from `start` to `end`; none if it is another track's.
    fn block<R: Read + Seek>(&self, input: &mut Input<R>, start: u64, end: u64) -> Result<Option<Block>, SourceError> {
        let head = input.head(start, HEAD.min(end - start))?;
        let track = number(head).zip(head.first());
        let Some((Number::Known(track), &first)) = track else { return Err(malformed("a block has no track", start)) };
        if track != self.track {
            return Ok(None);
        }
        let Some(&[high, low, flags]) = head.get(length(first)..).and_then(|rest| rest.first_chunk()) else {
            return Err(malformed("a block has no time", start));
        };
        if flags & LACED != 0 {
            return Err(malformed("a block of its video holds several frames", start));
        }
        let ticks = self.cluster_ticks.saturating_add(i64::from(i16::from_be_bytes([high, low])));
        Ok(Some(Block { offset: start + length(first) as u64 + 3, end, ticks }))
    }
}

fn malformed(what: &str, position: u64) -> SourceError {
    SourceError::Malformed { what: what.into(), position: Some(position) }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// What was found on the way, and how it ended.
    type Walked = (Vec<(u64, u64, i64)>, Step);

    /// The blocks of track 1 as (offset, end, ticks), and what ends them.
    fn walk(bytes: &[u8], end: Option<u64>) -> Result<Walked, SourceError> {
        let mut input = Input::new(Cursor::new(bytes.to_vec())).unwrap();
        let (mut blocks, mut found) = (Blocks::new(1, 0, end), Vec::new());
        loop {
            match blocks.next(&mut input)? {
                Step::Block(Block { offset, end, ticks }) => found.push((offset, end, ticks)),
                other => return Ok((found, other)),
            }
        }
    }

    const CLUSTER: &[u8] =
        b"\x1f\x43\xb6\x75\x96\xe7\x82\x01\x00\xa3\x85\x81\x00\x05\x80x\xa0\x89\xa1\x87\x81\xff\xff\x00abc";

    #[test]
    fn blocks_are_found_in_clusters_and_groups() {
        let found = walk(CLUSTER, None).unwrap();
        assert_eq!(found, (vec![(15, 16, 261), (24, 27, 255)], Step::End));
        // A cluster of unknown length, another track's block, and what is of no interest.
        let live = b"\x1f\x43\xb6\x75\xff\xe7\x81\x07\xec\x82..\xa3\x84\x82\0\0\0\xa3\x85\x81\0\0\0y";
        assert_eq!(walk(live, None).unwrap(), (vec![(24, 25, 7)], Step::End));
    }

    #[test]
    fn a_file_that_ends_early_is_cut() {
        for length in 5..CLUSTER.len() {
            let (blocks, end) = walk(&CLUSTER[..length], None).unwrap();
            assert_eq!((blocks.len(), end), (usize::from(length >= 16), Step::Cut), "{length}");
        }
        assert_eq!(walk(CLUSTER, Some(100)).unwrap().1, Step::Cut, "the segment should be longer");
        assert_eq!(walk(&[CLUSTER, b"\0\0junk"].concat(), Some(27)).unwrap().1, Step::End);
    }

    #[test]
    fn what_is_no_list_of_blocks_is_refused() {
        for bytes in [
            &b"\xa3\x85\x81\0\0\x02y"[..],
            b"\xa3\x83\x81\0\0",
            b"\xa3\x80",
            b"\xec\xff",
            b"\xe7\x89123456789",
            b"\xe7\x88\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(walk(bytes, None).is_err(), "{bytes:?}");
        }
    }
}
