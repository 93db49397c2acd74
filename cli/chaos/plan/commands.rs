//! The commands of a plan: mostly what makes sense, sometimes what is to be refused, now and then a crowd of starts.

use std::time::Duration;

use fastrand::Rng;

use super::{Again, Ask, Command, FILES, Size, WARM_UP, choose};

/// The mean pause between two commands, and how often a crowd of starts comes that the slots do not suffice for.
const COMMAND_EVERY_MS: u64 = 220;
const CROWD_EVERY: Duration = Duration::from_secs(45);
const CROWD: usize = 40;
/// A run is taken to have ended by itself after this time.
const RUN_MS: u64 = 15_000;

/// What is believed of a scenario while its commands are planned; the system may see it otherwise.
#[derive(Clone, Copy)]
struct Belief {
    exists: bool,
    started_ms: Option<u64>,
}

pub fn commands(random: &mut Rng, size: &Size, load: Duration) -> Vec<Command> {
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
