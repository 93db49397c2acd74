//! Speaks for runners that have lost a scenario: after each loss, a fact under the old fence goes into the inbox, as one
//! that was held up on its way would. All of them must be void.
//!
//! Real runners notice their loss and fall silent, so that few late facts come by themselves.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull::OrderedConfig},
};
use fastrand::Rng;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::streams::{EVENTS, Message};

/// Without a message for so long, the consumer is made anew: whoever held it may be gone.
const SILENCE: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(500);

pub struct Ghost {
    context: jetstream::Context,
    random: Rng,
    next: u64,
    /// Each scenario's fence and runner.
    held: BTreeMap<String, (u64, String)>,
    sending: JoinSet<()>,
}

impl Ghost {
    pub fn new(client: async_nats::Client, seed: u64) -> Self {
        let context = jetstream::new(client);
        Self { context, random: Rng::with_seed(seed), next: 1, held: BTreeMap::new(), sending: JoinSet::new() }
    }

    /// Follows the log. Never returns.
    pub async fn run(mut self) {
        loop {
            // Whatever ended it, the log is read on from where it was.
            let _ = self.follow().await;
            sleep(RETRY).await;
        }
    }

    async fn follow(&mut self) -> Result<()> {
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next },
            ..OrderedConfig::default()
        };
        let mut feed = self.context.create_consumer_on_stream(config, EVENTS).await?.messages().await?;
        loop {
            let message = timeout(SILENCE, feed.next()).await.context("silence")?.context("the end")??;
            let message = Message::new(&message)?;
            if message.seq >= self.next {
                self.next = message.seq + 1;
                self.hear(&message);
            }
            while self.sending.try_join_next().is_some() {}
        }
    }

    fn hear(&mut self, event: &Message) {
        let scenario = event.token(2).to_owned();
        match event.token(3) {
            "runner_assigned" => {
                self.held.insert(scenario, (event.seq, event.text("/data/runner").to_owned()));
            }
            // Of a runner that was lost in the middle; one that let go has said all it had to say.
            "attempt_failed" | "run_failed" if event.text("/cause/id") == "runner_gone" => {
                if let Some((fence, runner)) = self.held.remove(&scenario) {
                    self.haunt(scenario, event.text("/data/run").to_owned(), fence, runner);
                }
            }
            _ => {}
        }
    }

    fn haunt(&mut self, scenario: String, run: String, fence: u64, runner: String) {
        let (name, fact) = self.fact(fence);
        // While it waits for a runner, soon after the next has it, and later.
        let pause = Duration::from_millis(self.random.u64(0..6_000));
        let id = format!("{fence}-{name}-0-{runner}");
        let body = json!({"id": id, "run": run, "runner": runner, "fact": fact}).to_string();
        let (context, subject) = (Arc::new(self.context.clone()), format!("kadr.in.{scenario}.run.{run}.{id}"));
        self.sending.spawn(async move {
            sleep(pause).await;
            // One that is not stored proves nothing, and harms nothing.
            if let Ok(acknowledged) = context.publish(subject, body.into()).await {
                let _ = acknowledged.await;
            }
        });
    }

    fn fact(&mut self, fence: u64) -> (&'static str, Value) {
        match self.random.u32(..6) {
            0 => ("streaming", json!({"fact": "streaming", "fence": fence})),
            1 => ("ended", json!({"fact": "ended", "fence": fence, "frames": 3, "of": null, "error": null})),
            2 => ("failed", json!({"fact": "failed", "fence": fence, "error": "a ghost's", "retry": false})),
            3 => ("left", json!({"fact": "left", "fence": fence})),
            4 => ("stopping", json!({"fact": "stopping", "fence": fence})),
            _ => ("released", json!({"fact": "released", "fence": fence, "frames": 3})),
        }
    }
}
