//! Glass to glass: each frame shows its number, and it is noted when a player has it, straight from the camera and by way of
//! kadr. Both players are ffmpeg, so that what decoding and its queues take is in both.
//!
//! What a frame waited for inference is taken off it, frame by frame: the rest is what kadr adds. It waited until its result was
//! there and those of the frames before it: several are analysed at a time, and they are shown in their order. Over RTSP ffmpeg
//! shows a frame once the next one comes, the camera's own player, too: the wait is the next one's there.

use std::{collections::HashMap, path::Path, process::Stdio, time::Duration};

use kadr_shared::time::Timestamp;
use serde_json::json;
use tokio::{io::AsyncReadExt, process::Command, time::Instant};

use super::{
    System, print, quantile, rounded,
    system::{NUMBERED, Wait, camera, shares},
};

/// The frame's number: so many squares of so many pixels.
pub(crate) const BITS: usize = 9;
/// Of the camera, as the clip has it.
const FRAME_MS: f64 = 40.0;
pub(crate) const SQUARE: usize = 32;
/// Time for players to come into step, and to be measured.
const SETTLE: Duration = Duration::from_secs(6);
const MEASURE: Duration = Duration::from_secs(20);
/// A frame that takes longer is another one with the same number.
const LONGEST: Duration = Duration::from_secs(5);

/// Frames a second that are analysed: next to none, which shows what kadr takes besides inference, as many as of the cameras
/// that are counted, and all.
const ANALYSED: [f64; 3] = [0.001, 5.0, 25.0];

pub(crate) async fn measure() {
    let system = System::start().await;
    let camera = camera(system.folder());
    let clip = frames_of(&system.folder().join(NUMBERED));
    for (number, fps) in ANALYSED.into_iter().enumerate() {
        let id = format!("glass-{number}");
        let settings = json!({"source": {"url": camera.url()}, "model": "yolov8n", "preprocess": {"fps": fps}});
        system.run(&id, settings).await;
        let http = format!("{}/v1/scenarios/{id}/live.mp4", system.api);
        for (output, address, held) in [("live.mp4", http, 0), ("rtsp", format!("{}/{id}", system.rtsp), 1)] {
            let before = system.threads();
            let url = camera.url();
            let (direct, by_kadr) = tokio::join!(watch(&url), watch(&address));
            let threads = shares(&before, &system.threads(), (SETTLE + MEASURE).as_secs_f64());
            let waits = in_order(system.waits(&id).await);
            let shown = behind(&direct, &by_kadr);
            let mut own: Vec<f64> =
                shown.iter().filter_map(|shown| Some(shown.ms - wait(shown, held, &waits, clip)?)).collect();
            let mut inference: Vec<f64> = waits.iter().map(|wait| wait.ms).collect();
            let mut behind: Vec<f64> = shown.iter().map(|shown| shown.ms).collect();
            let [(p50, p95), (of_it_50, of_it_95), (own_50, own_95)] =
                [&mut behind, &mut inference, &mut own].map(|values| (quantile(values, 0.5), quantile(values, 0.95)));
            print(json!({
                "figure": "glass_to_glass", "over": output, "video": "1280x720 at 25 fps", "model": "yolov8n f32",
                "wanted_fps": fps, "analysed_fps": system.get(&id).await["health"]["analysed_fps"],
                "sent": direct.len(), "shown": by_kadr.len(), "frames": behind.len(),
                "p50_ms": rounded(p50), "p95_ms": rounded(p95),
                "inference_p50_ms": rounded(of_it_50), "inference_p95_ms": rounded(of_it_95),
                "analysed_frames": own.len(), "besides_p50_ms": rounded(own_50), "besides_p95_ms": rounded(own_95),
                "threads": threads,
            }));
        }
        system.stop(&id).await;
    }
}

/// A frame that was shown by way of kadr, and how long after the camera's own player.
struct Shown {
    number: u32,
    at: Timestamp,
    ms: f64,
}

/// How many frames a file has.
fn frames_of(file: &Path) -> u64 {
    let mut command = std::process::Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", "v", "-count_packets"]);
    command.args(["-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"]).arg(file);
    let said = command.output().expect("ffprobe is installed").stdout;
    String::from_utf8_lossy(&said).trim().parse().expect("a number of frames")
}

/// How long each frame waited for its result and for those of the frames before it.
fn in_order(mut waits: Vec<Wait>) -> Vec<Wait> {
    waits.sort_by_key(|wait| wait.taken.as_millis());
    let mut known = f64::MIN;
    for wait in &mut waits {
        let taken = wait.taken.as_millis() as f64;
        known = known.max(taken + wait.ms);
        wait.ms = known - taken;
    }
    waits
}

/// How long the frame that had a frame shown (itself, or so many after it) waited for its result: that of its number in the clip
/// (of so many frames) that was taken within the time before. The scenario is the first that asks the camera, so that the video's
/// clock begins with the clip. `None`: there is none, or GStreamer's camera has jumped in its clip, as it may when another player
/// comes.
fn wait(shown: &Shown, held: u64, waits: &[Wait], clip: u64) -> Option<f64> {
    let is_it = |wait: &&Wait| {
        let number = (wait.pts_ms / FRAME_MS).round() as u64 % clip;
        let spent = shown.at.as_millis() - wait.taken.as_millis();
        number == (u64::from(shown.number) + held) % clip && (0..LONGEST.as_millis() as i64).contains(&spent)
    };
    waits.iter().find(is_it).map(|wait| wait.ms)
}

/// The frames that both players had.
fn behind(direct: &[(u32, Instant)], by_kadr: &[(u32, Instant)]) -> Vec<Shown> {
    // Both clocks, now.
    let (now, begun) = (Timestamp::now(), Instant::now());
    let after = |(number, at): &(u32, Instant)| {
        // The last time that the camera's own player had it before.
        let sent = direct.iter().filter(|(sent, _)| sent == number).map(|(_, sent)| at.checked_duration_since(*sent));
        let spent = sent.flatten().min()?;
        let at = now.as_millis() - i64::try_from(begun.duration_since(*at).as_millis()).unwrap_or_default();
        (spent < LONGEST).then_some(Shown {
            number: *number,
            at: Timestamp::from_millis(at),
            ms: spent.as_secs_f64() * 1000.0,
        })
    };
    by_kadr.iter().filter_map(after).collect()
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
