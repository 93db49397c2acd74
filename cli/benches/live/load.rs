//! What cameras cost: one that nobody watches, and as many as the machine carries.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    System, print,
    system::{camera, shares, total},
};

/// Analysed frames a second of each camera.
const FPS: f64 = 5.0;
/// So much of it has to be reached.
const REACHED: f64 = 0.95;
const SETTLE: Duration = Duration::from_secs(7);
const MEASURE: Duration = Duration::from_secs(10);
const MOST: usize = 24;

fn settings(url: &str, fps: f64) -> Value {
    json!({"source": {"url": url}, "model": "yolov8n", "preprocess": {"fps": fps}})
}

/// Connected, decoded, nobody watching, next to nothing analysed.
pub(crate) async fn idle() {
    let system = System::start().await;
    let camera = camera(system.folder());
    let share = async |what: &str| {
        tokio::time::sleep(SETTLE).await;
        let before = system.threads();
        tokio::time::sleep(MEASURE).await;
        let after = system.threads();
        let (cores, threads) =
            (total(&before, &after, MEASURE.as_secs_f64()), shares(&before, &after, MEASURE.as_secs_f64()));
        let [kadr, nats] = system.memory();
        print(json!({
            "figure": what, "cores": cores, "kadr_memory_mb": kadr, "nats_memory_mb": nats, "threads": threads,
        }));
    };
    share("idle_system").await;
    system.run("idle", settings(&camera.url(), 0.001)).await;
    share("idle_scenario").await;
}

/// One camera more, and one more, until one of them falls behind.
pub(crate) async fn cameras() {
    let system = System::start().await;
    let camera = camera(system.folder());
    for count in 1..=MOST {
        system.run(&format!("camera-{count}"), settings(&camera.url(), FPS)).await;
        tokio::time::sleep(SETTLE).await;
        let before = system.threads();
        tokio::time::sleep(MEASURE).await;
        let after = system.threads();
        let (used, threads) =
            (total(&before, &after, MEASURE.as_secs_f64()), shares(&before, &after, MEASURE.as_secs_f64()));
        let mut slowest = f64::INFINITY;
        for number in 1..=count {
            let health = &system.get(&format!("camera-{number}")).await["health"];
            slowest = slowest.min(health["analysed_fps"].as_f64().unwrap_or(0.0));
        }
        let carried = slowest >= FPS * REACHED;
        print(json!({
            "figure": "cameras", "cameras": count, "carried": carried, "slowest_fps": slowest,
            "cores": used, "of": std::thread::available_parallelism().map_or(0, usize::from), "threads": threads,
        }));
        if !carried {
            break;
        }
    }
}
