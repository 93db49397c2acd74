//! What is recorded is what was read: its size, times, number of frames and colours, in a file that players take.

use std::{fs, num::NonZeroU32, path::Path};

use kadr_runner::{
    overlay::Overlay,
    picture::Picture,
    record::{RecordError, Recorded, Recorder},
    source::{FrameRate, SourceInfo},
};
use kadr_shared::{
    geometry::Size,
    message::{
        detection::Detection,
        frame::{Colour, Matrix, Range},
    },
};

use crate::clips::{assert_same, clip, ffmpeg, ffprobe, folder, frames, open, psnr};

/// Reads `from` and records it to `to` as it is.
fn copy(from: &Path, to: &Path) -> Recorded {
    let mut source = open(from).unwrap();
    let mut recorder = Recorder::create(to, source.info()).unwrap();
    while let Some(frame) = source.next_frame().unwrap() {
        recorder.push(&frame.picture, frame.pts_ms).unwrap();
    }
    recorder.finish().unwrap()
}

fn info(width: u32, height: u32) -> SourceInfo {
    SourceInfo {
        size: Size { width, height },
        frame_rate: FrameRate::DEFAULT,
        timescale: NonZeroU32::new(25).unwrap(),
        frames: None,
        colour: Colour::default(),
    }
}

#[test]
fn pictures_of_other_sizes_are_scaled_into_the_first_ones() {
    let folder = folder();
    let to = folder.path().join("recorded.mp4");
    let mut recorder = Recorder::create(&to, &info(64, 64)).unwrap();
    for (n, (width, height)) in [(64, 64), (32, 64), (640, 480), (7, 5)].into_iter().enumerate() {
        let picture = Picture::uniform(Size { width, height }, Colour::default(), [200, 128, 128]).unwrap();
        recorder.push(&picture, n as f64 * 40.0).unwrap();
    }
    recorder.finish().unwrap();
    let frames = frames(&to);
    assert_eq!(frames.len(), 4);
    let luma = |frame: usize, x: usize, y: usize| frames[frame].picture.planes()[0].data[y * 64 + x];
    assert!(luma(0, 2, 32) > 180 && luma(1, 32, 32) > 180 && luma(1, 2, 32) < 40, "upright: black beside it");
    assert!(luma(2, 2, 32) > 180 && luma(2, 32, 2) < 40, "lying: black above it");
}

#[test]
fn a_recording_is_like_its_source() {
    let folder = folder();
    let from = clip(&folder, "s=640x272:r=30000/1001:d=2", "-c:v libx264 -bf 2 -pix_fmt yuv420p");
    let to = folder.path().join("recorded.mp4");
    let recorded = copy(&from, &to);
    let entries = "stream=codec_name,width,height,pix_fmt,r_frame_rate,nb_frames,nb_read_frames,duration";
    assert_eq!(ffprobe(&to, entries), "h264,640,272,yuv420p,30000/1001,2.002000,60,60");
    assert_eq!((recorded.frames, recorded.bytes), (60, fs::metadata(&to).unwrap().len()));
    assert!((recorded.duration_ms - 2002.0).abs() < 0.1);
    // Decodes without a word, and by kadr's own reader just as by ffmpeg.
    ffmpeg(["-xerror", "-i", &to.display().to_string(), "-f", "null", "-"]);
    let (before, after) = (frames(&from), frames(&to));
    assert_same(&after, &to);
    for (a, b) in before.iter().zip(&after) {
        assert!((a.pts_ms - b.pts_ms).abs() < 0.05);
        let likeness = psnr(a.picture.bytes(), b.picture.bytes());
        assert!(likeness > 30.0, "frame {}: {likeness:.1} dB", a.number);
    }
    // Its index comes first, so that a browser can begin at once.
    let bytes = fs::read(&to).unwrap();
    let at = |kind: &[u8]| bytes.windows(4).position(|w| w == kind).unwrap();
    assert!(at(b"moov") < at(b"mdat"));
    assert!(!to.with_added_extension("part").exists());
}

#[test]
fn a_player_can_jump_to_every_other_second() {
    let folder = folder();
    let from = clip(&folder, "s=320x240:r=25:d=7", "-c:v libx264 -pix_fmt yuv420p");
    let to = folder.path().join("recorded.mp4");
    copy(&from, &to);
    let keys = ffprobe(&to, "frame=pict_type");
    let keys: Vec<_> = keys.lines().enumerate().filter(|(_, t)| t.starts_with('I')).map(|(index, _)| index).collect();
    assert!(keys.windows(2).all(|pair| pair[1] - pair[0] <= 50) && keys.last() >= Some(&125), "{keys:?}");
}

#[test]
fn uneven_timing_is_recorded() {
    let folder = folder();
    let uneven = "-vf select='not(eq(mod(n\\,5)\\,3))' -fps_mode vfr -c:v libx264 -bf 2 -pix_fmt yuv420p";
    let from = clip(&folder, "s=160x120:r=25:d=2", uneven);
    let to = folder.path().join("recorded.mp4");
    copy(&from, &to);
    let times = |file: &Path| frames(file).iter().map(|f| f.pts_ms.round()).collect::<Vec<_>>();
    assert_eq!(times(&to), times(&from));
}

#[test]
fn colour_tags_are_kept() {
    for (colour, tags) in [
        (Colour { matrix: Matrix::Bt709, range: Range::Limited }, "tv,bt709"),
        (Colour { matrix: Matrix::Bt709, range: Range::Full }, "pc,bt709"),
        (Colour { matrix: Matrix::Bt601, range: Range::Limited }, "tv,smpte170m"),
        (Colour { matrix: Matrix::Bt601, range: Range::Full }, "pc,smpte170m"),
    ] {
        let folder = folder();
        let to = folder.path().join("recorded.mp4");
        let source = SourceInfo { colour, ..info(64, 64) };
        let mut recorder = Recorder::create(&to, &source).unwrap();
        recorder.push(&Picture::uniform(source.size, colour, [120, 90, 200]).unwrap(), 0.0).unwrap();
        recorder.finish().unwrap();
        assert_eq!(ffprobe(&to, "stream=color_range,color_space"), tags);
        assert_eq!(open(&to).unwrap().info().colour, colour);
    }
}

#[test]
fn odd_and_small_and_large_pictures_are_recorded() {
    for (width, height) in [(15, 16), (33, 17), (321, 241), (17, 200), (3840, 2160), (2159, 3839)] {
        let folder = folder();
        let to = folder.path().join("recorded.mp4");
        let source = info(width, height);
        let mut recorder = Recorder::create(&to, &source).unwrap();
        for number in 0..3 {
            let picture = Picture::uniform(source.size, source.colour, [60 + number * 20, 90, 160]).unwrap();
            recorder.push(&picture, f64::from(number) * 40.0).unwrap();
        }
        recorder.finish().unwrap();
        let frames = frames(&to);
        let even = Size { width: width.next_multiple_of(2), height: height.next_multiple_of(2) };
        assert_eq!((frames.len(), frames[0].picture.size()), (3, even), "{}", source.size);
        assert!(frames[2].picture.bytes()[0].abs_diff(100) < 5);
    }
}

#[test]
fn what_can_not_be_recorded_is_refused() {
    let folder = folder();
    let to = folder.path().join("recorded.mp4");
    for (width, height) in [(4096, 2160), (2161, 2161), (14, 640), (1, 1)] {
        let refused = Recorder::create(&to, &info(width, height));
        assert!(matches!(refused, Err(RecordError::OutOfRange { .. })), "{width}x{height}");
    }
    let nowhere = folder.path().join("no/such/folder.mp4");
    assert!(matches!(Recorder::create(&nowhere, &info(64, 64)), Err(RecordError::Write { .. })));
    let mut recorder = Recorder::create(&to, &info(64, 64)).unwrap();
    let picture = Picture::uniform(Size { width: 64, height: 64 }, Colour::default(), [9; 3]).unwrap();
    recorder.push(&picture, 80.0).unwrap();
    for bad in [40.0, f64::NAN, -1.0, f64::INFINITY] {
        assert!(matches!(recorder.push(&picture, bad), Err(RecordError::Time { frame: 1, .. })), "{bad}");
    }
}

#[test]
fn an_unfinished_recording_leaves_nothing() {
    let folder = folder();
    let to = folder.path().join("recorded.mp4");
    let part = to.with_added_extension("part");
    let mut recorder = Recorder::create(&to, &info(64, 64)).unwrap();
    let picture = Picture::uniform(Size { width: 64, height: 64 }, Colour::default(), [9; 3]).unwrap();
    recorder.push(&picture, 0.0).unwrap();
    assert!(part.exists() && !to.exists());
    drop(recorder);
    assert!(!part.exists() && !to.exists());
    let empty = Recorder::create(&to, &info(64, 64)).unwrap();
    assert!(matches!(empty.finish(), Err(RecordError::Empty)));
    assert!(!part.exists() && !to.exists());
}

#[test]
fn what_is_drawn_survives_the_encoder() {
    let folder = folder();
    let from = clip(&folder, "s=640x272:r=25:d=1", "-c:v libx264 -pix_fmt yuv420p");
    let to = folder.path().join("recorded.mp4");
    let car = Detection { class: 2, label: "car".into(), confidence: 0.87, bbox: [300.0, 100.0, 420.0, 200.0] };
    let mut source = open(&from).unwrap();
    let mut overlay = Overlay::default();
    let mut recorder = Recorder::create(&to, source.info()).unwrap();
    let mut drawn = Vec::new();
    while let Some(mut frame) = source.next_frame().unwrap() {
        overlay.draw(&mut frame.picture, std::slice::from_ref(&car));
        recorder.push(&frame.picture, frame.pts_ms).unwrap();
        drawn.push(frame.picture);
    }
    recorder.finish().unwrap();
    for (frame, drawn) in frames(&to).iter().zip(&drawn) {
        // The box's right edge, where the line is green.
        for y in [130, 150, 170] {
            let found = crate::colours::rgb(&frame.picture, 419, y);
            let wanted = crate::colours::rgb(drawn, 419, y);
            assert!(wanted[1] > wanted[0] + 100.0, "the line is green: {wanted:.0?}");
            let off = wanted.iter().zip(found).map(|(w, f)| (w - f).abs()).fold(0.0, f64::max);
            assert!(off < 70.0, "frame {}: {wanted:.0?} became {found:.0?}", frame.number);
        }
    }
}
