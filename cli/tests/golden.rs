//! Reference detections: what ONNX Runtime finds with the same weights, our decoder, scaler and network find too.
//!
//! A sample of frames by default; `make golden` (`KADR_GOLDEN_STRIDE=1`) compares every frame.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::{
    collections::HashMap,
    io::BufRead,
    path::{Path, PathBuf},
};

use kadr_inference::{
    Detector, Store,
    detector::{Criteria, Options, Picture},
    fast::Precision,
};
use kadr_runner::{scale::Scaler, source};
use kadr_shared::{
    catalog::Catalog,
    geometry::{InputSize, Letterbox},
    message::detection::Detection,
    settings::{DEFAULT_MODEL, Ratio},
};
use serde::Deserialize;

/// Every how manieth frame is compared if nothing else is said.
const STRIDE: u64 = 25;
/// Detections of at least this confidence have to agree.
const SURE: f32 = 0.4;
/// With boxes that overlap at least this much.
const OVERLAP: f32 = 0.9;
const KEPT: f64 = 0.98;
const STRAY: f64 = 0.02;

#[derive(Deserialize)]
struct Line {
    frame: u64,
    detections: Vec<Object>,
}

#[derive(Clone, Deserialize)]
struct Object {
    class: usize,
    confidence: f32,
    #[serde(rename = "box")]
    bbox: [f32; 4],
}

fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
    let area = |r: [f32; 4]| (r[2] - r[0]).max(0.0) * (r[3] - r[1]).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    both / (area(a) + area(b) - both).max(f32::EPSILON)
}

fn has_partner(object: &Object, others: &[Object]) -> bool {
    others.iter().any(|other| other.class == object.class && iou(other.bbox, object.bbox) >= OVERLAP)
}

fn fixtures() -> PathBuf {
    std::env::var_os("KADR_FIXTURES").expect("KADR_FIXTURES is set when this test is built").into()
}

fn golden(name: &str) -> HashMap<u64, Vec<Object>> {
    let file = std::fs::File::open(fixtures().join("golden").join(name)).expect("golden detections");
    let lines = std::io::BufReader::new(file).lines();
    lines
        .map(|line| {
            let line: Line = serde_json::from_str(&line.unwrap()).unwrap();
            (line.frame, line.detections)
        })
        .collect()
}

/// Compares `clip` with its reference, both at this input.
fn compare(clip: &str, reference: &str, input: &str) {
    let stride = std::env::var("KADR_GOLDEN_STRIDE").map_or(STRIDE, |text| text.parse().unwrap()).max(1);
    let catalog = Catalog::built_in().unwrap();
    let model = catalog.model(&DEFAULT_MODEL.parse().unwrap()).unwrap();
    let detector = Detector::load(model, &Store::new([fixtures().join("models")]), Options::default()).unwrap();
    let criteria = Criteria::new(model, Ratio::new(0.25).unwrap(), Ratio::new(0.7).unwrap(), &[]).unwrap();
    let input: InputSize = input.parse().unwrap();
    let reference = golden(reference);

    let mut source = source::open(&absolute(clip)).unwrap();
    let fit = Letterbox::fit(source.info().size, input);
    let mut scaler = Scaler::new();
    let (mut frames, mut wanted, mut kept, mut ours, mut stray) = (0, 0, 0, 0, 0);
    while let Some(frame) = source.next_frame().unwrap() {
        frames += 1;
        if frame.number % stride != 0 {
            continue;
        }
        let planes = scaler.letterbox(&frame.picture, &fit).unwrap();
        let picture = Picture { planes: &planes, letterbox: fit, colour: frame.picture.colour() };
        let found = detector.detect(&picture, &criteria).unwrap().detections;
        let found: Vec<_> =
            found.into_iter().map(|d| Object { class: d.class, confidence: d.confidence, bbox: d.bbox }).collect();
        let expected = &reference[&frame.number];
        let sure = |object: &&Object| object.confidence >= SURE;
        wanted += expected.iter().filter(sure).count();
        kept += expected.iter().filter(sure).filter(|o| has_partner(o, &found)).count();
        ours += found.iter().filter(sure).count();
        stray += found.iter().filter(sure).filter(|o| !has_partner(o, expected)).count();
    }
    assert_eq!(frames, reference.len(), "{clip} has as many frames as its reference");
    let (kept, stray) = (kept as f64 / wanted.max(1) as f64, stray as f64 / ours.max(1) as f64);
    println!(
        "{clip}: every {stride}. frame: {wanted} wanted, {:.2} % kept; {ours} ours, {:.2} % stray",
        kept * 100.0,
        stray * 100.0
    );
    assert!(wanted > 0, "{clip}: the reference has something to compare");
    assert!(kept >= KEPT, "{clip}: {:.2} % of the golden detections are there", kept * 100.0);
    assert!(stray <= STRAY, "{clip}: {:.2} % of ours have no golden partner", stray * 100.0);
}

fn absolute(file: &str) -> PathBuf {
    std::path::absolute(fixtures().join(Path::new(file))).unwrap()
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn highway_agrees_with_the_golden_detections() {
    compare("clips/highway.mp4", "highway.640x640.jsonl", "640x640");
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn highway_agrees_at_the_input_that_fits_it_too() {
    // The file's name has the height first.
    compare("clips/highway.mp4", "highway.384x640.jsonl", "640x384");
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn car_park_agrees_with_the_golden_detections() {
    compare("clips/car-park.mp4", "car-park.640x640.jsonl", "640x640");
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn bus_agrees_with_the_golden_detections() {
    compare("images/bus.jpg", "bus.640x640.jsonl", "640x640");
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn zidane_agrees_with_the_golden_detections() {
    compare("images/zidane.jpg", "zidane.640x640.jsonl", "640x640");
}

/// bf16 and int8 against our own f32: of the sure detections, nearly all are kept, and few are added. The calibration is
/// made of one clip, the comparison of another one.
#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn lower_precisions_find_what_f32_finds() {
    let catalog = Catalog::built_in().unwrap();
    let model = catalog.model(&DEFAULT_MODEL.parse().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join("models")).unwrap().filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().ends_with(".safetensors") {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    let calibrated = std::process::Command::new(env!("CARGO_BIN_EXE_kadr"))
        .args(["models", "calibrate", DEFAULT_MODEL, "--models"])
        .arg(folder.path())
        .args(["--clip".into(), absolute("clips/car-park.mp4"), "--clip".into(), absolute("clips/persons.mp4")])
        .status();
    assert!(calibrated.unwrap().success());

    let load = |precision| {
        let options = Options { precision, ..Options::default() };
        Detector::load(model, &Store::new([folder.path()]), options).unwrap()
    };
    let exact = load(Precision::F32);
    for precision in [Precision::Bf16, Precision::Int8] {
        let (kept, stray) = agreement(&exact, &load(precision), "clips/highway.mp4");
        println!("{precision}: {:.2} % kept, {:.2} % stray", kept * 100.0, stray * 100.0);
        assert!(kept >= 0.97, "{precision}: {:.2} % of the detections are kept", kept * 100.0);
        assert!(stray <= 0.03, "{precision}: {:.2} % of the detections have no partner", stray * 100.0);
    }
}

/// Which part of `exact`'s sure detections `other` has at an overlap of 0.8, and which part of its own are strays.
fn agreement(exact: &Detector, other: &Detector, clip: &str) -> (f64, f64) {
    let input: InputSize = "640x640".parse().unwrap();
    let mut source = source::open(&absolute(clip)).unwrap();
    let fit = Letterbox::fit(source.info().size, input);
    let criteria = Criteria::new(exact.model(), Ratio::new(0.25).unwrap(), Ratio::new(0.7).unwrap(), &[]).unwrap();
    let mut scaler = Scaler::new();
    let (mut wanted, mut kept, mut ours, mut stray) = (0, 0, 0, 0);
    while let Some(frame) = source.next_frame().unwrap() {
        if frame.number % 10 != 0 {
            continue;
        }
        let planes = scaler.letterbox(&frame.picture, &fit).unwrap();
        let picture = Picture { planes: &planes, letterbox: fit, colour: frame.picture.colour() };
        let [exact, other] = [exact, other].map(|detector| detector.detect(&picture, &criteria).unwrap().detections);
        let partner =
            |d: &Detection, of: &[Detection]| of.iter().any(|o| o.class == d.class && iou(o.bbox, d.bbox) >= 0.8);
        let sure = |d: &&Detection| d.confidence >= SURE;
        wanted += exact.iter().filter(sure).count();
        kept += exact.iter().filter(sure).filter(|d| partner(d, &other)).count();
        ours += other.iter().filter(sure).count();
        stray += other.iter().filter(sure).filter(|d| !partner(d, &exact)).count();
    }
    assert!(wanted > 0);
    (kept as f64 / wanted as f64, stray as f64 / ours.max(1) as f64)
}
