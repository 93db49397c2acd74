//! When a frame without a result is looked after again. Pure: the clock is an argument.
//!
//! Patience follows the answers that came: a fast model's frames are looked after soon, a slow model's are not sent twice.

use std::time::Duration;

/// No frame is looked after earlier.
const LEAST: Duration = Duration::from_secs(2);
/// So many times the usual answer's time is not unusual yet.
const USUAL: u32 = 8;
/// The newest answer's weight in the average.
const WEIGHT: f64 = 0.2;

/// A scenario's usual answer time.
#[derive(Debug)]
pub(super) struct Pace {
    mean: Option<Duration>,
    most: Duration,
}

impl Pace {
    /// No frame waits longer than `most` without being looked after.
    pub(super) const fn new(most: Duration) -> Self {
        Self { mean: None, most }
    }

    /// An answer came after this time.
    pub(super) fn answered(&mut self, after: Duration) {
        self.mean = Some(match self.mean {
            Some(mean) => mean.mul_f64(1.0 - WEIGHT) + after.mul_f64(WEIGHT),
            None => after,
        });
    }

    /// How long to wait for an answer that was looked after `looks` times already: twice as long each time.
    pub(super) fn patience(&self, looks: u32) -> Duration {
        let usual = self.mean.map_or(LEAST, |mean| mean.saturating_mul(USUAL).max(LEAST));
        usual.saturating_mul(1 << looks.min(16)).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_the_answers_and_doubles() {
        let mut pace = Pace::new(Duration::from_secs(30));
        assert_eq!(pace.patience(0), LEAST, "nothing is known yet");
        pace.answered(Duration::from_millis(10));
        assert_eq!((pace.patience(0), pace.patience(1)), (LEAST, 2 * LEAST));
        for _ in 0..50 {
            pace.answered(Duration::from_secs(1));
        }
        assert!(pace.patience(0) > Duration::from_secs(7) && pace.patience(0) <= Duration::from_secs(8));
        assert_eq!(pace.patience(60), Duration::from_secs(30), "bounded");
    }
}
