//! A runner's right to speak, by its own monotonic clock.
//!
//! Whoever could not renew its key for its time to live has lost its scenarios to others, or is about to. That is asked of
//! the clock before every fact, frame and result, not only told by a timer: after a process was frozen, the timer may be
//! the last thing that runs.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use kadr_shared::streams::NODE_TTL;
use tokio_util::sync::CancellationToken;

/// One lease: once lost, it stays lost.
#[derive(Debug)]
pub(crate) struct Lease {
    begun: Instant,
    /// Milliseconds after `begun`.
    until: AtomicU64,
    lost: CancellationToken,
}

impl Lease {
    /// Of a key that was asked for at `asked` and is stored.
    pub(crate) fn new(asked: Instant) -> Self {
        Self { begun: asked, until: AtomicU64::new(millis(NODE_TTL)), lost: CancellationToken::new() }
    }

    /// Whether the runner may still speak.
    pub(crate) fn holds(&self) -> bool {
        self.holds_at(Instant::now())
    }

    fn holds_at(&self, now: Instant) -> bool {
        if !self.lost.is_cancelled() && now >= self.end() {
            self.lost.cancel();
        }
        !self.lost.is_cancelled()
    }

    /// The key is renewed; it was asked for at `asked`. Too late, it changes nothing.
    pub(crate) fn renewed(&self, asked: Instant) {
        if self.holds() {
            let until = millis(asked.duration_since(self.begun) + NODE_TTL);
            self.until.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// When it ends if it is not renewed.
    pub(crate) fn end(&self) -> Instant {
        self.begun + Duration::from_millis(self.until.load(Ordering::Relaxed))
    }

    /// Returns when it is lost. Somebody has to ask [`Lease::holds`] for that, as the beat does.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_its_end_and_a_late_renewal_does_not_bring_it_back() {
        let now = Instant::now();
        let lease = Lease::new(now);
        assert!(lease.holds_at(now + NODE_TTL - Duration::from_millis(1)));
        lease.renewed(now + Duration::from_secs(1));
        assert!(lease.holds_at(now + NODE_TTL), "renewed");
        assert!(!lease.holds_at(now + NODE_TTL + Duration::from_secs(1)));
        lease.renewed(now + Duration::from_secs(10));
        assert!(!lease.holds_at(now), "lost for good");
    }
}
