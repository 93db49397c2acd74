//! Live video of scenarios, for whoever shows it: by HTTP, by RTSP.
//!
//! A runner makes a scenario's video only while somebody says that it is watched. [`Hub`] says so for this API's viewers, reads
//! each watched scenario's pictures once, however many look on, and remembers the latest. Nothing is coded here; pictures
//! are passed on as they come, and packed for players ([`fmp4`], [`hls`]).

mod channel;
pub(crate) mod fmp4;
pub(crate) mod hls;
pub(crate) mod presence;
mod viewer;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use kadr_shared::{id::ScenarioId, nats::Nats};
use tokio_util::sync::CancellationToken;

use self::channel::Channel;
pub(crate) use self::viewer::Viewer;

/// All scenarios that are watched by way of this API.
#[derive(Clone)]
pub(crate) struct Hub {
    nats: Nats,
    stop: CancellationToken,
    // Bounded by the scenarios that there are: a channel that nobody watches ends and goes.
    channels: Arc<Mutex<HashMap<ScenarioId, Arc<Channel>>>>,
}

impl Hub {
    /// `stop` ends all channels, and with them their viewers.
    pub(crate) fn new(nats: Nats, stop: CancellationToken) -> Self {
        Self { nats, stop, channels: Arc::default() }
    }

    pub(crate) const fn nats(&self) -> &Nats {
        &self.nats
    }

    /// The channel of a scenario; one that there was not begins to be read.
    pub(crate) fn channel(&self, scenario: &ScenarioId) -> Arc<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(scenario) {
            channel.ask();
            return channel.clone();
        }
        let channel = Arc::new(Channel::new());
        channels.insert(scenario.clone(), channel.clone());
        let (hub, scenario, reading) = (self.clone(), scenario.clone(), channel.clone());
        tokio::spawn(async move {
            loop {
                reading.read(&hub.nats, &scenario, &hub.stop).await;
                // Whoever asks for it just now finds it here, or finds it gone and makes another one.
                let mut channels = hub.channels.lock().unwrap_or_else(PoisonError::into_inner);
                if hub.stop.is_cancelled() || !reading.is_wanted() {
                    channels.remove(&scenario);
                    return;
                }
            }
        });
        channel
    }

    /// Watches a scenario's video.
    pub(crate) fn watch(&self, scenario: &ScenarioId) -> Viewer {
        Viewer::new(self.channel(scenario), self.stop.clone())
    }

    /// Watches it as JPEG images: those come by themselves, this makes them come.
    pub(crate) fn watch_images(&self, scenario: &ScenarioId) -> channel::Watch {
        channel::Watch::new(self.channel(scenario), channel::Kind::Images)
    }
}
