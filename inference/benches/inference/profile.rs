//! What each step of a pass takes on one thread: the least of many passes, so that others on the machine don't count.

use kadr_inference::fast::Timed;

use crate::{CONFIDENCE, kadr, network::Network, picture::Picture};

const PASSES: usize = 20;

pub(crate) fn run(network: &Network, picture: &Picture) {
    for engine in kadr::engines(network, picture) {
        let mut worker = kadr::Worker::new(&engine, picture, 1);
        let mut steps = worker.executor.profile(CONFIDENCE);
        for _ in 1..PASSES {
            for (step, again) in steps.iter_mut().zip(worker.executor.profile(CONFIDENCE)) {
                step.elapsed = step.elapsed.min(again.elapsed);
            }
        }
        let total = Timed {
            label: "all of it".into(),
            products: steps.iter().map(|step| step.products).sum(),
            elapsed: steps.iter().map(|step| step.elapsed).sum(),
        };
        println!(
            "{} ({} weights), {}, {}, {} by {}, 1 thread, least of {PASSES} passes, {} candidates",
            network.name,
            network.weights,
            picture.input,
            picture.name,
            engine.precision(),
            engine.cpu(),
            worker.candidates()
        );
        println!("{:>8} {:>6} {:>8}  step", "ms", "share", "GFLOP/s");
        steps.iter().chain([&total]).for_each(|step| print(step, &total));
        println!();
    }
}

fn print(step: &Timed, total: &Timed) {
    let seconds = step.elapsed.as_secs_f64();
    let share = 100.0 * seconds / total.elapsed.as_secs_f64();
    // What is no sum of products has no rate.
    let rate = if step.products == 0 { String::new() } else { format!("{:.1}", 2e-9 * step.products as f64 / seconds) };
    println!("{:8.3} {share:5.1}% {rate:>8}  {}", seconds * 1e3, step.label);
}
