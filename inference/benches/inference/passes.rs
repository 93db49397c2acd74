//! Milliseconds from a picture in memory to candidates, on one thread and on two.

use std::cell::RefCell;

use kadr_inference::fast::Engine;
use serde_json::json;

use crate::{
    contest::{Contestant, compete},
    figures::{least, median, round},
    kadr::Worker,
    network::Network,
    peers::Prepared,
    picture::Picture,
};

const ROUNDS: usize = 5;
/// Passes of each round.
const PASSES: usize = 8;

pub(crate) fn run(
    network: &Network,
    picture: &Picture,
    engines: &[Engine],
    peers: Option<&Prepared<'_>>,
    threads: usize,
) {
    let process = peers.map(|peers| RefCell::new(peers.start()));
    let ours = engines.iter().map(|engine| {
        let mut worker = Worker::new(engine, picture, threads);
        Contestant::kadr(engine, worker.candidates(), Box::new(move || Some(worker.times(PASSES))))
    });
    let theirs = peers.iter().flat_map(|peers| &peers.peers).map(|peer| {
        let process = process.as_ref();
        Contestant::peer(peer, Box::new(move || process?.borrow_mut().times(peer, threads, PASSES)))
    });
    compete(ours.chain(theirs).collect(), ROUNDS, |one| {
        json!({
            "model": network.name, "weights": network.weights, "input": picture.input.to_string(),
            "picture": picture.name, "threads": threads,
            "min_ms": round(least(&one.figures)), "median_ms": round(median(&one.figures)),
        })
    });
}
