//! Glass to glass: each frame shows its number, and it is noted when a player has it, straight from the camera and by way of
//! kadr. Both players are ffmpeg, so that what decoding and its queues take is in both.

use std::{collections::HashMap, process::Stdio, time::Duration};

use serde_json::json;
use tokio::{io::AsyncReadExt, process::Command, time::Instant};

use super::{
    System, print, quantile, rounded,
    system::{camera, shares},
};

/// The frame's number: so many squares of so many pixels.
pub(crate) const BITS: usize = 9;
pub(crate) const SQUARE: usize = 32;
/// Time for players to come into step, and to be measured.
const SETTLE: Duration = Duration::from_secs(6);
const MEASURE: Duration = Duration::from_secs(20);
/// A frame that takes longer is another one with the same number.
const LONGEST: Duration = Duration::from_secs(5);

pub(crate) async fn measure() {
    let system = System::start().await;
    let camera = camera(system.folder());
    system.run("glass", json!({"source": {"url": camera.url()}, "model": "yolov8n"})).await;
    let live = format!("{}/v1/scenarios/glass/live.mp4", system.api);
    let before = system.threads();
    let url = camera.url();
    let (direct, by_kadr) = tokio::join!(watch(&url), watch(&live));
    let threads = shares(&before, &system.threads(), (SETTLE + MEASURE).as_secs_f64());
    let mut behind: Vec<f64> = by_kadr
        .iter()
        .filter_map(|(number, at)| {
            // The last time that the camera's own player had it before.
            let sent =
                direct.iter().filter(|(sent, _)| sent == number).map(|(_, sent)| at.checked_duration_since(*sent));
            let spent = sent.flatten().min()?;
            (spent < LONGEST).then_some(spent.as_secs_f64() * 1000.0)
        })
        .collect();
    let scenario = system.get("glass").await;
    print(json!({
        "figure": "glass_to_glass", "over": "live.mp4", "video": "1280x720 at 25 fps", "model": "yolov8n f32",
        "frames": behind.len(), "shown": by_kadr.len(), "sent": direct.len(),
        "p50_ms": rounded(quantile(&mut behind, 0.5)), "p95_ms": rounded(quantile(&mut behind, 0.95)),
        "analysed_fps": scenario["health"]["analysed_fps"], "threads": threads,
    }));
}

/// The numbers of the frames that a player shows, and when.
async fn watch(address: &str) -> Vec<(u32, Instant)> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-fflags", "nobuffer", "-flags", "low_delay", "-threads", "1"]);
    command.args(["-probesize", "100000", "-analyzeduration", "100000"]);
    if address.starts_with("rtsp") {
        command.args(["-rtsp_transport", "tcp"]);
    }
    // The middle of each square.
    let row = format!("crop={}:2:0:{},scale={BITS}:1:flags=area,format=gray", BITS * SQUARE, SQUARE / 2);
    command.args(["-i", address, "-vf", &row, "-fps_mode", "passthrough", "-f", "rawvideo", "-"]);
    command.stdout(Stdio::piped()).kill_on_drop(true);
    let mut player = command.spawn().expect("ffmpeg is installed");
    let mut frames = player.stdout.take().unwrap();
    let begun = Instant::now();
    let mut seen = Vec::new();
    let mut squares = [0; BITS];
    while begun.elapsed() < SETTLE + MEASURE {
        let read = tokio::time::timeout(LONGEST, frames.read_exact(&mut squares)).await;
        if !matches!(read, Ok(Ok(_))) {
            break;
        }
        let number = squares.iter().enumerate().map(|(bit, luma)| u32::from(*luma > 127) << bit).sum();
        if begun.elapsed() > SETTLE {
            seen.push((number, Instant::now()));
        }
    }
    let mut last = HashMap::new();
    seen.retain(|(number, at)| last.insert(*number, *at).is_none_or(|before: Instant| *at - before > LONGEST));
    seen
}
