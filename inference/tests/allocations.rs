//! A frame allocates nothing, once memory is there: from planes to objects, at each precision.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "an allocator that counts; and a test's helpers: what fails here fails the test"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
};

use kadr_inference::{
    Detector, Store,
    detector::{Criteria, Options, Picture, calibration_path},
    fast::{Calibrator, Precision},
    model::Plan,
    testkit, weights,
};
use kadr_shared::{
    catalog::Catalog,
    geometry::{InputSize, Letterbox},
    message::frame::{Colour, i420_len},
    settings::Ratio,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_frame_allocates_nothing_after_the_first() {
    let folder = tempfile::tempdir().unwrap();
    testkit::write_tiny_model(folder.path(), 3);
    let catalog = Catalog::find(&[folder.path()]).unwrap();
    let (model, store) = (&catalog.models()[0], Store::new([folder.path()]));
    let input: InputSize = "320x192".parse().unwrap();
    let planes: Vec<u8> = (0..i420_len(input)).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();

    let located = store.locate(model).unwrap();
    let parameters = weights::parameters(&located).unwrap();
    let plan = Plan::new(model.scale, model.labels.len());
    let mut calibrator = Calibrator::new(&plan, &parameters, &located.file.sha256, input, 1).unwrap();
    calibrator.add(&planes, Colour::default()).unwrap();
    std::fs::write(calibration_path(&located), calibrator.finish().to_bytes().unwrap()).unwrap();

    let criteria = Criteria::new(model, Ratio::new(0.05).unwrap(), Ratio::new(0.7).unwrap(), &[]).unwrap();
    let letterbox = Letterbox::fit(input.size(), input);
    let picture = Picture { planes: &planes, letterbox, colour: Colour::default() };
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        for threads in [1, 2] {
            let options = Options { precision, threads: NonZeroUsize::new(threads).unwrap(), ..Options::default() };
            let detector = Detector::load(model, &store, options).unwrap();
            let mut workspace = detector.workspace(input).unwrap();
            let found = workspace.find(&picture, &criteria).unwrap().len();
            assert!(found > 0, "{precision}: what is not there costs nothing");
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for _ in 0..5 {
                assert_eq!(workspace.find(&picture, &criteria).unwrap().len(), found);
            }
            assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{precision}, {threads} threads");
        }
    }
}
