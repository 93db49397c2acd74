//! Contestants that take turns, and the lines that tell what came of it.

use std::{thread, time::Duration};

use kadr_inference::fast::{Cpu, Engine};
use serde_json::Value;

use crate::{
    figures::{median, print, round},
    peers::Peer,
};

/// Between two turns: threads of the last one that still spin are asleep then.
const PAUSE: Duration = Duration::from_millis(30);

/// Measures a turn: some figures more, or none where it can't be done.
type Turn<'a> = Box<dyn FnMut() -> Option<Vec<f64>> + 'a>;

pub(crate) struct Contestant<'a> {
    /// `kadr`, or a peer's name.
    name: &'static str,
    precision: &'static str,
    /// What is known of kadr alone.
    ours: Option<Ours>,
    turn: Turn<'a>,
    pub(crate) figures: Vec<f64>,
}

struct Ours {
    /// The kernels.
    cpu: Cpu,
    /// Found at each pass: the more there are, the more boxes are computed.
    candidates: usize,
}

impl<'a> Contestant<'a> {
    pub(crate) fn kadr(engine: &Engine, candidates: usize, turn: Turn<'a>) -> Self {
        let ours = Some(Ours { cpu: engine.cpu(), candidates });
        Self { name: "kadr", precision: engine.precision().name(), ours, turn, figures: Vec::new() }
    }

    pub(crate) fn peer(peer: &Peer, turn: Turn<'a>) -> Self {
        Self { name: peer.name, precision: peer.precision, ours: None, turn, figures: Vec::new() }
    }
}

/// Has all take turns, then prints a line for each: what `told` makes of its figures, and for kadr the ratio to each peer
/// of the same precision, median by median.
pub(crate) fn compete(mut all: Vec<Contestant<'_>>, rounds: usize, told: impl Fn(&Contestant<'_>) -> Value) {
    // Who is compared is measured close to one another.
    all.sort_by_key(|one| ["f32", "bf16", "int8"].iter().position(|precision| *precision == one.precision));
    for _ in 0..rounds {
        all.retain_mut(|one| {
            thread::sleep(PAUSE);
            (one.turn)().map(|figures| one.figures.extend(figures)).is_some()
        });
    }
    for one in &all {
        let mut line = told(one);
        line["peer"] = one.name.into();
        line["precision"] = one.precision.into();
        if let Some(Ours { cpu, candidates }) = one.ours {
            line["cpu"] = cpu.name().into();
            line["candidates"] = candidates.into();
            for peer in all.iter().filter(|other| other.ours.is_none() && other.precision == one.precision) {
                line[format!("ratio_{}", peer.name)] = round(median(&one.figures) / median(&peer.figures)).into();
            }
        }
        print(line);
    }
}
