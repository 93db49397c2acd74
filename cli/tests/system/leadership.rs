//! Several orchestrators on three NATS nodes: whoever leads, each command has one effect, in the order of its scenario's
//! commands.

use std::collections::HashMap;

use kadr_shared::{
    domain::{Command, CommandEnvelope, State},
    id::ScenarioId,
    inbox, log,
    nats::Nats,
    nodes,
    publish::Stored,
    subjects,
    testkit::eventually,
};

use crate::support::{cluster::Cluster, home::Home, process::Process};

const SCENARIOS: usize = 40;

struct World {
    home: Home,
    cluster: Cluster,
    nats: Nats,
    orchestrators: HashMap<u32, Process>,
    /// Inputs of commands, by scenario, in the order in which they were stored.
    sent: HashMap<ScenarioId, Vec<u64>>,
}

impl World {
    async fn start() -> Self {
        let (cluster, nats) = Cluster::start().await;
        let mut world = Self { home: Home::new(), cluster, nats, orchestrators: HashMap::new(), sent: HashMap::new() };
        (0..3).for_each(|_| world.add_orchestrator());
        world
    }

    fn add_orchestrator(&mut self) {
        let nats = self.cluster.urls.join(",");
        let process = Process::start(&mut self.home.command(["orchestrator", "--nats", &nats]));
        self.orchestrators.insert(process.pid(), process);
    }

    /// The process that leads, once one of ours other than `not` does.
    async fn leader(&self, not: Option<u32>) -> u32 {
        eventually("an orchestrator leads", || async {
            let holder = nodes::read_leader(&self.nats).await?.holder?;
            // `orchestrator-PID-chance`
            let pid = holder.orchestrator.split('-').nth(1)?.parse().ok()?;
            (self.orchestrators.contains_key(&pid) && Some(pid) != not).then_some(pid)
        })
        .await
    }

    /// `each` commands to every scenario, without waiting for what becomes of them.
    async fn command_all(&mut self, stretch: usize, each: usize) {
        let nats = &self.nats;
        let lanes = (0..SCENARIOS).map(|scenario| async move {
            let id: ScenarioId = format!("s{scenario}").parse().unwrap();
            let mut inputs = Vec::new();
            for number in 0..each {
                // A walk through all of them that differs from scenario to scenario; many are refused.
                let command = match (number * 7 + scenario * 3 + stretch) % 5 {
                    0 | 1 => Command::Create { settings: settings() },
                    2 => Command::Start,
                    3 => Command::Stop,
                    _ => Command::Delete,
                };
                let key = format!("{stretch}-{number}").parse().unwrap();
                let envelope = CommandEnvelope { id: key, actor: "test".into(), command };
                let Stored::At(input) = inbox::send_command(nats, &id, &envelope).await.unwrap() else {
                    panic!("a key of its own")
                };
                inputs.push(input);
            }
            (id, inputs)
        });
        for (id, inputs) in futures::future::join_all(lanes).await {
            self.sent.entry(id).or_default().extend(inputs);
        }
    }

    /// Waits until the log has grown by some events.
    async fn in_the_middle_of_it(&self) {
        let end = || async {
            self.nats.jetstream.get_stream(subjects::EVENTS).await.ok()?.cached_info().state.messages.into()
        };
        let before: u64 = eventually("the log's end", end).await;
        eventually("the log grows", || async { end().await.filter(|now| *now > before + 50) }).await;
    }

    /// Waits until the log holds an answer to each command; then what each scenario's log says of inputs, in its order.
    async fn answered(&self) -> HashMap<ScenarioId, Vec<u64>> {
        let mut tail = log::tail(&self.nats, 1);
        let mut answers: HashMap<ScenarioId, Vec<u64>> = HashMap::new();
        let mut states: HashMap<ScenarioId, State> = HashMap::new();
        let all: usize = self.sent.values().map(Vec::len).sum();
        let reading = async {
            let mut found = 0;
            while found < all {
                let event = log::read_data(&tail.next().await).unwrap();
                let state = states.remove(&event.scenario).unwrap_or_default();
                states.insert(event.scenario.clone(), state.evolve(event.seq, event.time, &event.cause, &event.data));
                if let Some(input) = event.cause.input {
                    answers.entry(event.scenario).or_default().push(input);
                    found += 1;
                }
            }
        };
        tokio::time::timeout(kadr_shared::testkit::PATIENCE, reading).await.expect("each command is answered");
        answers
    }
}

fn settings() -> kadr_shared::settings::Settings {
    serde_json::from_str(r#"{"source": {"url": "/data/a.mp4"}}"#).unwrap()
}

#[tokio::test]
async fn frozen_and_killed_leaders_change_nothing_about_any_command() {
    let mut world = World::start().await;
    let frozen = world.leader(None).await;
    world.command_all(0, 10).await;
    world.orchestrators[&frozen].signal("STOP");
    // A heap of commands waits for the next leader, and that one is killed while it works on many at once.
    world.command_all(1, 40).await;
    world.in_the_middle_of_it().await;
    let killed = world.leader(Some(frozen)).await;
    world.orchestrators.remove(&killed).unwrap().kill();
    // The first one wakes up in the middle of what it was deciding, and does not know that another one led.
    world.orchestrators[&frozen].signal("CONT");
    world.command_all(2, 10).await;
    world.add_orchestrator();
    world.leader(Some(killed)).await;
    world.command_all(3, 10).await;
    assert_eq!(world.answered().await, world.sent, "each once, in order");
}
