//! The published network on real pictures, given the very numbers that ONNX Runtime is given: what it says of every anchor
//! is what ONNX Runtime says, but for the last digits. By the kernels of every kind of CPU that this machine is.
//!
//! Detections of whole clips are `golden.rs`'s question.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers: what fails here fails the test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use image::{RgbImage, imageops};
use kadr_inference::{
    Store,
    fast::{Cpu, Engine, Mode},
    model::{Parameters, Plan},
    nms::Candidate,
    weights,
};
use kadr_shared::{
    catalog::Catalog,
    geometry::{InputSize, Letterbox, Size},
};

const CLASSES: usize = 80;
const LIKELY: f32 = 0.25;
const BOX_PX: f32 = 0.01;
const SCORE: f32 = 1e-4;

/// Reads a tensor, writes what the network says of it.
const PEER: &str = "
import sys, numpy, onnxruntime
model, numbers, height, width, output = sys.argv[1:]
picture = numpy.fromfile(numbers, 'float32').reshape(1, 3, int(height), int(width))
session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
session.run(None, {session.get_inputs()[0].name: picture})[0].astype('float32').tofile(output)
";

fn folder(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} was set where this was built, and is not now"))
        .into()
}

fn run(python: &Path, arguments: &[&std::ffi::OsStr]) {
    let output =
        Command::new(python).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// (3, height, width), f32 in 0..=1, RGB.
fn numbers(name: &str, input: InputSize) -> Vec<f32> {
    let picture = image::open(folder("KADR_FIXTURES").join("images").join(name)).expect("a picture").to_rgb8();
    let place = Letterbox::fit(Size { width: picture.width(), height: picture.height() }, input);
    let mut pixels = RgbImage::from_pixel(input.width(), input.height(), image::Rgb([114; 3]));
    let inside = imageops::resize(&picture, place.width, place.height, imageops::FilterType::Triangle);
    imageops::replace(&mut pixels, &inside, place.left.into(), place.top.into());
    let plane = |channel: usize| pixels.as_raw().iter().skip(channel).step_by(3).map(|&v| f32::from(v) / 255.0);
    (0..3).flat_map(plane).collect()
}

/// The best class and the box of each anchor of (4 + classes, anchors): cx, cy, w, h, then a score a class.
fn anchors(bytes: &[u8]) -> Vec<Candidate> {
    let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
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

#[test]
#[cfg_attr(not(all(kadr_fixtures, kadr_peers)), ignore = "needs KADR_FIXTURES and what scripts/peers.sh makes")]
fn f32_is_onnx_runtimes_to_the_last_digits() {
    let (fixtures, python) = (folder("KADR_FIXTURES"), folder("KADR_PEERS").join("bin/python"));
    let catalog = Catalog::built_in().unwrap();
    let model = catalog.model(&"yolov8n".parse().unwrap()).unwrap();
    let file = Store::new([fixtures.join("models")]).locate(model).unwrap();
    let parameters: Parameters = weights::parameters(&file).unwrap();
    let plan = Plan::new(model.scale, CLASSES);
    let work = tempfile::tempdir().unwrap();
    let (onnx, tensor, output) = (work.path().join("n.onnx"), work.path().join("in"), work.path().join("out"));

    for (name, size) in [("bus.jpg", "640x640"), ("zidane.jpg", "640x384")] {
        let input: InputSize = size.parse().unwrap();
        let (height, width) = (input.height().to_string(), input.width().to_string());
        let exporter = fixtures.join("tools/export_onnx.py");
        run(&python, &[exporter.as_ref(), file.path.as_ref(), onnx.as_ref(), height.as_ref(), width.as_ref()]);
        let picture = numbers(name, input);
        fs::write(&tensor, picture.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
        let script = [PEER.as_ref(), onnx.as_ref(), tensor.as_ref(), height.as_ref(), width.as_ref(), output.as_ref()];
        run(&python, &[&["-c".as_ref()], script.as_slice()].concat());
        let wanted = anchors(&fs::read(&output).unwrap());
        assert!(wanted.iter().filter(|wanted| wanted.score > LIKELY).count() > 10, "{name} shows something");

        for cpu in Cpu::here() {
            let engine = Engine::load(&plan, &parameters, Mode::F32, cpu).unwrap();
            let mut found = Vec::new();
            // All anchors, in the order in which ONNX Runtime has them.
            engine.executor(input, 1).unwrap().analyse_planes(&picture, 0.0, &mut found).unwrap();
            assert_eq!(found.len(), wanted.len(), "{name} by {cpu}");
            for (found, wanted) in found.iter().zip(&wanted) {
                assert!((found.score - wanted.score).abs() <= SCORE, "{name} by {cpu}: {found:?}, not {wanted:?}");
                // What is no number is not near.
                let near = found.bbox.iter().zip(wanted.bbox).all(|(a, b)| (a - b).abs() <= BOX_PX);
                let same = near && found.class == wanted.class;
                assert!(same || wanted.score <= LIKELY, "{name} by {cpu}: {found:?}, not {wanted:?}");
            }
        }
    }
}
