//! Tells the server that frames in hand are still being worked on, so that it does not give them to others as well.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_nats::jetstream::{AckKind, message::Acker};
use futures::future::join_all;
use tracing::debug;

use super::ACK_WAIT;

/// Three times as often as needed: a sign may be lost or late.
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
            // All at once, and nothing is waited for but the connection's taking them: one must not hold up the others.
            let held = self.held();
            let signs = held.iter().map(|acker| acker.ack_with(AckKind::Progress));
            match tokio::time::timeout(PERIOD, join_all(signs)).await {
                Ok(answers) => {
                    for error in answers.into_iter().filter_map(Result::err) {
                        debug!(%error, "could not say that a frame is being worked on");
                    }
                }
                Err(_) => debug!("could not say in time that frames are being worked on"),
            }
        }
    }
}
