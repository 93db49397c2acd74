//! A camera's own video as it is recorded: what came, with times that go on over its sessions, and a number for those that can be
//! shown with one another. When it is stored is the [`Archive`]'s business.

use kadr_shared::{geometry::Size, id::RunId, message::video::AccessUnit, time::Timestamp};

use crate::{
    archive::Archive,
    source::{Coded, Live},
};

pub(super) struct Take {
    run: RunId,
    /// Pictures of one number are of one session and of one size, and one decoder's.
    stream: u64,
    /// Of the last key frame: size and parameter sets.
    kind: Option<(Size, Option<Sets>)>,
    /// When the session's first picture is shown; none: it has not come yet.
    from_ms: Option<f64>,
    /// When the last picture so far is shown.
    until_ms: f64,
}

/// A sequence's and a picture's.
type Sets = (Vec<u8>, Vec<u8>);

impl Take {
    /// From this time on.
    pub(super) const fn new(run: RunId, from_ms: f64) -> Self {
        Self { run, stream: 0, kind: None, from_ms: None, until_ms: from_ms }
    }

    /// Another session begins.
    pub(super) fn begin(&mut self) {
        // By the clock, so that another attempt's are others.
        let now = u64::try_from(Timestamp::now().as_millis()).unwrap_or_default();
        self.stream = now.max(self.stream + 1);
        (self.kind, self.from_ms) = (None, None);
    }

    /// Records what came since the last call. The session's first picture is shown at `ms`, if none came before, or as soon as the
    /// session before is over: it may have run ahead of the clock.
    pub(super) fn record(&mut self, source: &mut dyn Live, archive: Option<&mut Archive>, ms: f64) {
        let Some(archive) = archive else { return };
        for coded in source.take_coded() {
            archive.push(self.unit(coded, ms));
        }
    }

    fn unit(&mut self, Coded { pts_ms, captured_at, key, size, data }: Coded, ms: f64) -> AccessUnit {
        let from_ms = *self.from_ms.get_or_insert(ms.max(self.until_ms));
        let pts_ms = (from_ms + pts_ms).max(0.0);
        self.until_ms = self.until_ms.max(pts_ms);
        let mut unit = AccessUnit {
            run: self.run,
            stream: self.stream,
            group: 0,
            key,
            pts_ms,
            captured_at,
            size,
            body: data.into(),
        };
        if key {
            let sets = unit.parameter_sets().map(|(sequence, picture)| (sequence.to_vec(), picture.to_vec()));
            let kind = Some((size, sets));
            if self.kind.is_some() && self.kind != kind {
                self.stream += 1;
            }
            self.kind = kind;
            unit.stream = self.stream;
        }
        unit
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::message::video::push_nal;

    use super::*;

    fn coded(pts_ms: f64, size: &str) -> Coded {
        let mut data = Vec::new();
        push_nal(&mut data, &[0x67, size.len() as u8]);
        push_nal(&mut data, &[0x68, 1]);
        push_nal(&mut data, &[0x65, 1]);
        Coded { pts_ms, captured_at: Timestamp::from_millis(0), key: true, size: size.parse().unwrap(), data }
    }

    fn session(take: &mut Take, from_ms: f64, units: [(f64, &str); 2]) -> Vec<(u64, f64)> {
        take.begin();
        let units = units.map(|(pts_ms, size)| take.unit(coded(pts_ms, size), from_ms));
        units.iter().map(|unit| (unit.stream, unit.pts_ms)).collect()
    }

    #[test]
    fn what_cannot_be_shown_together_has_another_number() {
        let mut take = Take::new(RunId::from_u128(1), 0.0);
        let first = session(&mut take, 0.0, [(0.0, "64x64"), (40.0, "64x64")]);
        assert_eq!(first[0].0, first[1].0);
        let second = session(&mut take, 100.0, [(0.0, "64x64"), (40.0, "640x64")]);
        assert!(first[0].0 < second[0].0 && second[0].0 < second[1].0, "{first:?}, {second:?}");
    }

    #[test]
    fn a_session_begins_where_the_one_before_has_ended() {
        let mut take = Take::new(RunId::from_u128(1), 1_000.0);
        let first = session(&mut take, 1_000.0, [(0.0, "64x64"), (4_000.0, "64x64")]);
        let second = session(&mut take, 3_000.0, [(0.0, "64x64"), (40.0, "64x64")]);
        assert_eq!((first[1].1, second[0].1, second[1].1), (5_000.0, 5_000.0, 5_040.0));
    }
}
