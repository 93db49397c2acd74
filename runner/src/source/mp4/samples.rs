//! Where each coded picture of a track lies, and when it is shown: from the index, from fragments, or from both.

use std::{
    io::{Read, Seek},
    num::NonZeroU32,
    sync::Arc,
};

use shiguredo_mp4::{
    aux::SampleTableAccessor,
    boxes::{MoovBox, StblBox},
};

use super::fragment::Fragments;
use crate::source::{SourceError, input::Input};

/// One coded picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Where its bytes begin in the file.
    pub(super) offset: u64,
    pub(super) size: u32,
    /// When it is shown, in ticks of the track's timescale.
    pub(super) pts: i64,
    /// In ticks.
    pub(super) duration: u32,
    /// Which of the track's sample descriptions it is coded by, from 0.
    pub(super) description: usize,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Sample(Sample),
    End,
    /// The file ends before what it announces.
    Cut,
}

/// What the whole track holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) frames: u64,
    /// All durations together, in ticks.
    pub(super) ticks: u64,
}

/// A track's samples in decoding order.
#[derive(Clone)]
pub(super) struct Samples {
    table: Arc<SampleTableAccessor<StblBox>>,
    /// Counts from 1.
    next: NonZeroU32,
    fragments: Option<Fragments>,
}

impl Samples {
    /// `after_moov`: where fragments are looked for.
    pub(super) fn new(stbl: StblBox, moov: &MoovBox, track: u32, after_moov: u64) -> Result<Self, SourceError> {
        let table = SampleTableAccessor::new(stbl).map_err(|e| SourceError::Malformed {
            what: format!("its index contradicts itself: {e}"),
            position: None,
        })?;
        let last = NonZeroU32::new(table.sample_count()).and_then(|n| table.get_sample(n));
        let end = last.map_or(0, |s| s.timestamp().saturating_add(u64::from(s.duration())));
        let fragments = Fragments::new(moov, track, after_moov, end);
        Ok(Self { table: Arc::new(table), next: NonZeroU32::MIN, fragments })
    }

    /// Counts all samples that are listed, those beyond a cut included.
    pub(super) fn survey<R: Read + Seek>(&self, input: &mut Input<R>) -> Result<Survey, SourceError> {
        let mut survey = Survey { frames: u64::from(self.table.sample_count()), ticks: 0 };
        if let Some(last) = NonZeroU32::new(self.table.sample_count()).and_then(|n| self.table.get_sample(n)) {
            survey.ticks = last.timestamp().saturating_add(u64::from(last.duration()));
        }
        let mut fragments = self.fragments.clone();
        while let Some(fragments) = &mut fragments {
            // A coded picture has at least a byte; lists that overlap could otherwise be counted for hours.
            if survey.frames > input.len() {
                break;
            }
            // A fragment that can't be read ends the count; it is told when its turn comes, after what precedes it.
            let Ok(Step::Sample(sample)) = fragments.next(input) else { break };
            survey.frames += 1;
            survey.ticks = survey.ticks.saturating_add(u64::from(sample.duration));
        }
        if survey.frames > input.len() {
            let what = format!("it claims {} frames in {} bytes", survey.frames, input.len());
            return Err(SourceError::Malformed { what, position: None });
        }
        Ok(survey)
    }

    pub(super) fn next<R: Read + Seek>(&mut self, input: &mut Input<R>) -> Result<Step, SourceError> {
        let step = match (self.table.get_sample(self.next), &mut self.fragments) {
            (Some(found), _) => {
                let sample = Sample {
                    offset: found.data_offset(),
                    size: found.data_size(),
                    pts: i64::try_from(found.timestamp())
                        .unwrap_or(i64::MAX)
                        .saturating_add(found.composition_time_offset().unwrap_or(0)),
                    duration: found.duration(),
                    description: found.chunk().sample_entry_index(),
                };
                self.next = self.next.saturating_add(1);
                Step::Sample(sample)
            }
            (None, Some(fragments)) => fragments.next(input)?,
            (None, None) => Step::End,
        };
        Ok(match step {
            Step::Sample(sample) if sample.end() > input.len() => Step::Cut,
            step => step,
        })
    }
}

impl Sample {
    /// The first byte after it.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.size))
    }
}
