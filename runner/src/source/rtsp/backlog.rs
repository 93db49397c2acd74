//! What came of a camera and was not decoded, since nobody wanted it: enough of it that decoding can go on at any time.
//!
//! That is everything since the last key frame. Pure: decoding is its owner's business.

/// Units that are kept. More would take too long to decode when somebody comes and wants to see something; so, where key
/// frames are further apart, some are decoded that nobody wants.
const MOST_UNITS: usize = 64;
/// Bytes that are kept.
const MOST_BYTES: usize = 16 << 20;

/// Units in the order in which they are decoded.
#[derive(Debug)]
pub(super) struct Backlog<T> {
    units: Vec<T>,
    bytes: usize,
    /// Something before the first unit was left out: a decoder has to begin anew there.
    gap: bool,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Self { units: Vec::new(), bytes: 0, gap: false }
    }
}

impl<T> Backlog<T> {
    /// Keeps the next unit; `key`: nothing before it is needed any more. Says whether there is room for another one: if not,
    /// what is kept is to be taken now.
    pub(super) fn keep(&mut self, unit: T, key: bool, bytes: usize) -> bool {
        if key {
            self.forget();
            // Also where nothing was kept: what the decoder holds back is of before it.
            self.gap = true;
        }
        self.units.push(unit);
        self.bytes += bytes;
        self.units.len() < MOST_UNITS && self.bytes < MOST_BYTES
    }

    /// The next unit is decoded, and needs none of what is kept.
    pub(super) fn forget(&mut self) {
        self.gap |= !self.units.is_empty();
        self.units.clear();
        self.bytes = 0;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The decoder has begun anew.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What has to be decoded before the next unit, and whether the decoder has to begin anew for it.
    pub(super) fn take(&mut self) -> (bool, Vec<T>) {
        let Self { units, gap, .. } = std::mem::take(self);
        (gap, units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_since_the_last_key_frame_is_kept() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.take(), (false, vec![]));
        assert!(backlog.keep(1, false, 10) && backlog.keep(2, false, 10));
        assert_eq!(backlog.take(), (false, vec![1, 2]), "they follow on what was decoded");
        assert!(backlog.keep(3, false, 10) && backlog.keep(4, true, 10) && backlog.keep(5, false, 10));
        assert_eq!(backlog.take(), (true, vec![4, 5]));
        assert_eq!(backlog.take(), (false, vec![]));
        backlog.keep(6, false, 10);
        backlog.forget();
        assert_eq!(backlog.take(), (true, vec![]), "the next one is a key frame");
        backlog.forget();
        assert_eq!(backlog.take(), (false, vec![]), "every frame was decoded");
    }

    #[test]
    fn no_more_is_kept_than_is_decoded_in_a_moment() {
        let mut backlog = Backlog::default();
        let kept = (0..1_000).take_while(|&n| backlog.keep(n, n == 0, 1)).count();
        assert_eq!((kept + 1, backlog.take().1.len()), (MOST_UNITS, MOST_UNITS));
        assert!(!backlog.keep(0, true, MOST_BYTES));
        assert!(backlog.keep(1, true, 1), "a key frame makes room");
    }
}
