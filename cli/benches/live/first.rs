//! How long a new viewer waits for its first picture, by ffmpeg: its own start and its look at the stream included.

use std::{process::Stdio, time::Duration};

use serde_json::json;
use tokio::{io::AsyncReadExt, process::Command, time::Instant};

use super::{System, print, quantile, rounded, system::camera};

/// Viewers of each output, one after another.
const VIEWERS: usize = 5;
/// After this time without anybody, nothing is made any more: the next viewer is a first one again.
const QUIET: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn measure() {
    let system = System::start().await;
    let camera = camera(system.folder());
    let settings = json!({"source": {"url": camera.url()}, "model": "yolov8n", "preprocess": {"fps": 5}});
    system.run("first", settings).await;
    let live = format!("{}/v1/scenarios/first/live", system.api);
    let outputs = ["live.mp4", "live.m3u8", "live.mjpeg"].map(|kind| (kind, live.replace("live", kind)));
    for (output, address) in outputs.into_iter().chain([("rtsp", format!("{}/first", system.rtsp))]) {
        for alone in [true, false] {
            // Somebody else who looks on already.
            let other = (!alone).then(|| player(&format!("{live}.mp4"), &["-f", "null"]).spawn().unwrap());
            let mut waited = Vec::new();
            for _ in 0..VIEWERS {
                tokio::time::sleep(if alone { QUIET } else { Duration::from_secs(2) }).await;
                waited.extend(first(&address).await);
            }
            drop(other);
            let seen = waited.len();
            let (p50, most) = (quantile(&mut waited, 0.5), quantile(&mut waited, 1.0));
            print(json!({
                "figure": "first_picture", "of": output,
                "alone": alone, "viewers": VIEWERS, "seen": seen, "p50_ms": rounded(p50), "most_ms": rounded(most),
            }));
        }
    }
}

fn player(address: &str, output: &[&str]) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "quiet", "-fflags", "nobuffer", "-flags", "low_delay", "-threads", "1"]);
    command.args(["-probesize", "32768", "-analyzeduration", "0"]);
    if address.starts_with("rtsp") {
        command.args(["-rtsp_transport", "tcp"]);
    }
    command.args(["-i", address]).args(output).arg("-").stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// From the player's start to its first picture, in milliseconds; none: there was none.
async fn first(address: &str) -> Option<f64> {
    let begun = Instant::now();
    let small = ["-vf", "scale=16:16", "-pix_fmt", "gray", "-frames:v", "1", "-f", "rawvideo"];
    let mut player = player(address, &small).spawn().expect("ffmpeg is installed");
    let mut picture = [0; 256];
    let read = tokio::time::timeout(PATIENCE, player.stdout.take()?.read_exact(&mut picture)).await;
    matches!(read, Ok(Ok(_))).then(|| begun.elapsed().as_secs_f64() * 1000.0)
}
