//! `make bench-pipeline`: the whole way of a clip beside what a user would write instead, a JSON line for each.
//!
//! - [`kadr`]: `kadr analyze`, a release build as users run it: everything through NATS, the annotated video written;
//! - [`peers`]: OpenCV with ONNX Runtime, and with OpenVINO, by a script of the reference data;
//! - [`figures`]: what a run is, and the line that tells of a contestant's runs.
//!
//! All of them take turns, round by round, so that they share the machine's good and bad moments. A path as argument is the
//! clip. Nothing here is a test: no figure fails. How fast the network is by itself is `make bench-inference`'s question.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that can't go on must say so")]

mod figures;
mod kadr;
mod peers;

use std::path::{Path, PathBuf};

use kadr_inference::{Store, fast::Precision, weights::VerifiedWeights};
use kadr_runner::source;
use kadr_shared::{catalog::Catalog, geometry::InputSize};
use serde_json::json;

use self::{
    figures::{Contestant, print},
    kadr::Kadr,
    peers::Peers,
};

const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const MODEL: &str = "yolov8n";
const ROUNDS: usize = 3;
/// Of the reference data, and of the demo.
const CLIPS: [&str; 2] = ["clips/highway.mp4", ".kadr/clips/bikes.mp4"];

/// What all contestants are given.
pub(crate) struct Task {
    clip: PathBuf,
    /// What the clip says it has.
    frames: u64,
    /// The one that kadr chooses for the clip.
    input: InputSize,
    threads: usize,
    weights: VerifiedWeights,
    /// The reference data, if there are any.
    fixtures: Option<PathBuf>,
}

fn main() {
    let task = Task::new();
    let folder = tempfile::TempDir::with_prefix("kadr-bench-").unwrap();
    let peers = Peers::prepare(&task, folder.path());
    let peers = peers.map_err(|why| print(json!({ "peers": "left out", "why": why }))).ok();
    let kadr = Kadr::new(&task, folder.path());
    let mut precisions = vec![Precision::F32, Precision::Bf16];
    match kadr.calibrate() {
        Ok(()) => precisions.push(Precision::Int8),
        Err(why) => print(json!({ "int8": "left out", "why": why })),
    }

    let mut all: Vec<Contestant> = Vec::new();
    for _ in 0..ROUNDS {
        let theirs = peers.iter().flat_map(Peers::run);
        let ours = precisions.iter().map(|&precision| ("kadr".to_owned(), precision, kadr.run(precision)));
        for (name, precision, run) in theirs.chain(ours) {
            match all.iter_mut().find(|one| one.is(&name, precision)) {
                Some(one) => one.runs.push(run),
                None => all.push(Contestant { name, precision, runs: vec![run] }),
            }
        }
    }
    all.iter().for_each(|one| print(one.line(&task, &all)));
}

impl Task {
    fn new() -> Self {
        let fixtures = std::env::var_os("KADR_FIXTURES").map(PathBuf::from);
        // cargo adds `--bench`, and runs this in the crate's folder: paths are meant from the checkout.
        let named = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
        let clip = Path::new(CHECKOUT).join(match (named, &fixtures) {
            (Some(named), _) => PathBuf::from(named),
            (None, Some(fixtures)) => fixtures.join(CLIPS[0]),
            (None, None) => CLIPS[1].into(),
        });
        let clip = clip.canonicalize().unwrap_or_else(|error| panic!("can't read {}: {error}", clip.display()));
        let source = source::open(&clip).expect("a clip that kadr can read");
        let info = source.info();

        // Those of the reference data first: its tool that writes them for the peers knows their names.
        let ours = std::env::var_os("KADR_MODELS").unwrap_or_default();
        let folders = fixtures.iter().map(|fixtures| fixtures.join("models")).chain(std::env::split_paths(&ours));
        let model = Catalog::built_in().unwrap().model(&MODEL.parse().unwrap()).unwrap().clone();
        let weights = Store::new(folders).locate(&model).unwrap_or_else(|error| panic!("{error}"));
        Self {
            frames: info.frames.expect("a clip that says how many frames it has"),
            input: InputSize::fitting(info.size),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            clip,
            weights,
            fixtures,
        }
    }
}
