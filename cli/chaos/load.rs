//! Sends the plan's commands: by REST through apis chosen by chance, again with the same key after an unclear answer, and
//! some straight into the inbox, as the harness of another language would. Every answer is kept.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    plan::{Again, Ask, Command},
    rest::{Answer, Meaning, Read, Rest},
    sources::Sources,
};

/// Commands whose answer is waited for at the same time; more wait their turn.
const AT_ONCE: usize = 96;
/// After this time nobody asks again.
const PATIENCE: Duration = Duration::from_secs(90);
const ACTOR: &str = "chaos";

pub struct Load {
    pub rest: Rest,
    pub sources: Sources,
    /// To all nodes, without a proxy.
    inbox: async_nats::jetstream::Context,
    /// The apis take reconfigurations.
    reconfigures: bool,
    seed: u64,
    answers: Mutex<Vec<Answer>>,
    /// What the inbox said it had stored: subject and sequence.
    stored: Mutex<Vec<(String, u64)>>,
    reads: Mutex<Vec<Read>>,
}

impl Load {
    pub async fn new(rest: Rest, sources: Sources, nats: &[String], seed: u64) -> Result<Self> {
        let options = async_nats::ConnectOptions::new()
            .name("chaos-load")
            .request_timeout(Some(Duration::from_secs(3)))
            .reconnect_delay_callback(|_| Duration::from_millis(200));
        let client = options.connect(nats).await.context("no NATS node answers")?;
        let inbox = async_nats::jetstream::context::ContextBuilder::new().timeout(Duration::from_secs(3)).build(client);
        let reconfigures = rest.can_reconfigure().await;
        Ok(Self {
            rest,
            sources,
            inbox,
            reconfigures,
            seed,
            answers: Mutex::default(),
            stored: Mutex::default(),
            reads: Mutex::default(),
        })
    }

    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn stored(&self) -> Vec<(String, u64)> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn reads(&self) -> Vec<Read> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub const fn reconfigures(&self) -> bool {
        self.reconfigures
    }

    /// All commands at their times, and their answers.
    pub async fn run(self: Arc<Self>, commands: Vec<Command>) {
        let begun = Instant::now();
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for (number, command) in commands.into_iter().enumerate() {
            sleep_until(begun + command.at).await;
            while tasks.try_join_next().is_some() {}
            let Ok(turn) = turns.clone().acquire_owned().await else { return };
            let load = self.clone();
            tasks.spawn(async move {
                load.send(number, command).await;
                drop(turn);
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn send(&self, number: usize, command: Command) {
        let key = format!("chaos-{}-{number}", self.seed);
        let scenario = self.sources.name(command.scenario);
        let settings = self.sources.settings(command.scenario, command.variant);
        let mut random = Rng::with_seed(command.seed);
        if command.direct || (command.ask == Ask::Reconfigure && !self.reconfigures) {
            return self.put(&scenario, command.ask, &settings, &key).await;
        }
        let meaning = self.ask(&mut random, &scenario, command.ask, &settings, &key).await;
        if matches!(meaning, Meaning::Unclear | Meaning::Odd) {
            return;
        }
        let written = if let Meaning::Done(seq) = meaning { seq } else { None };
        self.look(&mut random, &scenario, written).await;
        let other = match command.again {
            Again::No => return,
            Again::Same => command.ask,
            Again::Other if command.ask == Ask::Start => Ask::Stop,
            Again::Other => Ask::Start,
        };
        sleep(Duration::from_millis(random.u64(200..8_000))).await;
        self.ask(&mut random, &scenario, other, &settings, &key).await;
    }

    /// Reads a scenario, maybe by another api than it was written by, which is to have seen what was written.
    async fn look(&self, random: &mut Rng, scenario: &str, at_least: Option<u64>) {
        let api = random.usize(..self.rest.apis.len().max(1));
        let query = at_least.map(|seq| format!("?at_least={seq}")).unwrap_or_default();
        let answer = self.rest.get(api, &format!("/v1/scenarios/{scenario}{query}")).await;
        let Some((status, body)) = answer else { return };
        let read = Read { scenario: scenario.to_owned(), api, at_least, status: status.as_u16(), body };
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).push(read);
    }

    /// Asks until there is a clear answer, each time whom chance names.
    pub async fn ask(&self, random: &mut Rng, scenario: &str, ask: Ask, settings: &Value, key: &str) -> Meaning {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let api = random.usize(..self.rest.apis.len().max(1));
            let answer = self.rest.ask(api, scenario, ask, settings, key).await;
            let meaning = answer.meaning();
            self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
            if meaning != Meaning::Unclear || Instant::now() >= deadline {
                return meaning;
            }
            sleep(Duration::from_millis(random.u64(100..700))).await;
        }
    }

    /// Stores a command in the inbox; a second copy of it is refused there.
    async fn put(&self, scenario: &str, ask: Ask, settings: &Value, key: &str) {
        let mut command = json!({"command": ask.name()});
        if matches!(ask, Ask::Create | Ask::Reconfigure) {
            command["settings"] = settings.clone();
        }
        let body = json!({"id": key, "actor": ACTOR, "command": command}).to_string();
        let subject = format!("kadr.in.{scenario}.cmd.{key}");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let sent = self.inbox.publish(subject.clone(), body.clone().into()).await;
            let error = match sent {
                Ok(acknowledged) => match acknowledged.await {
                    Ok(ack) => {
                        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
                        return stored.push((subject, ack.sequence));
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("per subject")) {
                return;
            }
            sleep(Duration::from_millis(300)).await;
        }
    }
}
