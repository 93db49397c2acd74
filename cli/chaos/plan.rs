//! What is going to be done, made from the seed alone: which command to which scenario when, and what is broken when.
//!
//! The same seed gives the same plan. How long things really take differs from run to run, and so does what a command
//! meets; nothing here knows about that.

mod blows;
mod commands;

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

/// What it is done to; none: a disk.
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

impl Plan {
    pub fn new(seed: u64, size: &Size, only: &[String]) -> Self {
        let mut random = Rng::with_seed(seed);
        let (mut for_blows, mut for_commands) = (random.fork(), random.fork());
        let blows = blows::blows(&mut for_blows, size, only);
        // A blow takes what it lasts, too, but others go on meanwhile.
        let broken: Duration = blows.iter().map(|timed| timed.pause).sum();
        let load = WARM_UP + size.least.max(broken + Duration::from_secs(5));
        Self { commands: commands::commands(&mut for_commands, size, load), blows, load }
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

#[cfg(test)]
mod tests;
