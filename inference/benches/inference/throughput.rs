//! Frames a second of one worker a core, each on one thread; all share the packed weights.

use std::{
    cell::RefCell,
    thread,
    time::{Duration, Instant},
};

use kadr_inference::fast::Engine;
use serde_json::json;

use crate::{
    contest::{Contestant, compete},
    figures::{median, round},
    kadr::Worker,
    network::Network,
    peers::Prepared,
    picture::Picture,
};

const ROUNDS: usize = 3;
/// Of each round.
const TIME: Duration = Duration::from_secs(1);

pub(crate) fn run(network: &Network, picture: &Picture, engines: &[Engine], peers: Option<&Prepared<'_>>) {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let process = peers.map(|peers| RefCell::new(peers.start()));
    let ours = engines.iter().map(|engine| {
        let mut team: Vec<Worker> = (0..workers).map(|_| Worker::new(engine, picture, 1)).collect();
        let candidates = team.first().map_or(0, Worker::candidates);
        Contestant::kadr(engine, candidates, Box::new(move || Some(vec![frames_a_second(&mut team)])))
    });
    let theirs = peers.iter().flat_map(|peers| &peers.peers).map(|peer| {
        let process = process.as_ref();
        let turn = move || Some(vec![process?.borrow_mut().frames_a_second(peer, workers, TIME)?]);
        Contestant::peer(peer, Box::new(turn))
    });
    compete(ours.chain(theirs).collect(), ROUNDS, |one| {
        json!({
            "bench": "throughput", "model": network.name, "weights": network.weights,
            "input": picture.input.to_string(), "picture": picture.name, "workers": workers,
            "fps": round(median(&one.figures)),
        })
    });
}

/// Each worker makes pass after pass until the time is up.
fn frames_a_second(team: &mut [Worker]) -> f64 {
    let begun = Instant::now();
    let passes: usize = thread::scope(|scope| {
        let workers = team.iter_mut().map(|worker| {
            scope.spawn(move || {
                let mut passes = 0;
                while begun.elapsed() < TIME {
                    worker.pass();
                    passes += 1;
                }
                passes
            })
        });
        let workers: Vec<_> = workers.collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker's passes")).sum()
    });
    passes as f64 / begun.elapsed().as_secs_f64()
}
