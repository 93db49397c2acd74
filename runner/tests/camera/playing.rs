//! What a camera that works gives, and how its end and its refusals are told.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use kadr_runner::{
    picture::Picture,
    source::{self, Live, Source},
};
use kadr_shared::{geometry::Size, settings::Transport, testkit::TestCamera};
use tempfile::TempDir;

use super::{Ground, access, frames, impatient};

/// A clip of ffmpeg's moving test picture.
pub(crate) fn clip(folder: &TempDir, options: &str) -> PathBuf {
    let path = folder.path().join("clip.mp4");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=4"]);
    command.args("-c:v libx264 -g 25 -pix_fmt yuv420p".split(' ')).args(options.split(' ')).arg(&path);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    path
}

/// Its pictures, read as a file.
fn pictures(clip: &Path) -> Vec<Picture> {
    let mut file = source::open(clip).unwrap();
    std::iter::from_fn(|| file.next_frame().unwrap()).map(|frame| frame.picture).collect()
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn frames_are_the_clips_own_whichever_way_they_come() {
    let (folder, ground) = (tempfile::tempdir().unwrap(), Ground::new());
    for (transport, options) in [(Transport::Tcp, "-bf 0"), (Transport::Udp, "-bf 0"), (Transport::Tcp, "-bf 2")] {
        let clip = clip(&folder, options);
        let all = pictures(&clip);
        let camera = TestCamera::start(&clip, 10, None, None);
        let mut access = access(&camera.url());
        access.transport = transport;
        let mut source = ground.open(&access).unwrap();
        assert_eq!(source.info().size, Size { width: 320, height: 240 });
        let frames = frames(&mut source, 30);
        // The session joins the clip wherever it is.
        let first = all.iter().position(|picture| *picture == frames[0].picture).expect("a frame of the clip");
        for (n, frame) in frames.iter().enumerate() {
            assert_eq!(frame.number, n as u64);
            assert!(frame.picture == all[(first + n) % all.len()], "{transport:?} {options}: frame {n}");
            let due = n as f64 * 40.0;
            assert!((frame.pts_ms - due).abs() < 1.0, "{transport:?} {options}: frame {n} at {} ms", frame.pts_ms);
        }
    }
}

/// What is passed is not decoded, and what follows on it must not show that.
#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn frames_behind_those_that_nobody_wanted_are_whole() {
    let (folder, ground) = (tempfile::tempdir().unwrap(), Ground::new());
    // Key frames once a second, with pictures held back, and hardly any.
    for options in ["-bf 0", "-bf 2", "-bf 0 -g 90 -keyint_min 90"] {
        let clip = clip(&folder, options);
        let all = pictures(&clip);
        let camera = TestCamera::start(&clip, 10, None, None);
        let mut source = ground.open(&access(&camera.url())).unwrap();
        let place = |picture: &Picture| all.iter().position(|known| known == picture);
        let first = frames(&mut source, 1).remove(0);
        let begin = place(&first.picture).expect("a frame of the clip");
        for passed in [2, 45, 70] {
            for _ in 0..passed {
                source.receive(false).unwrap();
            }
            for frame in frames(&mut source, 4) {
                let since = ((frame.pts_ms - first.pts_ms) / 40.0).round() as usize;
                let place = place(&frame.picture);
                assert_eq!(place, Some((begin + since) % all.len()), "{options}: after {passed} that were passed");
            }
        }
    }
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn a_password_is_asked_for_and_refusals_are_in_plain_words() {
    let (folder, ground) = (tempfile::tempdir().unwrap(), Ground::new());
    let clip = clip(&folder, "-bf 0");
    let camera = TestCamera::start(&clip, 10, None, Some(("me", "hunter2")));
    let mut access = access(&camera.url());
    let words = ground.refusal(&access);
    assert!(words.starts_with("401: ") && words.contains("source.username"), "{words}");
    access.credentials = Some(("me".into(), "guess".into()));
    let words = ground.refusal(&access);
    assert!(words.starts_with("401: ") && words.contains("refused") && !words.contains("guess"), "{words}");
    access.credentials = Some(("me".into(), "hunter2".into()));
    frames(&mut ground.open(&access).unwrap(), 3);
    access.url.set_path("/nothing");
    let words = ground.refusal(&access);
    assert!(words.starts_with("404: ") && words.contains("/nothing"), "{words}");
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn a_camera_that_goes_away_is_an_error_and_a_stop_ends_the_wait() {
    let (folder, ground) = (tempfile::tempdir().unwrap(), Ground::new());
    let clip = clip(&folder, "-bf 0");
    let camera = TestCamera::start(&clip, 10, None, None);
    let mut source = ground.open(&access(&camera.url())).unwrap();
    frames(&mut source, 3);
    let url = camera.url();
    drop(camera);
    let error = loop {
        match source.next_frame() {
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("camera ended") || error.contains("connection"), "{error}");
    let words = ground.refusal(&impatient(&url));
    assert!(words.contains("nothing accepts connections"), "{words}");
    ground.stop.cancel();
    assert_eq!(ground.refusal(&access(&url)), "told to stop");
}
