//! Which models somebody analyses frames for, by the workers' signs of life and by their answers.
//!
//! That is how a frame that waits behind many others is told from one that nobody will ever take, and how many frames of a
//! camera keep all workers busy.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt;
use kadr_shared::{
    id::{ModelName, WorkerId},
    message::worker::Sign,
    nats::Nats,
    subjects,
};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::patience::RETRY;

/// More models than anybody serves: names come from the network.
const MODELS: usize = 1000;
/// More workers of a model than are counted.
const WORKERS: usize = 100;
/// A worker says twice a second that it lives: this one is gone.
const GONE: Duration = Duration::from_secs(4);

/// When workers were heard last. Listening ends with it.
pub(crate) struct Workers {
    nats: Nats,
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
}

struct Heard {
    models: HashMap<ModelName, Model>,
    /// Nobody could be heard before.
    since: Instant,
}

struct Model {
    last: Instant,
    workers: HashMap<WorkerId, Worker>,
}

struct Worker {
    last: Instant,
    /// Cameras' frames that it analyses at the same time.
    at_once: usize,
}

impl Worker {
    fn lives(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < GONE
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    /// `worker`: who it was, and how many frames it takes, if it said so.
    fn note(&mut self, model: ModelName, worker: Option<(WorkerId, usize)>, now: Instant) {
        if self.models.len() >= MODELS && !self.models.contains_key(&model) {
            return;
        }
        let model = self.models.entry(model).or_insert_with(|| Model { last: now, workers: HashMap::new() });
        model.last = now;
        model.workers.retain(|_, worker| worker.lives(now));
        if let Some((worker, at_once)) = worker
            && (model.workers.len() < WORKERS || model.workers.contains_key(&worker))
        {
            model.workers.insert(worker, Worker { last: now, at_once });
        }
    }

    fn at_once(&self, model: &ModelName, now: Instant) -> usize {
        let workers = self.models.get(model).into_iter().flat_map(|model| model.workers.values());
        workers.filter(|worker| worker.lives(now)).map(|worker| worker.at_once).fold(0, usize::saturating_add)
    }

    fn silence(&self, model: &ModelName, now: Instant) -> Duration {
        let last = self.models.get(model).map_or(self.since, |model| model.last).max(self.since);
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
        lock(&self.heard).note(model.clone(), None, Instant::now());
    }

    /// How many of cameras' frames all workers of this model analyse at the same time.
    pub(crate) fn at_once(&self, model: &ModelName) -> usize {
        lock(&self.heard).at_once(model, Instant::now())
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
                                // A sign that can't be read is one, too.
                                let sign = serde_json::from_slice::<Sign>(&sign.payload).ok();
                                lock(&heard).note(model, sign.map(|sign| (sign.worker, sign.at_once)), Instant::now());
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
        heard.note(tiny.clone(), None, now + Duration::from_secs(4));
        assert_eq!(heard.silence(&tiny, later), Duration::from_secs(1));
        heard.since = later;
        assert_eq!(heard.silence(&tiny, later), Duration::ZERO);
    }

    #[test]
    fn workers_are_counted_while_they_live() {
        let (now, tiny) = (Instant::now(), "tiny".parse::<ModelName>().unwrap());
        let worker = |name: &str, at_once| Some((name.parse().unwrap(), at_once));
        let mut heard = Heard { models: HashMap::new(), since: now };
        assert_eq!(heard.at_once(&tiny, now), 0);
        for who in [worker("a", 1), worker("b", 3), worker("a", 2), None] {
            heard.note(tiny.clone(), who, now);
        }
        assert_eq!(heard.at_once(&tiny, now), 5);
        heard.note(tiny.clone(), worker("b", 3), now + GONE);
        assert_eq!(heard.at_once(&tiny, now + GONE), 3);
        for number in 0..2 * WORKERS {
            heard.note(tiny.clone(), worker(&format!("w{number}"), 1), now + GONE);
        }
        assert_eq!(heard.at_once(&tiny, now + GONE), 3 + WORKERS - 1);
    }
}
