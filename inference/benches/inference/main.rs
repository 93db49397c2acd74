//! `make bench-inference`: how long the network takes beside its peers (ONNX Runtime, OpenVINO), a JSON line a figure.
//!
//! - [`agreement`]: how far what is found is from what ONNX Runtime finds;
//! - [`passes`]: milliseconds a picture, kadr and the peers in turns;
//! - [`step`]: a worker's whole step beside the network alone;
//! - [`throughput`]: frames a second with a worker a core;
//! - [`profile`]: a table of layers, with `--profile`, and then nothing else.
//!
//! Words as arguments choose among these, the networks and the inputs (`passes yolov8n 640x640`); of what none is named
//! all is measured. Nothing here is a test: no figure fails. Where weights are missing they are random, of the right shapes:
//! speed does not depend on them ([`network`]).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that can't go on must say so")]

mod agreement;
mod contest;
mod figures;
mod kadr;
mod network;
mod passes;
mod peers;
mod picture;
mod profile;
mod step;
mod throughput;

use kadr_shared::catalog::NamedScale;

use self::{network::Network, peers::Peers, picture::Picture};

const BENCHES: [&str; 4] = ["agreement", "passes", "step", "throughput"];
const NETWORKS: [(&str, NamedScale); 2] = [("yolov8n", NamedScale::N), ("yolov8s", NamedScale::S)];
/// Width × height; the first one is the profile's.
const INPUTS: [&str; 2] = ["640x640", "640x384"];
const THREADS: [usize; 2] = [1, 2];
/// What a candidate's score must pass: kadr computes the boxes of these alone.
const CONFIDENCE: f32 = 0.25;

fn main() {
    // cargo adds `--bench`.
    let (options, words): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word.starts_with('-'));
    let names = NETWORKS.map(|(name, _)| name);
    let known = [&BENCHES[..], &names[..], &INPUTS[..]].concat();
    let unknown = words.iter().find(|word| !known.contains(&word.as_str()));
    assert!(unknown.is_none(), "there is no {}: {known:?}", unknown.unwrap());
    let chosen = |all: &[&'static str]| {
        let named: Vec<&str> = all.iter().copied().filter(|one| words.iter().any(|word| word == one)).collect();
        if named.is_empty() { all.to_vec() } else { named }
    };

    let folder = tempfile::TempDir::with_prefix("kadr-bench-").unwrap();
    let pictures = chosen(&INPUTS).into_iter().map(|input| Picture::new(input, folder.path()));
    let pictures: Vec<Picture> = pictures.collect();
    let networks = NETWORKS.into_iter().filter(|(name, _)| chosen(&names).contains(name));
    if options.iter().any(|option| option == "--profile") {
        let picture = Picture::new(INPUTS[0], folder.path());
        networks.for_each(|(name, scale)| profile::run(&Network::new(name, scale, &picture), &picture));
        return;
    }
    let peers = Peers::find();
    for (name, scale) in networks {
        let network = Network::new(name, scale, &pictures[0]);
        let engines = kadr::engines(&network, &pictures[0]);
        for picture in &pictures {
            let peers = peers.as_ref().map(|peers| peers.prepare(&network, picture, folder.path()));
            for bench in chosen(&BENCHES) {
                let peers = peers.as_ref();
                match bench {
                    "agreement" => agreement::run(&network, picture, &engines, peers, folder.path()),
                    "throughput" => throughput::run(&network, picture, &engines, peers),
                    "step" => THREADS.into_iter().for_each(|n| step::run(&network, picture, &engines, n)),
                    _ => THREADS.into_iter().for_each(|n| passes::run(&network, picture, &engines, peers, n)),
                }
            }
        }
    }
}
