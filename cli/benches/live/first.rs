//! How long a new viewer waits for its first picture, by ffmpeg: its own start and its look at the stream included.
//!
//! How long that look takes is the player's choice, and most of what is measured; so the same player goes to the camera
//! itself, too, and one that is told not to look long beside one that does as it likes.

use std::{process::Stdio, time::Duration};

use serde_json::json;
use tokio::{io::AsyncReadExt, process::Command, time::Instant};

use super::{System, print, quantile, rounded, system::camera};

/// Viewers of each output, one after another.
const VIEWERS: usize = 3;
/// After this time without anybody, nothing is made any more, also for players of HLS: the next viewer is a first one again.
const QUIET: Duration = Duration::from_secs(16);
/// Between viewers where somebody else looks on anyway.
const PAUSE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the player looks at a stream before it plays it.
const LOOKS: [(&str, &[&str]); 2] = [("usual", &[]), ("short", &["-probesize", "32768", "-analyzeduration", "0"])];

pub(crate) async fn measure() {
    let system = System::start().await;
    let camera = camera(system.folder());
    let settings = json!({"source": {"url": camera.url()}, "model": "yolov8n", "preprocess": {"fps": 5}});
    system.run("first", settings).await;
    let scenario = format!("{}/v1/scenarios/first", system.api);
    let outputs = ["live.mp4", "live.m3u8", "live.mjpeg"].map(|kind| (kind, format!("{scenario}/{kind}")));
    let rtsp = [("rtsp", format!("{}/first", system.rtsp)), ("the camera itself", camera.url())];
    for (output, address) in outputs.into_iter().chain(rtsp) {
        for (look, options) in LOOKS {
            for alone in [true, false] {
                // Somebody else who looks on already.
                let other =
                    (!alone).then(|| player(&format!("{scenario}/live.mp4"), &[], &["-f", "null"]).spawn().unwrap());
                let mut waited = Vec::new();
                for _ in 0..VIEWERS {
                    tokio::time::sleep(if alone { QUIET } else { PAUSE }).await;
                    waited.extend(first(&address, options).await);
                }
                drop(other);
                let seen = waited.len();
                let (p50, most) = (quantile(&mut waited, 0.5), quantile(&mut waited, 1.0));
                print(json!({
                    "figure": "first_picture", "of": output, "look": look, "alone": alone, "viewers": VIEWERS,
                    "seen": seen, "p50_ms": rounded(p50), "most_ms": rounded(most),
                }));
            }
        }
    }
}

fn player(address: &str, look: &[&str], output: &[&str]) -> Command {
    let mut command = Command::new("ffmpeg");
    // Not `nobuffer`: with it the player throws away what it has looked at, the first key frame with it.
    command.args(["-nostdin", "-v", "quiet", "-threads", "1"]).args(look);
    if address.starts_with("rtsp") {
        command.args(["-rtsp_transport", "tcp"]);
    }
    command.args(["-i", address]).args(output).arg("-").stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// From the player's start to its first picture, in milliseconds; none: there was none.
async fn first(address: &str, look: &[&str]) -> Option<f64> {
    let begun = Instant::now();
    let small = ["-vf", "scale=16:16", "-pix_fmt", "gray", "-frames:v", "1", "-f", "rawvideo"];
    let mut player = player(address, look, &small).spawn().expect("ffmpeg is installed");
    let mut picture = [0; 256];
    let read = tokio::time::timeout(PATIENCE, player.stdout.take()?.read_exact(&mut picture)).await;
    matches!(read, Ok(Ok(_))).then(|| begun.elapsed().as_secs_f64() * 1000.0)
}
