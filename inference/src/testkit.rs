//! Tiny networks with seeded random weights, for tests that need a real model but not a good one.
//!
//! Not part of the product: behind the feature `testkit`.
#![expect(clippy::expect_used, reason = "helpers of tests: what fails here fails the test")]

use std::{cell::RefCell, collections::BTreeMap, fs, path::Path};

use candle_core::{Device, Tensor};
use kadr_shared::{catalog::Scale, id::ModelName};
use sha2::{Digest, Sha256};

use crate::{
    model::{ParameterError, Parameters, Plan, Reference, Source},
    weights::hex,
};

/// The labels of the tiny model.
pub const LABELS: [&str; 3] = ["person", "car", "bus"];

const NAME: &str = "tiny";
const DEPTH: f64 = 0.1;
const WIDTH: f64 = 0.01;
/// The narrowest network that the description allows.
pub const SCALE: Scale = Scale::Custom { depth: DEPTH, width: WIDTH, ratio: 1.0 };

/// Writes the model `tiny` and a manifest that names it alone into `folder`, and returns the model's name. On ordinary
/// pictures some anchors pass a confidence of 0.25, but not all; nothing that it finds means anything.
pub fn write_tiny_model(folder: &Path, seed: u64) -> ModelName {
    write_model(folder, &tiny_tensors(seed), "ultralytics");
    NAME.parse().expect("the name is well-formed")
}

/// The tiny model's tensors by internal name.
pub fn tiny_tensors(seed: u64) -> BTreeMap<String, Tensor> {
    // Some random networks see the same in every picture: the first one is taken that does not.
    let networks = (0..).map(|attempt: u64| {
        let mut tensors = tensors(SCALE, LABELS.len(), seed ^ (attempt << 16));
        calibrate(&mut tensors);
        tensors
    });
    let lively = |tensors: &BTreeMap<String, Tensor>| {
        let (passed, all) = passed(tensors, &scene(640, 384, 2.0));
        passed > all / 500 && passed < all / 12
    };
    networks.take(100).find(lively).expect("one of a hundred random networks tells pictures apart")
}

/// How many anchors pass a confidence of 0.25, of how many.
fn passed(tensors: &BTreeMap<String, Tensor>, picture: &Tensor) -> (usize, usize) {
    let parameters: Parameters = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    let network = Reference::load(&Plan::new(SCALE, LABELS.len()), &parameters, &Device::Cpu);
    let scores = network
        .expect("the network fits its tensors")
        .forward(picture)
        .and_then(|found| found.scores.squeeze(0)?.max(0)?.to_vec1::<f32>());
    let scores = scores.expect("the network computes");
    (scores.iter().filter(|&&score| score > 0.25).count(), scores.len())
}

/// Shifts each class's bias so that one anchor in [`RARITY`] of a made-up scene passes a confidence of 0.25.
fn calibrate(tensors: &mut BTreeMap<String, Tensor>) {
    let parameters: Parameters = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    let network = Reference::load(&Plan::new(SCALE, LABELS.len()), &parameters, &Device::Cpu)
        .expect("the network fits its tensors");
    let scores = network.forward(&scene(320, 192, 0.0)).and_then(|found| found.scores.squeeze(0)?.to_vec2::<f32>());
    let logit = |score: f32| (score / (1.0 - score)).ln();
    let shifts: Vec<f32> = scores
        .expect("the network computes")
        .into_iter()
        .map(|mut scores| {
            scores.sort_by(|a, b| b.total_cmp(a));
            logit(0.25) - logit(scores.get(scores.len() / RARITY).copied().unwrap_or(0.5))
        })
        .collect();
    let shifts = Tensor::new(shifts, &Device::Cpu).expect("shifts are a tensor");
    for (_, bias) in tensors.iter_mut().filter(|(name, _)| name.contains(".cv3.") && name.ends_with(".2.bias")) {
        *bias = (&*bias + &shifts).expect("there is a shift a class");
    }
}

const RARITY: usize = 150;

/// (1, 3, height, width): waves of several lengths with a few plain things before them.
fn scene(width: usize, height: usize, phase: f32) -> Tensor {
    let pixel = move |channel: usize, x: usize, y: usize| {
        let (u, v, c) = (x as f32, y as f32, channel as f32);
        let thing = (x / 60 + 2 * (y / 45)).is_multiple_of(5);
        let wave = |length: f32| ((u + 0.6 * v + 9.0 * c) / length + phase).sin();
        if thing { 0.2 + 0.25 * c } else { 0.5 + 0.2 * wave(41.0) + 0.1 * wave(9.0) + 0.05 * wave(1.7) }
    };
    let line = move |channel, y| (0..width).map(move |x| pixel(channel, x, y));
    let values: Vec<f32> = (0..3).flat_map(|c| (0..height).flat_map(move |y| line(c, y))).collect();
    Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu).expect("a scene has its size")
}

/// Random tensors of the names and shapes that a network of this scale asks for.
pub fn tensors(scale: Scale, classes: usize, seed: u64) -> BTreeMap<String, Tensor> {
    let source = Random { seed, made: RefCell::default() };
    Reference::load(&Plan::new(scale, classes), &source, &Device::Cpu)
        .expect("a network takes the shapes that it asks for");
    source.made.into_inner()
}

/// Writes `tensors` as the weights of the model `tiny`, and its manifest.
pub fn write_model(folder: &Path, tensors: &BTreeMap<String, Tensor>, naming: &str) {
    let bytes = safetensors::serialize(tensors, None).expect("tensors can be written");
    let (file, size, sha256) = (format!("{NAME}.safetensors"), bytes.len(), hex(&Sha256::digest(&bytes)));
    fs::create_dir_all(folder).expect("the folder can be made");
    fs::write(folder.join(&file), bytes).expect("the weights can be written");
    let manifest = format!(
        "[labels]\ntiny = {LABELS:?}\n\n[[model]]\nname = \"{NAME}\"\narchitecture = \"yolov8\"\n\
         scale = {{ depth = {DEPTH:?}, width = {WIDTH:?}, ratio = 1.0 }}\nlabels = \"tiny\"\nlicence = \"CC0-1.0\"\n\n\
         [[model.files]]\nfile = \"{file}\"\nbytes = {size}\nsha256 = \"{sha256}\"\nnaming = \"{naming}\"\n"
    );
    fs::write(folder.join("manifest.toml"), manifest).expect("the manifest can be written");
}

/// Makes every tensor that it is asked for, and remembers it.
struct Random {
    seed: u64,
    made: RefCell<BTreeMap<String, Tensor>>,
}

impl Source for Random {
    fn get(&self, name: &str, wanted: &[usize]) -> Result<Tensor, ParameterError> {
        let count: usize = wanted.iter().product();
        // By its name, not by when it is asked for (FNV-1a).
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash) ^ self.seed.rotate_left(32);
        let mut uniform = move || {
            // SplitMix64: the same numbers on every machine and in every version of every crate.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let values: Vec<f32> = if name.contains(".dfl.") {
            (0..count).map(|bin| bin as f32).collect()
        } else if name.ends_with(".bias") {
            (0..count).map(|_| 0.1 * uniform()).collect()
        } else {
            let inputs: usize = wanted.iter().skip(1).product();
            let reach = GAIN / (inputs as f32).sqrt();
            (0..count).map(|_| reach * uniform()).collect()
        };
        let tensor = Tensor::from_vec(values, wanted, &Device::Cpu)
            .map_err(|e| ParameterError::Tensor { name: name.to_owned(), source: e.into() })?;
        self.made.borrow_mut().insert(name.to_owned(), tensor.clone());
        Ok(tensor)
    }
}

/// Over the root of a row's length: keeps a signal's strength from layer to layer.
const GAIN: f32 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_anchors_of_another_scene_pass_but_not_all() {
        for seed in 0..6 {
            let (passed, all) = passed(&tiny_tensors(seed), &scene(640, 384, 3.0));
            assert!(passed > 5 && passed < all / 10, "seed {seed}: {passed} of {all}");
        }
    }

    #[test]
    fn a_seed_always_makes_the_same_file() {
        let written = |seed| {
            let folder = tempfile::tempdir().unwrap();
            write_tiny_model(folder.path(), seed);
            fs::read(folder.path().join("tiny.safetensors")).unwrap()
        };
        assert_eq!(written(3), written(3));
        assert_ne!(written(3), written(4));
    }
}
