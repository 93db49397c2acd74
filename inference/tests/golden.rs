//! The published network on the two pictures that every user of YOLO knows, against ONNX Runtime's detections.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers: what fails here fails the test"
)]

use std::{fs, path::PathBuf};

use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer, images::Image};
use image::RgbImage;
use kadr_inference::{
    Detector, Store,
    detector::{Criteria, Options, Picture},
    nms::overlap,
};
use kadr_shared::{
    catalog::Catalog,
    geometry::{InputSize, Letterbox, Size},
    message::{
        detection::Detection,
        frame::{Colour, Matrix, Range, i420_len},
    },
    settings::Ratio,
};
use yuv::{YuvChromaSubsampling, YuvConversionMode, YuvPlanarImageMut, YuvRange, YuvStandardMatrix, rgb_to_yuv420};

const NEEDS: &str = "KADR_FIXTURES is set where this was built, and is wanted where it runs";

fn fixtures() -> PathBuf {
    std::env::var_os("KADR_FIXTURES").expect(NEEDS).into()
}

/// I420 of the picture in its letterbox, as a runner would send it.
fn planes(picture: &RgbImage, letterbox: Letterbox) -> Vec<u8> {
    let (width, height) = (letterbox.input.width(), letterbox.input.height());
    let mut scaled = RgbImage::from_pixel(width, height, image::Rgb([114; 3]));
    let pixel = fast_image_resize::PixelType::U8x3;
    let source =
        Image::from_vec_u8(picture.width(), picture.height(), picture.as_raw().clone(), pixel).expect("a picture");
    let mut inside = Image::new(letterbox.width, letterbox.height, pixel);
    // As OpenCV's bilinear scaling does it, which the reference was made with: without smoothing.
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Interpolation(FilterType::Bilinear));
    Resizer::new().resize(&source, &mut inside, &options).expect("scaled");
    let inside = RgbImage::from_raw(letterbox.width, letterbox.height, inside.into_vec()).expect("a picture");
    image::imageops::replace(&mut scaled, &inside, letterbox.left.into(), letterbox.top.into());

    let mut yuv = YuvPlanarImageMut::<u8>::alloc(width, height, YuvChromaSubsampling::Yuv420);
    let (range, matrix) = (YuvRange::Full, YuvStandardMatrix::Bt601);
    rgb_to_yuv420(&mut yuv, scaled.as_raw(), width * 3, range, matrix, YuvConversionMode::Balanced).expect("planes");
    [yuv.y_plane.borrow(), yuv.u_plane.borrow(), yuv.v_plane.borrow()].concat()
}

fn detector() -> Detector {
    let catalog = Catalog::built_in().expect("a catalogue");
    let model = catalog.model(&"yolov8n".parse().expect("a name")).expect("yolov8n");
    Detector::load(model, &Store::new([fixtures().join("models")]), Options::default()).expect("weights")
}

fn detect(detector: &Detector, name: &str, input: InputSize) -> Vec<Detection> {
    let picture = image::open(fixtures().join("images").join(name)).expect("a picture").to_rgb8();
    let letterbox = Letterbox::fit(Size { width: picture.width(), height: picture.height() }, input);
    let planes = planes(&picture, letterbox);
    assert_eq!(planes.len(), i420_len(input));
    let colour = Colour { matrix: Matrix::Bt601, range: Range::Full };
    let ratio = |v| Ratio::new(v).expect("a ratio");
    let criteria = Criteria::new(detector.model(), ratio(0.25), ratio(0.7), &[]).expect("criteria");
    detector.detect(&Picture { planes: &planes, letterbox, colour }, &criteria).expect("detections").detections
}

fn golden(name: &str) -> Vec<Detection> {
    let text = fs::read_to_string(fixtures().join("golden").join(name)).expect("golden detections");
    let line: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    let detections = line["detections"].as_array().expect("detections");
    let number = |v: &serde_json::Value| v.as_f64().expect("a number") as f32;
    detections
        .iter()
        .map(|d| Detection {
            class: d["class"].as_u64().expect("a class") as usize,
            label: String::new(),
            confidence: number(&d["confidence"]),
            bbox: [0, 1, 2, 3].map(|i| number(&d["box"][i])),
        })
        .collect()
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn yolov8n_finds_what_onnx_runtime_finds() {
    let detector = detector();
    for name in ["bus", "zidane"] {
        let input: InputSize = "640x640".parse().expect("a size");
        let found = detect(&detector, &format!("{name}.jpg"), input);
        let wanted = golden(&format!("{name}.640x640.jsonl"));
        let same = |a: &Detection, b: &Detection| a.class == b.class && overlap(&a.bbox, &b.bbox) >= 0.9;
        let sure: Vec<_> = wanted.iter().filter(|w| w.confidence >= 0.4).collect();
        let kept = sure.iter().filter(|w| found.iter().any(|f| same(f, w))).count();
        // A stray has no counterpart of its class at all, not even one below the threshold that ours is near.
        let loose = |a: &Detection, b: &Detection| a.class == b.class && overlap(&a.bbox, &b.bbox) >= 0.5;
        let strays = found.iter().filter(|f| f.confidence >= 0.4 && !wanted.iter().any(|w| loose(f, w))).count();
        assert!(!sure.is_empty());
        assert!(kept as f64 >= 0.98 * sure.len() as f64, "{name}: {kept} of {} kept: {found:#?}", sure.len());
        assert!(strays as f64 <= 0.02 * sure.len() as f64, "{name}: {strays} strays: {found:#?}");
    }
}
