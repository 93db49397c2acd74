//! The blows of a plan: what is done to which process, connection, disk or clock.

use fastrand::Rng;

use super::{Blow, Size, Timed, choose, seconds, target};
use crate::process::Kind;

pub fn blows(random: &mut Rng, size: &Size, only: &[String]) -> Vec<Timed> {
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
