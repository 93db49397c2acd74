//! Signs of life: tells for each served model that somebody analyses its frames, with what, and what became of them.
//!
//! Runners tell by them a frame that waits from one that nobody will ever take. Nothing depends on a single one.

use std::{sync::Arc, time::Duration};

use kadr_shared::{id::WorkerId, message::worker::Sign, nats::Nats, subjects};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::models::{Slot, chain};

/// Well below what runners take for silence.
const PERIOD: Duration = Duration::from_millis(500);

/// For ever, of a model that is being served.
pub(super) async fn run(nats: Nats, worker: WorkerId, at_once: usize, slot: Arc<Slot>) {
    let subject = subjects::workers(&slot.model().name);
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // What is buffered during an outage would be heard after it, and all at once.
        if !nats.is_connected() {
            continue;
        }
        let sign = Sign { worker: worker.clone(), at_once, weights: slot.weights(), frames: slot.frames() };
        let sent = async {
            let body = serde_json::to_vec(&sign).map_err(|error| chain(&error))?;
            nats.client.publish(subject.clone(), body.into()).await.map_err(|error| chain(&error))
        };
        match timeout(PERIOD, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(error, "could not show a sign of life"),
            Err(_) => debug!("could not show a sign of life in time"),
        }
    }
}
