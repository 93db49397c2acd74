//! The samples of a fragmented MP4: each `moof` box lists some, and they follow one another through the file.
//!
//! Lists are read entry by entry from the bytes of their box, never expanded beforehand: a list of a billion samples that takes
//! twenty bytes costs twenty bytes. Only one track's samples are given.

use std::{
    collections::VecDeque,
    io::{Read, Seek},
};

use shiguredo_mp4::boxes::MoovBox;

use super::{
    boxes::{be32, be64, children},
    samples::{Sample, Step},
};
use crate::source::{SourceError, input::Input};

/// A moof larger than this is no list of samples.
const MOOF_LIMIT: u64 = 64 << 20;

/// Walks a track's samples in decoding order.
#[derive(Debug, Clone)]
pub(super) struct Fragments {
    track: u32,
    defaults: Defaults,
    /// Where the next top-level box is looked for.
    position: u64,
    /// When the next sample is decoded, in ticks.
    dts: u64,
    /// What is left of the current moof.
    runs: VecDeque<Run>,
}

/// What holds for samples whose list does not say otherwise.
#[derive(Debug, Clone, Copy)]
struct Defaults {
    /// Counts from 1.
    description: u32,
    duration: u32,
    size: u32,
}

/// The rest of a `trun` box: samples that lie one after another.
#[derive(Debug, Clone)]
struct Run {
    flags: u32,
    /// All of its entries; empty if the defaults say everything.
    entries: Vec<u8>,
    /// How many of them have been given.
    given: u32,
    count: u32,
    /// Where the next sample's bytes lie in the file.
    offset: u64,
    /// The decoding time that the fragment begins with, at its first run.
    starts_at: Option<u64>,
    defaults: Defaults,
}

/// The bits that say which fields a box has (ISO/IEC 14496-12, 8.8.7 and 8.8.8).
mod flag {
    pub(super) const DATA_OFFSET: u32 = 0x1;
    pub(super) const FIRST_FLAGS: u32 = 0x4;
    pub(super) const DURATION: u32 = 0x100;
    pub(super) const SIZE: u32 = 0x200;
    pub(super) const FLAGS: u32 = 0x400;
    pub(super) const COMPOSITION: u32 = 0x800;
    /// The fields that each sample of a run may have.
    pub(super) const ENTRY: u32 = DURATION | SIZE | FLAGS | COMPOSITION;

    pub(super) const BASE_DATA_OFFSET: u32 = 0x1;
    pub(super) const DESCRIPTION: u32 = 0x2;
    pub(super) const DEFAULT_DURATION: u32 = 0x8;
    pub(super) const DEFAULT_SIZE: u32 = 0x10;
    pub(super) const BASE_IS_MOOF: u32 = 0x2_0000;
}

impl Fragments {
    /// The fragments of `track` from `position` on; none if the file's index does not announce any.
    pub(super) fn new(moov: &MoovBox, track: u32, position: u64, dts: u64) -> Option<Self> {
        let extends = moov.mvex_box.as_ref()?.trex_boxes.iter().find(|t| t.track_id == track)?;
        let defaults = Defaults {
            description: extends.default_sample_description_index,
            duration: extends.default_sample_duration,
            size: extends.default_sample_size,
        };
        Some(Self { track, defaults, position, dts, runs: VecDeque::new() })
    }

    /// The next sample, or whether the file ends properly or in the middle of something.
    pub(super) fn next<R: Read + Seek>(&mut self, input: &mut Input<R>) -> Result<Step, SourceError> {
        loop {
            while let Some(run) = self.runs.front_mut() {
                if run.given < run.count {
                    let position = run.offset;
                    let sample = run.next(&mut self.dts).ok_or_else(|| malformed(position))?;
                    return Ok(Step::Sample(sample));
                }
                self.runs.pop_front();
            }
            match self.next_moof(input)? {
                None => {}
                Some(end) => return Ok(end),
            }
        }
    }

    /// Goes on to the next moof; gives what the file ends with if there is none.
    fn next_moof<R: Read + Seek>(&mut self, input: &mut Input<R>) -> Result<Option<Step>, SourceError> {
        loop {
            let Some(found) = input.box_at(self.position)? else {
                return Ok(Some(if self.position == input.len() { Step::End } else { Step::Cut }));
            };
            self.position = found.end;
            if &found.kind != b"moof" {
                continue;
            }
            if found.end > input.len() {
                return Ok(Some(Step::Cut));
            }
            if found.end - found.start > MOOF_LIMIT {
                return Err(malformed(found.start));
            }
            let mut moof = Vec::new();
            input.read(found.start, found.end, &mut moof)?;
            self.runs = self.runs_of(&moof, found.start).ok_or_else(|| malformed(found.start))?;
            return Ok(None);
        }
    }

    /// The track's runs in `moof`, which begins at `start` in the file.
    fn runs_of(&self, moof: &[u8], start: u64) -> Option<VecDeque<Run>> {
        let header = if be32(moof, 0)? == 1 { 16 } else { 8 };
        let mut runs = VecDeque::new();
        let mut previous_end = None;
        for (kind, traf) in children(moof.get(header..)?) {
            if &kind == b"traf" {
                previous_end = Some(self.track_fragment(start, traf, previous_end, &mut runs)?);
            }
        }
        Some(runs)
    }

    /// Adds the runs of one `traf` if they are this track's, and gives where its data ends.
    fn track_fragment(
        &self,
        moof_start: u64,
        traf: &[u8],
        previous_end: Option<u64>,
        runs: &mut VecDeque<Run>,
    ) -> Option<u64> {
        let (_, header) = children(traf).find(|(kind, _)| kind == b"tfhd")?;
        let flags = be32(header, 0)?;
        let ours = be32(header, 4)? == self.track;
        let mut at = 8;
        let mut optional = |bit: u32, bytes: usize| {
            let here = at;
            (flags & bit != 0).then(|| at += bytes).map(|()| here)
        };
        let base = match optional(flag::BASE_DATA_OFFSET, 8) {
            Some(at) => be64(header, at)?,
            None if flags & flag::BASE_IS_MOOF != 0 => moof_start,
            // Before that flag existed, a later track's data followed the earlier one's (ISO/IEC 14496-12, 8.8.8).
            None => previous_end.unwrap_or(moof_start),
        };
        let mut field = |bit, default| optional(bit, 4).map_or(Some(default), |at| be32(header, at));
        let defaults = Defaults {
            description: field(flag::DESCRIPTION, self.defaults.description)?,
            duration: field(flag::DEFAULT_DURATION, self.defaults.duration)?,
            size: field(flag::DEFAULT_SIZE, self.defaults.size)?,
        };
        let mut starts_at = match children(traf).find(|(kind, _)| kind == b"tfdt") {
            Some((_, time)) if time.first()? == &0 => Some(u64::from(be32(time, 4)?)),
            Some((_, time)) => Some(be64(time, 4)?),
            None => None,
        };
        let mut end = base;
        for (_, trun) in children(traf).filter(|(kind, _)| kind == b"trun") {
            let mut run = Run::parse(trun, base, end, defaults)?;
            end = run.offset.checked_add(run.bytes())?;
            if ours {
                run.starts_at = starts_at.take();
                runs.push_back(run);
            }
        }
        Some(end)
    }
}

impl Run {
    /// Reads a `trun`, whose data follows `previous_end` unless it says where from `base` it lies.
    fn parse(trun: &[u8], base: u64, previous_end: u64, defaults: Defaults) -> Option<Self> {
        let flags = be32(trun, 0)?;
        let count = be32(trun, 4)?;
        let mut at = 8;
        let mut offset = previous_end;
        if flags & flag::DATA_OFFSET != 0 {
            // A signed number.
            offset = base.checked_add_signed(i64::from(be32(trun, at)?.cast_signed()))?;
            at += 4;
        }
        if flags & flag::FIRST_FLAGS != 0 {
            at += 4;
        }
        // A sample without a single byte would make a list of any length free.
        if flags & flag::SIZE == 0 && defaults.size == 0 && count > 0 {
            return None;
        }
        let listed = Self::entry_len(flags).checked_mul(usize::try_from(count).ok()?)?;
        let entries = trun.get(at..)?.get(..listed)?.to_vec();
        Some(Self { flags, entries, given: 0, count, offset, starts_at: None, defaults })
    }

    const fn entry_len(flags: u32) -> usize {
        4 * (flags & flag::ENTRY).count_ones() as usize
    }

    /// Where in an entry the field `bit` lies; fields stand in the order of their bits.
    const fn field_at(&self, bit: u32) -> Option<usize> {
        if self.flags & bit != 0 { Some(Self::entry_len(self.flags & (bit - 1))) } else { None }
    }

    /// How many bytes all its samples have.
    fn bytes(&self) -> u64 {
        let Some(at) = self.field_at(flag::SIZE) else {
            return u64::from(self.count) * u64::from(self.defaults.size);
        };
        // Of at most 2^24 entries, since a moof is limited, and less than 2^32 each: the sum can't overflow.
        let entries = self.entries.chunks_exact(Self::entry_len(self.flags));
        entries.filter_map(|entry| be32(entry, at)).map(u64::from).sum()
    }

    /// Takes the next sample off and moves `dts` on by its duration.
    fn next(&mut self, dts: &mut u64) -> Option<Sample> {
        let length = Self::entry_len(self.flags);
        let entry = self.entries.get(self.given as usize * length..)?.get(..length)?;
        let field = |bit| self.field_at(bit).and_then(|at| be32(entry, at));
        let size = field(flag::SIZE).unwrap_or(self.defaults.size);
        let duration = field(flag::DURATION).unwrap_or(self.defaults.duration);
        // Version 0 calls it unsigned, but writers put negative offsets there all the same, and none needs 2^31.
        let shift = field(flag::COMPOSITION).map_or(0, |v| i64::from(v.cast_signed()));
        if let Some(start) = self.starts_at.take() {
            *dts = start;
        }
        let sample = Sample {
            offset: self.offset,
            size,
            pts: i64::try_from(*dts).ok()?.checked_add(shift)?,
            duration,
            description: usize::try_from(self.defaults.description.checked_sub(1)?).ok()?,
        };
        self.given += 1;
        self.offset = self.offset.checked_add(u64::from(size))?;
        *dts = dts.checked_add(u64::from(duration))?;
        Some(sample)
    }
}

fn malformed(position: u64) -> SourceError {
    SourceError::Malformed { what: "a fragment's list of frames can't be read".into(), position: Some(position) }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn boxed(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32 + 8).to_be_bytes()[..], kind, payload].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn fragments() -> Fragments {
        let defaults = Defaults { description: 1, duration: 40, size: 7 };
        Fragments { track: 1, defaults, position: 0, dts: 0, runs: VecDeque::new() }
    }

    /// The samples of track 1 in a file that is one moof of `trafs`, as (offset, size, pts).
    fn samples(trafs: &[Vec<u8>]) -> Result<Vec<(u64, u32, i64)>, SourceError> {
        let mut input = Input::new(Cursor::new(boxed(b"moof", &trafs.concat()))).unwrap();
        let (mut fragments, mut found) = (fragments(), Vec::new());
        while let Step::Sample(sample) = fragments.next(&mut input)? {
            found.push((sample.offset, sample.size, sample.pts));
        }
        Ok(found)
    }

    fn traf(tfhd: &[u32], truns: &[&[u32]]) -> Vec<u8> {
        let truns: Vec<u8> = truns.iter().flat_map(|trun| boxed(b"trun", &words(trun))).collect();
        boxed(b"traf", &[boxed(b"tfhd", &words(tfhd)), truns].concat())
    }

    #[test]
    fn data_lies_where_the_header_says() {
        // An absolute offset, and two runs that follow one another.
        let absolute = traf(&[flag::BASE_DATA_OFFSET, 1, 0, 1000], &[&[flag::DATA_OFFSET, 2, 10], &[0, 1]]);
        assert_eq!(samples(&[absolute]).unwrap(), [(1010, 7, 0), (1017, 7, 40), (1024, 7, 80)]);
        // Another track's data lies before: without a flag it is followed, with it the moof counts.
        let other = traf(&[flag::BASE_DATA_OFFSET, 2, 0, 500], &[&[flag::SIZE, 2, 20, 30]]);
        assert_eq!(samples(&[other.clone(), traf(&[0, 1], &[&[0, 1]])]).unwrap(), [(550, 7, 0)]);
        let moof = traf(&[flag::BASE_IS_MOOF, 1], &[&[flag::DATA_OFFSET, 1, 90]]);
        assert_eq!(samples(&[other, moof]).unwrap(), [(90, 7, 0)]);
    }

    #[test]
    fn entries_count_before_defaults() {
        let listed = flag::DURATION | flag::SIZE | flag::FLAGS | flag::COMPOSITION | flag::FIRST_FLAGS;
        let run = &[listed, 2, 0, 100, 5, 0, 30, 50, 6, 0, u32::MAX][..];
        let header = [flag::DEFAULT_DURATION | flag::DEFAULT_SIZE, 1, 9, 9];
        assert_eq!(samples(&[traf(&header, &[run, &[0, 1]])]).unwrap(), [(0, 5, 30), (5, 6, 99), (11, 9, 150)]);
    }

    #[test]
    fn lists_without_bytes_behind_them_are_refused() {
        for run in [
            &[flag::SIZE, 1000, 5][..],
            &[flag::DATA_OFFSET, 1],
            // Four billion samples of no size would cost nothing but time.
            &[flag::SIZE, u32::MAX],
        ] {
            assert!(samples(&[traf(&[0, 1], &[run])]).is_err(), "{run:?}");
        }
        assert!(samples(&[traf(&[flag::DEFAULT_SIZE, 1, 0], &[&[0, u32::MAX]])]).is_err());
        assert!(samples(&[traf(&[flag::BASE_DATA_OFFSET, 1], &[])]).is_err());
    }
}
