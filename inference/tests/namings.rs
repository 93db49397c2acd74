//! One network, written under both namings, answers alike; and its names and shapes are those that are published.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers: what fails here fails the test"
)]

use std::{collections::BTreeMap, path::Path};

use candle_core::{Device, Tensor};
use kadr_inference::{Store, model, testkit, weights};
use kadr_shared::catalog::{Catalog, NamedScale, Scale};

/// Ultralytics' layer and candle's block, as their sources name them: written here once more, on purpose.
const PAIRS: [(&str, &str); 17] = [
    ("model.0.", "net.b1.0."),
    ("model.1.", "net.b1.1."),
    ("model.2.", "net.b2.0."),
    ("model.3.", "net.b2.1."),
    ("model.4.", "net.b2.2."),
    ("model.5.", "net.b3.0."),
    ("model.6.", "net.b3.1."),
    ("model.7.", "net.b4.0."),
    ("model.8.", "net.b4.1."),
    ("model.9.", "net.b5.0."),
    ("model.12.", "fpn.n1."),
    ("model.15.", "fpn.n2."),
    ("model.16.", "fpn.n3."),
    ("model.18.", "fpn.n4."),
    ("model.19.", "fpn.n5."),
    ("model.21.", "fpn.n6."),
    ("model.22.", "head."),
];

fn candles(name: &str) -> String {
    let (ours, theirs) = PAIRS.iter().find(|(ours, _)| name.starts_with(ours)).expect("a known layer");
    name.replacen(ours, theirs, 1).replace(".m.", ".bottleneck.")
}

/// The same network as candle keeps it: every folded convolution becomes one without bias and a batch norm of random
/// statistics that leads to the same product.
fn unfolded(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let mut out = BTreeMap::new();
    for (name, tensor) in tensors {
        let Some(path) = name.strip_suffix(".conv.weight").filter(|path| !path.ends_with("dfl")) else {
            if !name.ends_with(".conv.bias") {
                out.insert(candles(name), tensor.clone());
            }
            continue;
        };
        let channels = tensor.dims()[0];
        let random = |from: f32, to: f32| Tensor::rand(from, to, channels, &Device::Cpu).unwrap();
        let (gamma, mean, variance) = (random(0.5, 1.5), random(-1.0, 1.0), random(0.5, 2.0));
        let factor = (&gamma / (&variance + 1e-3).unwrap().sqrt().unwrap()).unwrap();
        let weight = tensor.broadcast_div(&factor.reshape((channels, 1, 1, 1)).unwrap()).unwrap();
        let beta = (&tensors[&format!("{path}.conv.bias")] + (&mean * &factor).unwrap()).unwrap();
        let path = candles(&format!("{path}."));
        out.insert(format!("{path}conv.weight"), weight);
        out.insert(format!("{path}bn.weight"), gamma);
        out.insert(format!("{path}bn.bias"), beta);
        out.insert(format!("{path}bn.running_mean"), mean);
        out.insert(format!("{path}bn.running_var"), variance);
    }
    out
}

/// Boxes and scores of one random picture by the weights in `folder`.
fn answer(folder: &Path, picture: &Tensor) -> [Tensor; 2] {
    let catalog = Catalog::find(&[folder]).unwrap();
    let model = &catalog.models()[0];
    let weights = Store::new([folder]).locate(model).unwrap();
    let plan = model::Plan::new(model.scale, model.labels.len());
    let network = model::Reference::load(&plan, &weights::parameters(&weights).unwrap(), &Device::Cpu).unwrap();
    let model::Candidates { boxes, scores } = network.forward(picture).unwrap();
    [boxes, scores]
}

#[test]
fn both_namings_of_one_network_give_the_same_answer() {
    let (folded, apart) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tensors = testkit::tiny_tensors(7);
    testkit::write_model(folded.path(), &tensors, "ultralytics");
    testkit::write_model(apart.path(), &unfolded(&tensors), "candle");
    let picture = Tensor::rand(0f32, 1.0, (1, 3, 96, 160), &Device::Cpu).unwrap();
    let (a, b) = (answer(folded.path(), &picture), answer(apart.path(), &picture));
    for ((a, b), (what, limit)) in a.iter().zip(&b).zip([("box", 1e-2), ("score", 1e-4)]) {
        assert_eq!(a.dims(), b.dims());
        let worst = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < limit, "a {what} is {worst} off");
    }
}

#[test]
fn half_precision_is_read_as_single() {
    let folder = tempfile::tempdir().unwrap();
    let half = |t: Tensor| t.to_dtype(candle_core::DType::F16).unwrap();
    let tensors = testkit::tiny_tensors(7).into_iter().map(|(n, t)| (n, half(t))).collect();
    testkit::write_model(folder.path(), &tensors, "ultralytics");
    let picture = Tensor::rand(0f32, 1.0, (1, 3, 32, 64), &Device::Cpu).unwrap();
    let [boxes, scores] = answer(folder.path(), &picture);
    let anchors = 4 * 8 + 2 * 4 + 2;
    assert_eq!((boxes.dims(), scores.dims()), ([1, anchors, 4].as_slice(), [1, 3, anchors].as_slice()));
}

#[test]
fn a_tensor_that_is_missing_or_of_another_shape_is_named_with_what_was_wanted_and_found() {
    let plan = model::Plan::new(Scale::Custom { depth: 0.1, width: 0.01, ratio: 1.0 }, 3);
    let name = "model.4.m.0.cv1.conv.weight";
    let load = |tensors: BTreeMap<String, Tensor>| {
        let parameters: model::Parameters = tensors.into_iter().collect();
        model::Reference::load(&plan, &parameters, &Device::Cpu).unwrap_err().to_string()
    };
    let mut tensors = testkit::tiny_tensors(7);
    let right = tensors.remove(name).unwrap();
    let error = load(tensors.clone());
    assert!(error.contains(name) && error.contains("[4, 4, 3, 3]") && error.contains("missing"), "{error}");
    tensors.insert(name.into(), right.narrow(0, 0, 2).unwrap());
    let error = load(tensors);
    assert!(error.contains(name) && error.contains("[4, 4, 3, 3]") && error.contains("[2, 4, 3, 3]"), "{error}");
}

/// `name [1, 2]` a line.
fn published() -> BTreeMap<String, Vec<usize>> {
    let folder = std::env::var_os("KADR_FIXTURES").expect("KADR_FIXTURES is wanted where this runs, too");
    let text = std::fs::read_to_string(Path::new(&folder).join("models/candle-yolov8n-names.txt")).unwrap();
    let line = |line: &str| {
        let (name, shape) = line.split_once(' ').expect("a name and a shape");
        (name.to_owned(), serde_json::from_str(shape).expect("a shape"))
    };
    text.lines().map(line).collect()
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn the_network_asks_for_exactly_the_tensors_that_are_published() {
    let published = published();
    let shapes = |scale| -> BTreeMap<String, Vec<usize>> {
        let tensors = unfolded(&testkit::tensors(Scale::Named(scale), 80, 1));
        tensors.iter().map(|(name, t)| (name.clone(), t.dims().to_vec())).collect()
    };
    assert_eq!(shapes(NamedScale::N), published);
    // Scale s has the depth of n and twice its width, but for the box branch, the classes and the picture.
    let small = shapes(NamedScale::S);
    assert_eq!(small.keys().collect::<Vec<_>>(), published.keys().collect::<Vec<_>>());
    assert_eq!(small["net.b1.0.conv.weight"], [32, 3, 3, 3]);
    assert_eq!(small["fpn.n6.cv2.conv.weight"], [512, 768, 1, 1]);
    assert_eq!(small["head.cv3.2.0.conv.weight"], [128, 512, 3, 3]);
}
