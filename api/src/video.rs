//! Live video of scenarios, for whoever shows it: by HTTP, by RTSP.
//!
//! A runner makes a scenario's video only while somebody says that it is watched. [`Hub`] says so for this API's viewers, reads
//! each watched scenario's pictures once, however many look on, and remembers the latest. Nothing is coded here; pictures
//! are passed on as they come, and packed for players ([`fmp4`], [`hls`]).

mod channel;
pub(crate) mod fmp4;
pub(crate) mod hls;
mod images;
pub(crate) mod presence;
mod viewer;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_nats::SubscribeError;
use kadr_shared::{id::ScenarioId, nats::Nats, subjects};
use tokio_util::sync::CancellationToken;

use self::channel::Channel;
pub(crate) use self::{images::Images, viewer::Viewer};

/// All scenarios that are watched by way of this API.
#[derive(Clone)]
pub(crate) struct Hub {
    nats: Nats,
    stop: CancellationToken,
    // Bounded by the scenarios that run, which callers ask for first: a channel that nobody watches ends and goes.
    channels: Arc<Mutex<HashMap<ScenarioId, Arc<Channel>>>>,
}

impl Hub {
    /// `stop` ends all channels, and with them their viewers.
    pub(crate) fn new(nats: Nats, stop: CancellationToken) -> Self {
        Self { nats, stop, channels: Arc::default() }
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

    /// Watches it as JPEG images.
    pub(crate) async fn watch_images(&self, scenario: &ScenarioId) -> Result<Images, SubscribeError> {
        // Listened for before they are asked for.
        let images = self.nats.client.subscribe(subjects::images(scenario)).await?;
        Ok(Images::new(channel::Watch::new(self.channel(scenario), channel::Kind::Images), images))
    }
}
