//! Clips and images, made by ffmpeg, and what ffprobe says of a video.

use std::{ffi::OsStr, path::Path, process::Command};

use super::home::Home;

/// H.264 with B-frames.
pub(crate) const H264: &str = "-c:v libx264 -bf 2 -g 12 -pix_fmt yuv420p";

/// Makes `file` of ffmpeg's moving test picture: `input` such as `s=320x240:r=25:d=2`.
pub(crate) fn clip(home: &Home, file: &str, input: &str, options: &str) {
    filmed(home, file, &format!("testsrc2={input}"), options);
}

/// Makes `file` of what a filter of ffmpeg makes.
pub(crate) fn filmed(home: &Home, file: &str, generator: &str, options: &str) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-v", "error", "-y", "-f", "lavfi", "-i", generator]);
    run(command.args(options.split_whitespace()).arg(home.path(file)));
}

/// `frames` frames of 320x240 as a usual MP4.
pub(crate) fn plain(home: &Home, file: &str, frames: u32) {
    clip(home, file, "s=320x240:r=25", &format!("-frames:v {frames} {H264}"));
}

/// Width, height, rate and number of frames of a video, as ffprobe counts them.
pub(crate) fn probe(file: &Path) -> String {
    let entries = "stream=width,height,avg_frame_rate,nb_read_frames";
    let options = ["-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries", entries, "-of"];
    run(Command::new("ffprobe").args(options).args([OsStr::new("csv=p=0"), file.as_os_str()])).trim().to_owned()
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("ffmpeg and ffprobe are installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.trim().is_empty(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
