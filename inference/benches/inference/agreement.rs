//! How far kadr's boxes and scores are from ONNX Runtime's, of the same weights and the same numbers of a picture.

use std::path::Path;

use kadr_inference::{fast::Engine, nms::Candidate};
use serde_json::json;

use crate::{
    CONFIDENCE, figures,
    network::{CLASSES, Network},
    peers::Prepared,
    picture::Picture,
};

pub(crate) fn run(
    network: &Network,
    picture: &Picture,
    engines: &[Engine],
    peers: Option<&Prepared<'_>>,
    folder: &Path,
) {
    let Some(prepared) = peers else { return };
    let Some(peer) = prepared.peers.iter().find(|peer| peer.name == "onnxruntime") else { return };
    let Some(wanted) = prepared.start().output(peer, &folder.join("output.f32")) else { return };
    let wanted = anchors(&wanted);
    for engine in engines {
        let mut executor = engine.executor(picture.input, 1).expect("an executor");
        let mut found = Vec::new();
        // All anchors, in the order in which ONNX Runtime has them.
        executor.analyse_planes(&picture.planes, 0.0, &mut found).expect("a picture of its size");
        if found.len() != wanted.len() {
            continue;
        }
        let all = || found.iter().zip(&wanted);
        let likely = || all().filter(|(_, wanted)| wanted.score > CONFIDENCE);
        let sides = |(a, b): (&Candidate, &Candidate)| {
            a.bbox.iter().zip(b.bbox).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let score = |(a, b): (&Candidate, &Candidate)| (a.score - b.score).abs();
        let most = |figures: &mut dyn Iterator<Item = f32>| figures.fold(0.0, f32::max);
        figures::print(json!({
            "bench": "agreement", "peer": "kadr", "with": "onnxruntime f32", "model": network.name,
            "weights": network.weights, "picture": picture.name, "input": picture.input.to_string(),
            "precision": engine.precision().name(), "cpu": engine.cpu().name(), "candidates": likely().count(),
            "box_px": most(&mut likely().map(sides)), "score": most(&mut likely().map(score)),
            "box_px_all": most(&mut all().map(sides)), "score_all": most(&mut all().map(score)),
        }));
    }
}

/// Best classes and boxes of (4 + classes, anchors): cx, cy, w, h, then a score a class.
fn anchors(numbers: &[f32]) -> Vec<Candidate> {
    let count = numbers.len() / (4 + CLASSES);
    let at = |row: usize, anchor: usize| numbers[row * count + anchor];
    let candidate = |anchor| {
        let scores = (0..CLASSES).map(|class| (class, at(4 + class, anchor)));
        let (class, score) = scores.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        let [cx, cy, w, h] = [0, 1, 2, 3].map(|row| at(row, anchor));
        Candidate { class, score, bbox: [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0] }
    };
    (0..count).map(candidate).collect()
}
