//! Measures the network: milliseconds a frame, on one thread and on as many as there are.
//!
//! usage: forward FOLDER [MODEL]     (the folder holds the model's weights)

use std::{
    error::Error,
    time::{Duration, Instant},
};

use kadr_inference::{
    Detector, Store,
    detector::{Criteria, Picture},
};
use kadr_shared::{
    catalog::Catalog,
    geometry::{InputSize, Letterbox},
    message::frame::{Colour, i420_len},
    settings::Ratio,
};

const FRAMES: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name the folder of models")?;
    let catalog = Catalog::find(&[&folder])?;
    let model = catalog.model(&arguments.next().unwrap_or("yolov8n".into()).parse()?)?;
    let detector = Detector::load(model, &Store::new([folder]))?;
    for threads in 1..=std::thread::available_parallelism()?.get() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        for input in ["640x640", "640x384"] {
            let input: InputSize = input.parse()?;
            let planes: Vec<u8> = (0..i420_len(input)).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            let picture =
                Picture { planes: &planes, letterbox: Letterbox::fit(input.size(), input), colour: Colour::default() };
            let criteria = Criteria::new(model, Ratio::new(0.25)?, Ratio::new(0.7)?, &[])?;
            let mut times: Vec<(Duration, Duration)> = Vec::with_capacity(FRAMES);
            let mut found = 0;
            for _ in 0..FRAMES {
                let begun = Instant::now();
                let frame = pool.install(|| detector.detect(&picture, &criteria))?;
                found = frame.detections.len();
                times.push((frame.inference, begun.elapsed()));
            }
            times.sort();
            if let Some((network, whole)) = times.get(FRAMES / 2) {
                println!(
                    "{input}, {threads} threads: network {network:.1?}, whole frame {whole:.1?} ({found} objects)"
                );
            }
        }
    }
    Ok(())
}
