//! What a camera's timestamps are worth: times that never go back, close to those at which frames come.

use std::{num::NonZeroU32, time::Instant};

use kadr_shared::time::Timestamp;
use retina::codec::CodecItem;
use tracing::debug;

/// A timestamp that is so far back, or so much further on than the frame came later, has jumped.
const JUMP_MICROS: i64 = 4_000_000;
/// A camera's clock may be so far from this machine's. One that is further off is slow or fast, or frames were held up on
/// their way: it is drawn near.
const FAR_MICROS: i64 = 4_000_000;
/// By this part of the time that passes.
const NEARER: i64 = 8;
/// Nothing is held up for so long (a camera is given up before): such a clock is of no use.
const LOST_MICROS: i64 = 15_000_000;
/// A picture comes no longer than this after one that is shown behind it.
pub(super) const REORDERED_MICROS: i64 = 1_000_000;
/// A camera whose clock is further off than this has not been set.
const UNSET_SECONDS: u64 = 60;
/// From 1900 to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// From a stream's own timestamps to microseconds since its first frame.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The timestamps are of no use.
    ignored: bool,
    began: Option<Instant>,
    before: Before,
    /// Of the last frame that was shown.
    last: i64,
}

/// The frame that came last: its timestamp, when it is shown, and when it came.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    ticks: i64,
    micros: i64,
    came: i64,
}

impl Clock {
    /// `ignored`: frames are shown when they came, whatever the camera says.
    pub(super) fn new(ignored: bool) -> Self {
        Self { ignored, ..Self::default() }
    }

    /// When a frame with this timestamp is to be shown. Where timestamps jump (a camera that was set, or started again), it is as
    /// much later than the one before as it came later. Frames that were held up on their way keep their own times.
    pub(super) fn micros(&mut self, ticks: i64, rate: NonZeroU32, arrived: Instant) -> i64 {
        let Some(began) = self.began else {
            self.began = Some(arrived);
            self.before = Before { ticks, micros: 0, came: 0 };
            return 0;
        };
        let came = i64::try_from(arrived.saturating_duration_since(began).as_micros()).unwrap_or(i64::MAX);
        if self.ignored {
            return came;
        }
        let before = self.before;
        let later = came - before.came;
        let said = (i128::from(ticks) - i128::from(before.ticks)) * 1_000_000 / i128::from(rate.get());
        let said = i64::try_from(said).unwrap_or(if said < 0 { i64::MIN } else { i64::MAX });
        let ahead = before.micros.saturating_add(said).saturating_sub(came);
        let off = ahead.unsigned_abs() > JUMP_MICROS.unsigned_abs();
        let passed = if off && (said < -REORDERED_MICROS || said > later.saturating_add(JUMP_MICROS)) {
            debug!(said, later, "the camera's timestamps jump");
            later
        } else {
            match ahead {
                LOST_MICROS.. => later,
                FAR_MICROS.. => said - said / NEARER,
                _ if ahead <= -LOST_MICROS => came - before.micros,
                _ if ahead <= -FAR_MICROS => said + said / NEARER,
                _ => said,
            }
        };
        let micros = before.micros + passed;
        self.before = Before { ticks, micros, came };
        micros
    }

    /// The time of the next frame that is shown, never before the last one's; none: as that.
    pub(super) fn show(&mut self, micros: Option<i64>) -> i64 {
        self.last = micros.unwrap_or(self.last).max(self.last);
        self.last
    }
}

/// When frames were taken by the camera's own clock, from its sender reports (RFC 3550, section 6.4.1).
#[derive(Debug, Default)]
pub(super) struct Wall {
    /// A timestamp of the stream, and the time that it stands for.
    report: Option<(retina::Timestamp, Timestamp)>,
}

impl Wall {
    /// Listens for reports.
    pub(super) fn hear(&mut self, item: &CodecItem) {
        let CodecItem::Rtcp(packet) = item else { return };
        let report = packet.pkts().find_map(|packet| packet.as_sender_report().ok().flatten());
        if let (Some(report), Some(rtp)) = (report, packet.rtp_timestamp()) {
            self.report = unix(report.ntp_timestamp().0).map(|time| (rtp, time));
        }
    }

    /// None if the camera does not tell, or its clock can't be right.
    pub(super) fn taken(&self, frame: retina::Timestamp) -> Option<Timestamp> {
        let (rtp, time) = self.report?;
        let ticks = frame.timestamp().saturating_sub(rtp.timestamp());
        let millis = ticks.saturating_mul(1000) / i64::from(frame.clock_rate().get());
        let taken = Timestamp::from_millis(time.as_millis().saturating_add(millis));
        let now = Timestamp::now();
        (now.since(taken).as_secs() < UNSET_SECONDS && taken.since(now).as_secs() < UNSET_SECONDS).then_some(taken)
    }
}

/// NTP's seconds since 1900 and their fraction.
fn unix(ntp: u64) -> Option<Timestamp> {
    let seconds = (ntp >> 32).checked_sub(NTP_TO_UNIX)?;
    let millis = ((ntp & 0xffff_ffff) * 1000) >> 32;
    Some(Timestamp::from_millis(i64::try_from(seconds * 1000 + millis).ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: NonZeroU32 = NonZeroU32::new(90_000).unwrap();

    #[test]
    fn times_are_the_cameras_own_while_it_keeps_time() {
        let (mut clock, began) = (Clock::default(), Instant::now());
        let mut at = |ticks: i64, millis: u64| clock.micros(ticks, RATE, began + Duration::from_millis(millis));
        assert_eq!(at(5_000_000_000, 0), 0);
        assert_eq!(at(5_000_003_600, 55), 40_000, "it came late");
        assert_eq!(at(5_000_180_000, 1_990), 2_000_000);
        assert_eq!(at(4_999_996_400, 2_000), -40_000, "a frame of before the first one");
    }

    #[test]
    fn a_jump_begins_anew_where_the_frame_came() {
        let (mut clock, began) = (Clock::default(), Instant::now());
        let mut at = |ticks: i64, millis: u64| clock.micros(ticks, RATE, began + Duration::from_millis(millis));
        at(0, 0);
        assert_eq!(at(90_000 * 3_600, 1_000), 1_000_000, "an hour ahead");
        assert_eq!(at(90_000 * 3_600 + 3_600, 1_040), 1_040_000);
        assert_eq!(at(7, 1_080), 1_080_000, "and back");
        assert_eq!(at(i64::MIN, 1_120), 1_120_000);
        assert_eq!(at(i64::MAX, 1_160), 1_160_000);
    }

    #[test]
    fn what_was_held_up_on_its_way_keeps_its_times() {
        let (mut clock, began) = (Clock::default(), Instant::now());
        let mut at = |frame: i64, millis: u64| clock.micros(frame * 3_600, RATE, began + Duration::from_millis(millis));
        at(0, 0);
        // Nothing for seven seconds, then all of it at once, and on as before.
        let shown: Vec<_> = (1..300).map(|frame| at(frame, 7_000.max(frame as u64 * 40))).collect();
        assert!(shown.windows(2).all(|two| (40_000..=45_000).contains(&(two[1] - two[0]))), "{shown:?}");
        let off = shown.last().unwrap() - 299 * 40_000;
        assert!(off < 1_000_000, "{off}");
    }

    #[test]
    fn what_was_left_out_while_it_was_held_up_is_no_jump() {
        let (mut clock, began) = (Clock::default(), Instant::now());
        let mut at =
            |millis: i64, arrived: u64| clock.micros(millis * 90, RATE, began + Duration::from_millis(arrived));
        at(0, 0);
        // Eight seconds: the camera kept the first two.
        for frame in 1..=50 {
            at(frame * 40, 8_000);
        }
        let off = at(8_000, 8_001) - 8_000_000;
        assert!(off.abs() < 1_000_000, "{off}");
    }

    #[test]
    fn a_clock_that_is_of_no_use_does_not_hold_up_the_video() {
        // It stands still, it runs at twice the speed, it begins anew every three seconds.
        let clocks: [fn(i64) -> i64; 3] = [|_| 7, |frame| frame * 7_200, |frame| frame % 75 * 3_600];
        for ticks in clocks {
            let (mut clock, began) = (Clock::default(), Instant::now());
            for frame in 0..10_000 {
                let arrived = began + Duration::from_millis(frame as u64 * 40);
                let shown = clock.micros(ticks(frame), RATE, arrived);
                assert!((shown - frame * 40_000).abs() < 16_000_000, "{frame}: {shown}");
            }
        }
    }

    #[test]
    fn a_clock_that_is_fast_or_slow_is_drawn_near() {
        for tick in [3_960, 3_240] {
            let (mut clock, began) = (Clock::default(), Instant::now());
            let mut before = -1;
            for frame in 0..25_000 {
                let shown = clock.micros(frame * tick, RATE, began + Duration::from_millis(frame as u64 * 40));
                assert!(shown > before, "{frame}: {shown}");
                assert!((shown - frame * 40_000).abs() < 4_100_000, "{frame}: {shown}");
                before = shown;
            }
        }
    }

    #[test]
    fn a_camera_that_is_not_believed_is_timed_by_its_frames() {
        let (mut clock, began) = (Clock::new(true), Instant::now());
        let mut at = |ticks: i64, millis: u64| clock.micros(ticks, RATE, began + Duration::from_millis(millis));
        assert_eq!([at(0, 0), at(3_600, 55), at(3_600, 80)], [0, 55_000, 80_000]);
    }

    #[test]
    fn what_is_shown_never_goes_back() {
        let mut clock = Clock::default();
        assert_eq!([Some(40), Some(20), None, Some(80)].map(|micros| clock.show(micros)), [40, 40, 40, 80]);
    }

    #[test]
    fn ntp_counts_from_1900() {
        let time = unix((NTP_TO_UNIX + 1_000_000_000) << 32 | 0x8000_0000).unwrap();
        assert_eq!(time.to_string(), "2001-09-09T01:46:40.500Z");
        assert_eq!(unix(7 << 32), None);
    }
}
