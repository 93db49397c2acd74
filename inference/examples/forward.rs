//! Measures the network: milliseconds a picture, median and least, at each precision.
//!
//! usage: forward FOLDER [MODEL [CPU]]     (the folder holds the model's weights; PROFILE=1 tells each step)

use std::{error::Error, time::Instant};

use kadr_inference::{
    Store,
    fast::{Cpu, Engine, Precision},
    model::Plan,
    weights,
};
use kadr_shared::{catalog::Catalog, geometry::InputSize};

const FRAMES: usize = 40;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name the folder of models")?;
    let catalog = Catalog::find(&[&folder])?;
    let model = catalog.model(&arguments.next().unwrap_or("yolov8n".into()).parse()?)?;
    let cpu =
        arguments.next().map_or(Cpu::detect(), |name| Cpu::here().find(|c| c.name() == name).unwrap_or(Cpu::Portable));
    let parameters = weights::parameters(&Store::new([folder]).locate(model)?)?;
    let plan = Plan::new(model.scale, model.labels.len());
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let engine = Engine::load(&plan, &parameters, precision, cpu)?;
        for input in ["640x640", "640x384"] {
            let input: InputSize = input.parse()?;
            let area = input.width() as usize * input.height() as usize;
            let planes: Vec<f32> =
                (0..3 * area).map(|i| (i.wrapping_mul(2_654_435_761) >> 13 & 255) as f32 / 255.0).collect();
            for threads in [1, 2] {
                let mut executor = engine.executor(input, threads)?;
                let mut found = Vec::new();
                let mut times = Vec::new();
                executor.analyse(&planes, 0.25, &mut found)?;
                for _ in 0..FRAMES {
                    let begun = Instant::now();
                    found.clear();
                    executor.again(0.25, &mut found);
                    times.push(begun.elapsed().as_secs_f64() * 1e3);
                }
                times.sort_by(f64::total_cmp);
                println!(
                    "{precision} {cpu} {input} {threads} threads: {:.2} ms, least {:.2}",
                    times[FRAMES / 2],
                    times[0]
                );
                if std::env::var_os("PROFILE").is_some() {
                    let mut best = executor.profile(0.25);
                    for _ in 0..20 {
                        for (a, b) in best.iter_mut().zip(executor.profile(0.25)) {
                            a.elapsed = a.elapsed.min(b.elapsed);
                        }
                    }
                    for step in best {
                        let ms = step.elapsed.as_secs_f64() * 1e3;
                        println!("{ms:7.3} ms {:6.1} GFLOP/s  {}", 2.0 * step.products as f64 / ms / 1e6, step.label);
                    }
                }
            }
        }
    }
    Ok(())
}
