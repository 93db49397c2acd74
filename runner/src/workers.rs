//! Which models somebody analyses frames for, by the workers' signs of life and by their answers.
//!
//! That is how a frame that waits behind many others is told from one that nobody will ever take.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt;
use kadr_shared::{id::ModelName, nats::Nats, subjects};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::patience::RETRY;

/// More models than anybody serves: names come from the network.
const MODELS: usize = 1000;

/// When workers were heard last. Listening ends with it.
pub(crate) struct Workers {
    nats: Nats,
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
}

struct Heard {
    models: HashMap<ModelName, Instant>,
    /// Nobody could be heard before.
    since: Instant,
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    fn note(&mut self, model: ModelName, now: Instant) {
        if self.models.len() < MODELS || self.models.contains_key(&model) {
            self.models.insert(model, now);
        }
    }

    fn silence(&self, model: &ModelName, now: Instant) -> Duration {
        let last = self.models.get(model).copied().unwrap_or(self.since).max(self.since);
        now.saturating_duration_since(last)
    }
}

impl Workers {
    pub(crate) fn listen(nats: Nats) -> Self {
        let heard = Arc::new(Mutex::new(Heard { models: HashMap::new(), since: Instant::now() }));
        let task = tokio::spawn(listen(nats.clone(), heard.clone()));
        Self { nats, heard, task }
    }

    /// A worker of this model has answered.
    pub(crate) fn answered(&self, model: &ModelName) {
        lock(&self.heard).note(model.clone(), Instant::now());
    }

    /// For how long nobody was heard who could have been.
    pub(crate) fn silence(&self, model: &ModelName) -> Duration {
        let now = Instant::now();
        let mut heard = lock(&self.heard);
        if !self.nats.is_connected() {
            heard.since = now;
        }
        heard.silence(model, now)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(nats: Nats, heard: Arc<Mutex<Heard>>) {
    let mut connections = nats.connections();
    loop {
        // The client subscribes again by itself after a reconnect.
        match nats.client.subscribe(subjects::WORKERS_ALL).await {
            Ok(mut signs) => loop {
                tokio::select! {
                    sign = signs.next() => match sign {
                        Some(sign) => {
                            if let Some(model) = subjects::model_in(&sign.subject) {
                                lock(&heard).note(model, Instant::now());
                            }
                        }
                        None => break,
                    },
                    Ok(()) = connections.changed() => lock(&heard).since = Instant::now(),
                }
            },
            Err(error) => warn!(%error, "can't listen for inference workers, trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_the_last_sign_and_not_while_nothing_could_be_heard() {
        let now = Instant::now();
        let tiny: ModelName = "tiny".parse().unwrap();
        let mut heard = Heard { models: HashMap::new(), since: now };
        let later = now + Duration::from_secs(5);
        assert_eq!(heard.silence(&tiny, later), Duration::from_secs(5));
        heard.note(tiny.clone(), now + Duration::from_secs(4));
        assert_eq!(heard.silence(&tiny, later), Duration::from_secs(1));
        heard.since = later;
        assert_eq!(heard.silence(&tiny, later), Duration::ZERO);
    }
}
