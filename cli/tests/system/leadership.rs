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
    testkit::eventually,
};

use crate::support::{cluster::Cluster, home::Home, process::Process};

const SCENARIOS: usize = 40;
/// Commands of a scenario in each stretch of the test.
const COMMANDS: usize = 12;

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

    /// Commands to all scenarios in turn, without waiting for what becomes of them.
    async fn command_all(&mut self, stretch: usize) {
        for number in 0..COMMANDS {
            for scenario in 0..SCENARIOS {
                let id: ScenarioId = format!("s{scenario}").parse().unwrap();
                // A walk through all of them that differs from scenario to scenario; many are refused.
                let command = match (number * 7 + scenario * 3 + stretch) % 5 {
                    0 | 1 => Command::Create { settings: settings() },
                    2 => Command::Start,
                    3 => Command::Stop,
                    _ => Command::Delete,
                };
                let key = format!("{stretch}-{number}").parse().unwrap();
                let envelope = CommandEnvelope { id: key, actor: "test".into(), command };
                let Stored::At(input) = inbox::send_command(&self.nats, &id, &envelope).await.unwrap() else {
                    panic!("a key of its own")
                };
                self.sent.entry(id).or_default().push(input);
            }
        }
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
async fn a_frozen_and_a_killed_leader_change_nothing_about_any_command() {
    let mut world = World::start().await;
    world.leader(None).await;
    world.command_all(0).await;

    let frozen = world.leader(None).await;
    world.orchestrators[&frozen].signal("STOP");
    world.command_all(1).await;
    world.leader(Some(frozen)).await;
    // It wakes up in the middle of what it was deciding, and does not know that another one leads.
    world.orchestrators[&frozen].signal("CONT");
    world.command_all(2).await;

    let killed = world.leader(None).await;
    world.orchestrators.remove(&killed).unwrap().kill();
    world.add_orchestrator();
    world.command_all(3).await;
    world.leader(Some(killed)).await;

    assert_eq!(world.answered().await, world.sent, "each once, in order");
}
