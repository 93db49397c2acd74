//! Tiny networks with seeded random weights, for tests that need a real model but not a good one.
//!
//! Not part of the product: behind the feature `testkit`.
#![expect(clippy::expect_used, reason = "helpers of tests: what fails here fails the test")]

use std::{cell::RefCell, collections::BTreeMap, fs, path::Path};

use candle_core::{Device, Tensor};
use kadr_shared::{catalog::Scale, id::ModelName};
use sha2::{Digest, Sha256};

use crate::{
    model::{Network, ParameterError, Plan, Source},
    weights::hex,
};

/// The labels of the tiny model.
pub const LABELS: [&str; 3] = ["person", "car", "bus"];

const NAME: &str = "tiny";
const DEPTH: f64 = 0.1;
const WIDTH: f64 = 0.01;

/// Writes the model `tiny` and a manifest that names it alone into `folder`, and returns the model's name. On ordinary
/// pictures some anchors pass a confidence of 0.25, but not all.
pub fn write_tiny_model(folder: &Path, seed: u64) -> ModelName {
    write_model(folder, &tiny_tensors(seed), "ultralytics");
    NAME.parse().expect("the name is well-formed")
}

/// The tiny model's tensors by internal name.
pub fn tiny_tensors(seed: u64) -> BTreeMap<String, Tensor> {
    tensors(Scale::Custom { depth: DEPTH, width: WIDTH, ratio: 1.0 }, LABELS.len(), seed)
}

/// Random tensors of the names and shapes that a network of this scale asks for.
pub fn tensors(scale: Scale, classes: usize, seed: u64) -> BTreeMap<String, Tensor> {
    let source = Random { seed, made: RefCell::default() };
    Network::load(&Plan::new(scale, classes), &source).expect("a network takes the shapes that it asks for");
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
        let mut state = self.made.borrow().len() as u64 ^ self.seed.rotate_left(32);
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
        } else if name.contains(".cv3.") && name.ends_with(".2.bias") {
            (0..count).map(|_| CLASS_BIAS + 0.2 * uniform()).collect()
        } else if name.ends_with(".bias") {
            (0..count).map(|_| 0.1 * uniform()).collect()
        } else {
            // As wide as keeps a signal's strength through SiLU, from layer to layer.
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

/// Of the last class layers: what no feature speaks for is unlikely, but only just.
const CLASS_BIAS: f32 = -2.0;

const GAIN: f32 = 3.0;
