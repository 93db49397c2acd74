//! The whole step of a worker beside the network alone: from a frame's I420 planes to objects in the source's pixels.

use std::time::Instant;

use kadr_inference::{
    fast::Engine,
    nms::{self, Rivals},
};
use kadr_shared::{
    geometry::{InputSize, Letterbox, Size},
    message::frame::Colour,
};
use serde_json::json;

use crate::{
    CONFIDENCE,
    figures::{median, print, round},
    kadr::Worker,
    network::Network,
    picture::Picture,
};

const ROUNDS: usize = 60;
const IOU: f32 = 0.7;
const SOURCE: Size = Size { width: 1920, height: 1080 };

pub(crate) fn run(network: &Network, picture: &Picture, engines: &[Engine], threads: usize) {
    let body = i420(&picture.planes, picture.input);
    let letterbox = Letterbox { input: picture.input, ..Letterbox::fit(SOURCE, picture.input) };
    for engine in engines {
        let mut worker = Worker::new(engine, picture, threads);
        let (mut passes, mut steps, mut objects) = (Vec::new(), Vec::new(), 0);
        // In turns, so that a load of the machine is on both.
        for _ in 0..ROUNDS {
            passes.extend(worker.times(1));
            let begun = Instant::now();
            worker.found.clear();
            worker.executor.analyse(&body, Colour::default(), CONFIDENCE, &mut worker.found).expect("a picture");
            nms::suppress(&mut worker.found, IOU, Rivals::SameClass);
            objects = worker.found.iter().map(|found| letterbox.to_source(found.bbox)).filter(|b| b[0] < b[2]).count();
            steps.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        print(json!({
            "peer": "kadr", "model": network.name, "weights": network.weights, "input": picture.input.to_string(),
            "precision": engine.precision().name(), "cpu": engine.cpu().name(), "threads": threads, "objects": objects,
            "step_median_ms": round(median(&steps)), "pass_median_ms": round(median(&passes)),
            "ratio_pass": round(median(&steps) / median(&passes)),
        }));
    }
}

/// Red, green, blue in 0..=1 as BT.601 of limited range.
fn i420(planes: &[f32], input: InputSize) -> Vec<u8> {
    let (width, height) = (input.width() as usize, input.height() as usize);
    let pixel = |x: usize, y: usize| [0, 1, 2].map(|channel| planes[(channel * height + y) * width + x]);
    let byte = |offset: f32, weights: [f32; 3], rgb: [f32; 3]| {
        (offset + weights.iter().zip(rgb).map(|(weight, colour)| weight * colour).sum::<f32>()).round() as u8
    };
    let luma = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let chroma = || (0..height).step_by(2).flat_map(|y| (0..width).step_by(2).map(move |x| (x, y)));
    let luma = luma.map(|(x, y)| byte(16.0, [65.5, 128.6, 25.0], pixel(x, y)));
    let blue = chroma().map(|(x, y)| byte(128.0, [-37.8, -74.2, 112.0], pixel(x, y)));
    let red = chroma().map(|(x, y)| byte(128.0, [112.0, -93.8, -18.2], pixel(x, y)));
    luma.chain(blue).chain(red).collect()
}
