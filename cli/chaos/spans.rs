//! Spans of time in which nothing is promised, and what is left of a wait when they do not count.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A stream had no leader that answered and heard a majority.
    Quorum,
    /// A stream took no write.
    Writes,
    /// The stream of frames, its consumer or the stream of results had none: nothing can be analysed.
    Frames,
    /// No orchestrator lived that could get at NATS.
    Orchestrator,
    /// No inference worker did: no frame can be analysed.
    Worker,
    /// The machine did not let the harness itself run.
    Starved,
}

/// Milliseconds since 1970 by this machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    pub cause: Cause,
    pub from: i64,
    pub until: i64,
    #[serde(skip)]
    pub open: bool,
}

/// The part of a wait that counts: what follows the last span in which nothing was promised. A promise of five seconds
/// is one of five seconds in a row.
pub fn counted(from: i64, until: i64, spans: &[Span]) -> i64 {
    let last = spans.iter().filter(|span| span.from < until && span.until > from).map(|span| span.until).max();
    (until - last.map_or(from, |end| end.max(from))).max(0)
}

/// All spans but those of some causes.
pub fn without(spans: &[Span], causes: &[Cause]) -> Vec<Span> {
    spans.iter().filter(|span| !causes.contains(&span.cause)).copied().collect()
}

/// How long all spans of a cause are together.
pub fn total(spans: &[Span], cause: Cause) -> i64 {
    spans.iter().filter(|span| span.cause == cause).map(|span| span.until - span.from).sum()
}

/// The value below which so many per cent of all lie.
pub fn percentile(sorted: &[i64], percent: usize) -> i64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_counts_from_the_end_of_the_last_span_in_it() {
        let span = |from, until| Span { cause: Cause::Quorum, from, until, open: false };
        assert_eq!(counted(100, 900, &[]), 800);
        assert_eq!(counted(100, 900, &[span(0, 100), span(900, 950)]), 800, "they only touch it");
        assert_eq!(counted(100, 900, &[span(50, 200), span(300, 400)]), 500);
        assert_eq!(counted(100, 900, &[span(50, 2_000)]), 0);
    }

    #[test]
    fn percentiles_are_of_the_upper_rank() {
        let sorted: Vec<i64> = (1..=200).collect();
        assert_eq!((percentile(&sorted, 50), percentile(&sorted, 99), percentile(&sorted, 100)), (100, 198, 200));
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[], 50), 0);
    }
}
