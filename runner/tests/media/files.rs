//! What every kind of file has in common besides what all sources promise: frames and times are the same, what is said of the
//! source is true, and what is cut off gives what is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kadr_runner::source::{Frame, SourceError, SourceInfo};
use tempfile::TempDir;

use crate::clips::{assert_same, clip, drain, ffmpeg, folder, open};

const CODED: &str = "-c:v libx264 -bf 2 -g 10 -pix_fmt yuv420p";
const FRAMES: usize = 50;

/// The same 50 frames in each kind of file.
fn videos(folder: &TempDir) -> Vec<PathBuf> {
    let whole = clip(folder, "s=320x240:r=25:d=2", &format!("{CODED} -movflags faststart"));
    let into = |name: &str, options: &str| {
        let path = folder.path().join(name);
        let (from, to) = (whole.display().to_string(), path.display().to_string());
        let options = options.split_whitespace();
        ffmpeg(["-i", &from, "-c", "copy"].into_iter().chain(options).chain([to.as_str()]));
        path
    };
    let others = [
        into("fragments.mp4", "-movflags frag_keyframe+empty_moov"),
        into("clip.mkv", ""),
        into("clusters.mkv", "-cluster_time_limit 200"),
        // Lengths are not known while it is written, and there is no index at its end.
        into("live.mkv", "-live 1"),
        into("clip.h264", "-bsf:v h264_mp4toannexb -f h264"),
    ];
    let sound = folder.path().join("sound.mkv");
    let (from, to) = (whole.display().to_string(), sound.display().to_string());
    ffmpeg(["-f", "lavfi", "-i", "sine=d=2", "-i", &from, "-map", "0", "-map", "1", "-c:v", "copy", &to]);
    [vec![whole.clone(), sound], others.to_vec()].concat()
}

fn holds(path: &Path, info: &SourceInfo, frames: &[Frame]) {
    let name = path.display();
    assert!(frames.iter().enumerate().all(|(n, frame)| frame.number == n as u64), "{name}: numbers");
    assert!(frames.is_sorted_by(|a, b| a.pts_ms <= b.pts_ms), "{name}: times go back");
    assert_eq!(frames[0].pts_ms, 0.0, "{name}: times begin with the first frame");
    assert!(frames.iter().all(|frame| frame.picture.size() == info.size), "{name}: the size");
    assert!(frames.iter().all(|frame| frame.picture.colour() == info.colour), "{name}: the colours");
    assert!(info.frames.is_none_or(|count| count >= frames.len() as u64), "{name}: the number of frames");
}

/// All of a file that is sound.
fn whole(path: &Path) -> (SourceInfo, Vec<Frame>) {
    let mut source = open(path).unwrap();
    let info = source.info().clone();
    let (frames, error) = drain(source.as_mut());
    assert!(error.is_none(), "{}: {error:?}", path.display());
    assert!(matches!(source.next_frame(), Ok(None)), "{}: it stays over", path.display());
    holds(path, &info, &frames);
    (info, frames)
}

#[test]
fn every_kind_of_video_gives_the_same_frames_at_the_same_times() {
    let folder = folder();
    for path in videos(&folder) {
        let (info, frames) = whole(&path);
        assert_same(&frames, &path);
        assert_eq!(frames.len(), FRAMES, "{}", path.display());
        let bare = path.extension().unwrap() == "h264";
        assert_eq!(info.frames, (!bare).then_some(FRAMES as u64), "{}", path.display());
        assert!((info.frame_rate.hz() - 25.0).abs() < 1e-9, "{}: {:?}", path.display(), info.frame_rate);
        for frame in &frames {
            let due = frame.number as f64 * 40.0;
            assert!((frame.pts_ms - due).abs() < 0.01, "{}: frame {}", path.display(), frame.number);
        }
    }
}

#[test]
fn every_kind_of_video_that_is_cut_off_gives_what_is_there() {
    let folder = folder();
    for path in videos(&folder) {
        let (whole, _) = drain(open(&path).unwrap().as_mut());
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() * 7 / 10]).unwrap();
        let name = path.display();
        let mut source = open(&path).unwrap();
        let info = source.info().clone();
        let (frames, error) = drain(source.as_mut());
        assert!((20..FRAMES).contains(&frames.len()), "{name}: {}", frames.len());
        holds(&path, &info, &frames);
        // Those that depend on a lost one may differ.
        assert!(frames.iter().zip(&whole).take(frames.len() - 4).all(|(a, b)| a == b), "{name}");
        let decoded = frames.len() as u64;
        match error {
            Some(SourceError::Truncated { decoded: told, expected }) => {
                assert!(told == decoded && expected > told, "{name}: {told} of {expected}");
            }
            // Without a list nobody knows what is missing; the last picture may be whole but for its end.
            None | Some(SourceError::Incomplete { .. }) if path.extension().unwrap() == "h264" => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_rate_that_is_no_whole_number_is_kept() {
    let folder = folder();
    let from = clip(&folder, "s=64x64:r=30000/1001:d=2", CODED);
    for (name, options) in [("a.mkv", ""), ("a.h264", "-bsf:v h264_mp4toannexb -f h264")] {
        let path = folder.path().join(name);
        let (from, to) = (from.display().to_string(), path.display().to_string());
        ffmpeg(["-i", &from, "-c", "copy"].into_iter().chain(options.split_whitespace()).chain([to.as_str()]));
        let mut source = open(&path).unwrap();
        assert!((source.info().frame_rate.hz() - 30_000.0 / 1001.0).abs() < 1e-3, "{name}");
        let (frames, _) = drain(source.as_mut());
        // Matroska's own times are whole milliseconds.
        let last = frames.last().unwrap();
        assert!((last.pts_ms - last.number as f64 * 1001.0 / 30.0).abs() <= 1.0, "{name}: {}", last.pts_ms);
    }
}

#[test]
fn images_alone_and_in_a_row_keep_the_same_promises() {
    let folder = folder();
    let pattern = folder.path().join("img%d.jpg").display().to_string();
    ffmpeg(["-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.48", "-pix_fmt", "yuvj420p", "-f", "image2", &pattern]);
    for (path, count) in [("img7.jpg", 1), ("", 12), ("img?.jpg", 9)] {
        let path = folder.path().join(path);
        let (info, frames) = whole(&path);
        assert_eq!((frames.len(), info.frames), (count, Some(count as u64)), "{}", path.display());
    }
}
