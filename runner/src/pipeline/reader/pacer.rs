//! When a file's frames are given at their own pace. Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// Who is later than this does not hurry to catch up: frames come as a camera's would, never faster for long.
const SLACK: Duration = Duration::from_millis(500);

/// Turns frames' own times into moments.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// A moment, and the time of a frame that was due then.
    origin: Option<(Instant, f64)>,
}

impl Pacer {
    /// How long a frame that is shown at `pts_ms` has still to wait. The first one never waits.
    pub(super) fn wait(&mut self, pts_ms: f64, now: Instant) -> Duration {
        let (moment, from_ms) = *self.origin.get_or_insert((now, pts_ms));
        let since = Duration::try_from_secs_f64((pts_ms - from_ms) / 1000.0).unwrap_or_default();
        let due = moment.checked_add(since).unwrap_or(now);
        if now.saturating_duration_since(due) > SLACK {
            self.origin = Some((now, pts_ms));
        }
        due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn frames_wait_for_their_time_and_late_ones_do_not() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        assert_eq!(pacer.wait(4_000.0, start), ms(0), "wherever an attempt begins");
        assert_eq!(pacer.wait(4_040.0, start + ms(10)), ms(30));
        assert_eq!(pacer.wait(4_080.0, start + ms(100)), ms(0));
        assert_eq!(pacer.wait(4_120.0, start + ms(101)), ms(19), "a little is caught up with");
    }

    #[test]
    fn much_is_not_caught_up_with() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        pacer.wait(0.0, start);
        assert_eq!(pacer.wait(40.0, start + ms(5_000)), ms(0));
        assert_eq!(pacer.wait(80.0, start + ms(5_000)), ms(40));
    }
}
