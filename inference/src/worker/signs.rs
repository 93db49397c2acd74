//! Signs of life: tells for each served model that somebody analyses its frames.
//!
//! Runners tell by them a frame that waits from one that nobody will ever take. Nothing depends on a single one.

use std::time::Duration;

use kadr_shared::{id::ModelName, nats::Nats, subjects};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

/// Well below what runners take for silence.
const PERIOD: Duration = Duration::from_millis(500);

/// For ever.
pub(super) async fn run(nats: Nats, models: Vec<ModelName>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // What is buffered during an outage would be heard after it, and all at once.
        if !nats.is_connected() {
            continue;
        }
        for model in &models {
            match timeout(PERIOD, nats.client.publish(subjects::workers(model), "".into())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "could not show a sign of life"),
                Err(_) => debug!("could not show a sign of life in time"),
            }
        }
    }
}
