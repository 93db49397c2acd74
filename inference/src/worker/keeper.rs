//! Tells the server that frames in hand are still being worked on, so that it does not give them to others as well.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_nats::jetstream::{AckKind, message::Acker};
use tracing::debug;

use super::{ACK_WAIT, NETWORK_PATIENCE};

/// Twice as often as needed: a sign may be lost.
const PERIOD: Duration = Duration::from_millis(ACK_WAIT.as_millis() as u64 / 3);

/// The frames in hand: those whose acker somebody holds.
#[derive(Default)]
pub(super) struct Keeper {
    hands: Mutex<Vec<Weak<Acker>>>,
}

impl Keeper {
    /// Keeps a frame alive for as long as the returned acker is held.
    pub(super) fn hold(&self, acker: Acker) -> Arc<Acker> {
        let acker = Arc::new(acker);
        let mut hands = self.hands.lock().unwrap_or_else(PoisonError::into_inner);
        // As many as are in hand, and what was let go since the last look.
        hands.retain(|hand| hand.strong_count() > 0);
        hands.push(Arc::downgrade(&acker));
        acker
    }

    fn held(&self) -> Vec<Arc<Acker>> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    /// For ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for acker in self.held() {
                match tokio::time::timeout(NETWORK_PATIENCE, acker.ack_with(AckKind::Progress)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!(%error, "could not say that a frame is being worked on"),
                    Err(_) => debug!("could not say in time that a frame is being worked on"),
                }
            }
        }
    }
}
