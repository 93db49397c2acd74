//! A place in the past, as people name it: by a sequence of the log or by a time.

use std::{fmt, str::FromStr};

use crate::time::Timestamp;

/// Up to where, or from where on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A sequence of a stream.
    Seq(u64),
    /// A time by the server's stamps.
    Time(Timestamp),
}

/// A text that is neither a sequence nor a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a sequence (42) nor a time (2026-01-31T12:00:00.000Z)")]
pub struct MomentError(String);

impl Moment {
    /// Whether a message with this sequence and stamp lies before it.
    pub fn is_after(self, seq: u64, time: Timestamp) -> bool {
        match self {
            Self::Seq(first) => seq < first,
            Self::Time(first) => time < first,
        }
    }

    /// Whether a message with this sequence and stamp lies behind it.
    pub fn is_before(self, seq: u64, time: Timestamp) -> bool {
        match self {
            Self::Seq(last) => seq > last,
            Self::Time(last) => time > last,
        }
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let parsed = if text.bytes().all(|b| b.is_ascii_digit()) {
            text.parse().ok().map(Self::Seq)
        } else {
            text.parse().ok().map(Self::Time)
        };
        parsed.ok_or_else(|| MomentError(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seq(seq) => seq.fmt(f),
            Self::Time(time) => time.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_sequence_and_all_else_is_a_time() {
        assert_eq!("42".parse(), Ok(Moment::Seq(42)));
        let noon = Timestamp::from_millis(1_769_860_800_000);
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00"] {
            assert_eq!(text.parse(), Ok(Moment::Time(noon)), "{text}");
        }
        for bad in ["", "-1", "1.5", "noon", "2026-01-31", "18446744073709551616", &"9".repeat(5000)] {
            let error = bad.parse::<Moment>().unwrap_err().to_string();
            assert!(error.contains("2026-01-31T12:00:00.000Z") && error.len() < 150, "{error}");
        }
    }

    #[test]
    fn what_has_its_very_sequence_or_stamp_is_neither_before_nor_behind() {
        let at = Timestamp::from_millis;
        for moment in [Moment::Seq(5), Moment::Time(at(500))] {
            assert_eq!((moment.is_after(4, at(400)), moment.is_before(4, at(400))), (true, false));
            assert_eq!((moment.is_after(5, at(500)), moment.is_before(5, at(500))), (false, false));
            assert_eq!((moment.is_after(6, at(600)), moment.is_before(6, at(600))), (false, true));
        }
    }
}
