//! What is going to be done, made from the seed alone: which command to which scenario when, and what is broken when.
//!
//! The same seed gives the same plan. How long things really take differs from run to run, and so does what a command
//! meets; nothing here knows about that.

use std::time::Duration;

use fastrand::Rng;

use crate::process::Kind;

/// Scenarios of a short clip, whose frames are counted.
pub const FILES: usize = 20;

/// How much there is of everything.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub nodes: usize,
    pub orchestrators: usize,
    pub runners: usize,
    pub inference: usize,
    pub apis: usize,
    pub states: usize,
    pub kills: usize,
    /// At least so long, also with few kills.
    pub least: Duration,
}

impl Size {
    pub const fn scenarios(&self) -> usize {
        FILES + self.states
    }

    pub const fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Nats => self.nodes,
            Kind::Orchestrator => self.orchestrators,
            Kind::Runner => self.runners,
            Kind::Inference => self.inference,
            Kind::Api => self.apis,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Create,
    Reconfigure,
    Start,
    Stop,
    Delete,
}

impl Ask {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Reconfigure => "reconfigure",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Delete => "delete",
        }
    }
}

/// What follows an answer, to see whether keys are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    No,
    /// The same once more, after a time, from another api.
    Same,
    /// Something else under the same key.
    Other,
}

/// A command, and when it is sent (from the load's beginning).
#[derive(Debug, Clone)]
pub struct Command {
    pub at: Duration,
    pub scenario: usize,
    pub ask: Ask,
    /// Settings differ by it.
    pub variant: u32,
    /// Straight into the inbox instead of by an api.
    pub direct: bool,
    pub again: Again,
    /// For the choices made while it is sent: which api, which pause.
    pub seed: u64,
}

/// What is done to processes, connections, disks and clocks.
#[derive(Debug, Clone, PartialEq)]
pub enum Blow {
    Kill {
        kind: Kind,
        which: usize,
        down: Duration,
    },
    Freeze {
        kind: Kind,
        which: usize,
        frozen: Duration,
    },
    /// Asked to end in order, and started again.
    Drain {
        kind: Kind,
        which: usize,
        down: Duration,
    },
    /// All connections of a service with NATS, or (of `Kind::Nats`) all of a node with services.
    Cut {
        kind: Kind,
        which: usize,
        cut: Duration,
    },
    Stall {
        kind: Kind,
        which: usize,
        stalled: Duration,
    },
    Delay {
        kind: Kind,
        which: usize,
        delayed: Duration,
        by: Duration,
    },
    FillDisk {
        full: Duration,
    },
    /// The clock of one service is so many milliseconds off from now on.
    Jump {
        kind: Kind,
        which: usize,
        offset_ms: i64,
    },
}

impl Blow {
    /// Whether it is one of the kills that are counted.
    pub const fn is_kill(&self) -> bool {
        matches!(self, Self::Kill { .. } | Self::Freeze { .. })
    }

    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Freeze { .. } => "freeze",
            Self::Drain { .. } => "drain",
            Self::Cut { .. } => "cut",
            Self::Stall { .. } => "stall",
            Self::Delay { .. } => "delay",
            Self::FillDisk { .. } => "fill_disk",
            Self::Jump { .. } => "jump",
        }
    }
}

/// A blow, and the pause before it.
#[derive(Debug, Clone)]
pub struct Timed {
    pub pause: Duration,
    pub blow: Blow,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub commands: Vec<Command>,
    pub blows: Vec<Timed>,
    /// How long commands go on.
    pub load: Duration,
}

/// All scenarios are created in this time, before anything is broken.
pub const WARM_UP: Duration = Duration::from_secs(20);
/// The mean pause between two commands, and how often a crowd of starts comes that the slots do not suffice for.
const COMMAND_EVERY_MS: u64 = 220;
const CROWD_EVERY: Duration = Duration::from_secs(45);
const CROWD: usize = 40;
/// A run is taken to have ended by itself after this time.
const RUN_MS: u64 = 15_000;

impl Plan {
    pub fn new(seed: u64, size: &Size, only: &[String]) -> Self {
        let mut random = Rng::with_seed(seed);
        let (mut for_blows, mut for_commands) = (random.fork(), random.fork());
        let blows = blows(&mut for_blows, size, only);
        // A blow takes what it lasts, too, but others go on meanwhile.
        let broken: Duration = blows.iter().map(|timed| timed.pause).sum();
        let load = WARM_UP + size.least.max(broken + Duration::from_secs(5));
        Self { commands: commands(&mut for_commands, size, load), blows, load }
    }
}

fn seconds(random: &mut Rng, from: f64, to: f64) -> Duration {
    Duration::from_secs_f64(from + (to - from) * random.f64())
}

/// One of several with weights.
fn choose<T: Copy>(random: &mut Rng, weighted: &[(u32, T)]) -> Option<T> {
    let sum: u32 = weighted.iter().map(|(weight, _)| weight).sum();
    let mut left = if sum == 0 { return None } else { random.u32(..sum) };
    for (weight, one) in weighted {
        if left < *weight {
            return Some(*one);
        }
        left -= weight;
    }
    None
}

fn blows(random: &mut Rng, size: &Size, only: &[String]) -> Vec<Timed> {
    let mut blows = Vec::new();
    let mut kills = 0;
    while kills < size.kills && blows.len() < size.kills * 50 {
        let blow = blow(random, size);
        let target = target(&blow).map_or("disk", Kind::name);
        // Drawn all the same, so that what remains is what the whole plan has at its place.
        if !only.is_empty()
            && !only.iter().any(|o| o == blow.name() || o == target || *o == format!("{}-{target}", blow.name()))
        {
            continue;
        }
        kills += usize::from(blow.is_kill());
        blows.push(Timed { pause: seconds(random, 2.5, 5.0), blow });
    }
    blows
}

pub const fn target(blow: &Blow) -> Option<Kind> {
    match blow {
        Blow::Kill { kind, .. }
        | Blow::Freeze { kind, .. }
        | Blow::Drain { kind, .. }
        | Blow::Cut { kind, .. }
        | Blow::Stall { kind, .. }
        | Blow::Delay { kind, .. }
        | Blow::Jump { kind, .. } => Some(*kind),
        Blow::FillDisk { .. } => None,
    }
}

fn blow(random: &mut Rng, size: &Size) -> Blow {
    let kinds = [(30, Kind::Orchestrator), (30, Kind::Runner), (12, Kind::Inference), (8, Kind::Api), (20, Kind::Nats)];
    let kind = choose(random, &kinds).unwrap_or(Kind::Runner);
    let which = random.usize(..size.count(kind).max(1));
    match random.u32(..100) {
        0..38 => Blow::Kill { kind, which, down: seconds(random, 0.3, 5.0) },
        38..43 => Blow::Drain { kind, which, down: seconds(random, 0.3, 3.0) },
        43..67 => Blow::Freeze { kind, which, frozen: seconds(random, 1.0, 8.0) },
        67..75 => Blow::Cut { kind, which, cut: seconds(random, 1.0, 6.0) },
        75..81 => Blow::Stall { kind, which, stalled: seconds(random, 1.0, 6.0) },
        81..88 => Blow::Delay { kind, which, delayed: seconds(random, 3.0, 10.0), by: seconds(random, 0.02, 0.4) },
        88..97 => {
            let kind = [Kind::Orchestrator, Kind::Runner, Kind::Api][random.usize(..3)];
            let magnitude = if random.bool() { random.i64(30_000..600_000) } else { random.i64(600_000..14_400_000) };
            let offset_ms = if random.bool() { magnitude } else { -magnitude };
            Blow::Jump { kind, which: random.usize(..size.count(kind).max(1)), offset_ms }
        }
        _ => Blow::FillDisk { full: seconds(random, 3.0, 7.0) },
    }
}

/// What is believed of a scenario while its commands are planned; the system may see it otherwise.
#[derive(Clone, Copy)]
struct Belief {
    exists: bool,
    started_ms: Option<u64>,
}

fn commands(random: &mut Rng, size: &Size, load: Duration) -> Vec<Command> {
    let mut beliefs = vec![Belief { exists: true, started_ms: None }; size.scenarios()];
    let mut commands = Vec::new();
    let mut push = |random: &mut Rng, at_ms: u64, scenario: usize, ask: Ask| {
        let direct = random.u32(..100) < 6;
        let again = match random.u32(..100) {
            0..6 => Again::Same,
            6..8 => Again::Other,
            _ => Again::No,
        };
        let (variant, seed) = (random.u32(..1000), random.u64(..));
        let at = Duration::from_millis(at_ms);
        commands.push(Command {
            at,
            scenario,
            ask,
            variant,
            direct,
            again: if direct { Again::No } else { again },
            seed,
        });
    };
    let warm_up = WARM_UP.as_millis() as u64;
    for scenario in 0..size.scenarios() {
        let at = warm_up * 6 / 10 * scenario as u64 / size.scenarios() as u64;
        push(random, at, scenario, Ask::Create);
    }
    let (mut at, mut crowd) = (warm_up * 8 / 10, CROWD_EVERY.as_millis() as u64);
    while at < load.as_millis() as u64 {
        if at >= crowd {
            crowd += CROWD_EVERY.as_millis() as u64;
            for _ in 0..CROWD {
                let scenario = FILES + random.usize(..size.states.max(1)).min(size.states.saturating_sub(1));
                push(random, at, scenario, Ask::Start);
                if let Some(belief) = beliefs.get_mut(scenario) {
                    belief.started_ms = Some(at);
                }
            }
        }
        let file = random.u32(..100) < 35;
        let scenario = if file { random.usize(..FILES) } else { FILES + random.usize(..size.states.max(1)) };
        if let Some(belief) = beliefs.get_mut(scenario) {
            let ask = ask(random, belief, file, at);
            push(random, at, scenario, ask);
        }
        at += random.u64(COMMAND_EVERY_MS / 4..COMMAND_EVERY_MS * 7 / 4);
    }
    commands
}

/// Mostly what makes sense, sometimes what is to be refused.
fn ask(random: &mut Rng, belief: &mut Belief, file: bool, at: u64) -> Ask {
    let runs = belief.started_ms.is_some_and(|since| at < since + RUN_MS);
    let weighted: &[(u32, Ask)] = match (belief.exists, runs) {
        (false, _) => &[(90, Ask::Create), (3, Ask::Start), (3, Ask::Stop), (2, Ask::Delete), (2, Ask::Reconfigure)],
        // A clip's run is mostly let come to its end: that is what its frames are counted for.
        (true, true) if file => &[(30, Ask::Stop), (10, Ask::Start), (5, Ask::Reconfigure), (3, Ask::Delete)],
        (true, true) => &[(80, Ask::Stop), (6, Ask::Start), (5, Ask::Reconfigure), (5, Ask::Delete), (4, Ask::Create)],
        (true, false) if file => &[(85, Ask::Start), (7, Ask::Reconfigure), (4, Ask::Stop), (1, Ask::Delete)],
        (true, false) => {
            &[(66, Ask::Start), (13, Ask::Reconfigure), (10, Ask::Delete), (6, Ask::Stop), (5, Ask::Create)]
        }
    };
    let ask = choose(random, weighted).unwrap_or(Ask::Start);
    match (ask, belief.exists, runs) {
        (Ask::Create, false, _) => *belief = Belief { exists: true, started_ms: None },
        (Ask::Start, true, false) => belief.started_ms = Some(at),
        (Ask::Stop, ..) => belief.started_ms = None,
        (Ask::Delete, _, false) => belief.exists = false,
        _ => {}
    }
    ask
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        nodes: 3,
        orchestrators: 3,
        runners: 4,
        inference: 2,
        apis: 2,
        states: 200,
        kills: 30,
        least: Duration::ZERO,
    };

    #[test]
    fn a_seed_gives_one_plan() {
        let plan = |seed| format!("{:?}", Plan::new(seed, &SIZE, &[]));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_kind_of_blow_and_of_command_comes_and_kills_are_as_many_as_asked_for() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..10 {
            let plan = Plan::new(seed, &SIZE, &[]);
            assert_eq!(plan.blows.iter().filter(|timed| timed.blow.is_kill()).count(), SIZE.kills);
            assert!(plan.commands.iter().all(|command| command.scenario < SIZE.scenarios()));
            seen.extend(plan.blows.iter().map(|timed| timed.blow.name()));
            seen.extend(plan.commands.iter().map(|command| command.ask.name()));
        }
        assert_eq!(seen.len(), 8 + 5, "{seen:?}");
    }

    #[test]
    fn nothing_but_what_was_named_is_broken() {
        let plan = Plan::new(1, &SIZE, &["kill-orchestrator".to_owned()]);
        assert_eq!(plan.blows.len(), SIZE.kills);
        assert!(plan.blows.iter().all(|t| matches!(t.blow, Blow::Kill { kind: Kind::Orchestrator, .. })));
    }
}
