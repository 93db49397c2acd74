//! Contestants that take turns, and the lines that tell what came of it.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::figures::{median, print, round};

/// Between two turns: threads of the last one that still spin are asleep then.
const PAUSE: Duration = Duration::from_millis(30);

pub(crate) struct Contestant<'a> {
    /// `kadr`, or a peer's name.
    pub(crate) peer: &'static str,
    pub(crate) precision: &'static str,
    /// The kernels, where they are kadr's.
    pub(crate) cpu: Option<&'static str>,
    /// Some figures more; `None`: it can't be measured.
    pub(crate) turn: Box<dyn FnMut() -> Option<Vec<f64>> + 'a>,
    pub(crate) figures: Vec<f64>,
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
        line["peer"] = one.peer.into();
        line["precision"] = one.precision.into();
        if let Some(cpu) = one.cpu {
            line["cpu"] = cpu.into();
            for peer in all.iter().filter(|other| other.cpu.is_none() && other.precision == one.precision) {
                line[format!("ratio_{}", peer.peer)] = json!(round(median(&one.figures) / median(&peer.figures)));
            }
        }
        print(line);
    }
}
