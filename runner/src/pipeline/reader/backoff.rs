//! How long a camera is left alone before it is tried again. Pure: chance is an argument.

use std::time::Duration;

/// The first pause; each is twice as long as the one before, up to the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// After a session that has played for so long, longer than a silence takes to be noticed, the next pause is a first one.
const STEADY: Duration = Duration::from_secs(20);

/// Pauses between sessions.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The pause after a session that has played for so long, if it has. `chance`, from 0 to 1, makes it up to a half shorter
    /// or longer: cameras of one site that went away together do not come back together.
    pub(super) fn pause(&mut self, played: Option<Duration>, chance: f64) -> Duration {
        if played.is_some_and(|played| played >= STEADY) {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause.mul_f64(chance.clamp(0.0, 1.0) + 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_one_second_to_thirty_and_begin_anew_after_a_steady_session() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..7).map(|_| backoff.pause(None, 0.5).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.pause(Some(Duration::from_secs(3)), 0.5).as_secs(), 30, "it has hardly played");
        assert_eq!(backoff.pause(Some(STEADY), 0.5).as_secs(), 1);
    }

    #[test]
    fn cameras_that_went_together_come_back_one_by_one() {
        let at = |chance| Backoff::default().pause(None, chance).as_millis();
        assert_eq!([at(0.0), at(0.25), at(1.0), at(7.0)], [500, 750, 1_500, 1_500]);
    }
}
