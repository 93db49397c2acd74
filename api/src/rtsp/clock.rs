//! Timestamps of one viewer: those of pictures in 1/90,000 s, from a beginning that is random, and never back where a
//! scenario is started again.

use kadr_shared::{id::RunId, message::video::AccessUnit};
use tokio::time::Instant;

use super::{rtcp::Moment, rtp::CLOCK};
use crate::video::fmp4::ticks;

/// A run that follows another is shown at least so many ticks later: a picture's usual time.
const AT_LEAST: u64 = 3_600;

#[derive(Debug)]
pub(super) struct Clock {
    /// The timestamp of the run's beginning.
    begin: u32,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    run: RunId,
    timestamp: u32,
    at: Instant,
}

impl Clock {
    pub(super) const fn new(begin: u32) -> Self {
        Self { begin, last: None }
    }

    /// The timestamp of a picture of this run.
    pub(super) fn timestamp(&self, unit: &AccessUnit) -> u32 {
        self.begin.wrapping_add(since_begin(unit))
    }

    /// The timestamp of a picture that goes out now, and when it was taken; and whether nothing that was told of earlier ones
    /// holds for it.
    pub(super) fn moment(&mut self, unit: &AccessUnit, now: Instant) -> (Moment, bool) {
        let since_begin = since_begin(unit);
        let anew = self.last.as_ref().is_none_or(|last| last.run != unit.run);
        if let Some(last) = &self.last
            && anew
        {
            let since = now.saturating_duration_since(last.at).as_secs_f64() * f64::from(CLOCK);
            let next = last.timestamp.wrapping_add((since as u64).max(AT_LEAST) as u32);
            self.begin = next.wrapping_sub(since_begin);
        }
        let timestamp = self.timestamp(unit);
        self.last = Some(Last { run: unit.run, timestamp, at: now });
        (Moment { timestamp, taken: unit.captured_at }, anew)
    }
}

/// It goes round after half a day, as players know.
fn since_begin(unit: &AccessUnit) -> u32 {
    ticks(unit.pts_ms) as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::testing::picture, *};

    #[test]
    fn a_run_that_follows_another_goes_on_in_time() {
        let (mut clock, now) = (Clock::new(u32::MAX - 3_600), Instant::now());
        let mut at = |run, pts_ms, after| {
            let unit = AccessUnit { run: RunId::from_u128(run), pts_ms, ..picture(&[]) };
            let (moment, anew) = clock.moment(&unit, now + Duration::from_millis(after));
            (moment.timestamp, anew)
        };
        assert_eq!(at(1, 40.0, 0), (u32::MAX, true));
        assert_eq!(at(1, 80.0, 35), (3_599, false));
        assert_eq!(at(2, 0.0, 1_035), (93_599, true), "a second later");
        assert_eq!(at(2, 40.0, 1_080), (97_199, false));
        assert_eq!(at(3, 1e6, 1_080), (100_799, true), "later in any case");
    }
}
