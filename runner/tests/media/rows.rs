//! Images in a row: a folder's, or those that a pattern names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kadr_runner::source::{self, Frame, FrameRate, Play, SourceError};
use kadr_shared::telemetry::chain;
use tempfile::TempDir;

use crate::clips::{drain, ffmpeg, folder, open};

/// An image of one grey, by which it is known again.
fn image(folder: &TempDir, name: &str, size: &str, grey: u8) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let input = format!("color=c=0x{grey:02x}{grey:02x}{grey:02x}:s={size}");
    let codec = if name.ends_with("png") { "png" } else { "mjpeg" };
    let to = path.display().to_string();
    ffmpeg([
        "-f",
        "lavfi",
        "-i",
        &input,
        "-frames:v",
        "1",
        "-c:v",
        codec,
        "-pix_fmt",
        pixels(codec),
        "-f",
        "image2",
        &to,
    ]);
    path
}

fn pixels(codec: &str) -> &'static str {
    if codec == "png" { "rgb24" } else { "yuvj444p" }
}

/// By their greys.
fn seen(frames: &[Frame]) -> Vec<u8> {
    let grey = |frame: &Frame| (f64::from(frame.picture.bytes()[0]) - 16.0) * 255.0 / 219.0;
    frames.iter().map(|frame| (grey(frame) / 20.0).round() as u8).collect()
}

fn read(path: &Path, play: Play) -> (Vec<Frame>, Option<SourceError>) {
    drain(source::play(path, play).unwrap().as_mut())
}

#[test]
fn a_folder_is_read_in_natural_order_and_a_pattern_too() {
    let folder = folder();
    for (name, grey) in [("img10.png", 60), ("img2.jpg", 40), ("IMG1.JPG", 20), ("img20.jpeg", 80)] {
        image(&folder, name, "64x48", grey);
    }
    fs::write(folder.path().join("notes.txt"), "of no interest").unwrap();
    fs::write(folder.path().join("._img2.jpg"), "a system's own").unwrap();
    fs::create_dir(folder.path().join("more.jpg")).unwrap();
    let source = open(folder.path()).unwrap();
    assert_eq!((source.info().frames, source.info().frame_rate.hz()), (Some(4), 1.0));
    let (frames, error) = read(folder.path(), Play::default());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(seen(&frames), [1, 2, 3, 4]);
    assert_eq!(frames.iter().map(|frame| frame.pts_ms).collect::<Vec<_>>(), [0.0, 1000.0, 2000.0, 3000.0]);

    let rate = FrameRate::of(12.5);
    let (frames, _) = read(&folder.path().join("img*.[jp]*g"), Play { rate, ..Play::default() });
    assert_eq!(seen(&frames), [2, 3, 4]);
    assert_eq!(frames.iter().map(|frame| frame.pts_ms).collect::<Vec<_>>(), [0.0, 80.0, 160.0]);
}

#[test]
fn a_pattern_goes_through_folders_and_a_name_that_looks_like_one_is_a_name() {
    let folder = folder();
    for (name, grey) in [("b/1.jpg", 60), ("a/2.jpg", 40), ("a/1.jpg", 20)] {
        image(&folder, name, "64x48", grey);
    }
    let (frames, _) = read(&folder.path().join("*/?.jpg"), Play::default());
    assert_eq!(seen(&frames), [1, 2, 3]);
    image(&folder, "a[1].jpg", "64x48", 100);
    image(&folder, "a1.jpg", "64x48", 120);
    assert_eq!(seen(&read(&folder.path().join("a[1].jpg"), Play::default()).0), [5]);
}

#[test]
fn images_of_several_sizes_are_read() {
    let folder = folder();
    for (name, size) in [("1.png", "64x48"), ("2.png", "34x78"), ("3.jpg", "200x100")] {
        image(&folder, name, size, 20);
    }
    let (frames, error) = read(folder.path(), Play::default());
    assert!(error.is_none());
    let sizes: Vec<_> = frames.iter().map(|frame| frame.picture.size().to_string()).collect();
    assert_eq!(sizes, ["64x48", "34x78", "200x100"]);
}

#[test]
fn an_image_that_can_not_be_read_is_left_out_and_told() {
    let folder = folder();
    for (name, grey) in [("2.jpg", 40), ("4.jpg", 80)] {
        image(&folder, name, "64x48", grey);
    }
    fs::write(folder.path().join("1.jpg"), "no image").unwrap();
    fs::write(folder.path().join("3.jpg"), b"\xff\xd8\xff\xe0 and no more").unwrap();
    let (frames, error) = read(folder.path(), Play::default());
    assert_eq!(seen(&frames), [2, 4]);
    assert_eq!(frames.iter().map(|frame| (frame.number, frame.pts_ms)).collect::<Vec<_>>(), [(0, 1000.0), (1, 3000.0)]);
    let words = chain(&error.unwrap());
    assert!(words.starts_with("2 of the 4 images could not be read") && words.contains("1.jpg"), "{words}");
    assert!(words.contains("a text file"), "{words}");

    for name in ["2.jpg", "4.jpg"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let words = open(folder.path()).err().unwrap().to_string();
    assert!(words.starts_with("2 of the 2 images"), "{words}");
}

#[test]
fn where_there_are_no_images_it_is_said() {
    let folder = folder();
    let words = |path: &Path| open(path).err().unwrap().to_string();
    assert!(words(folder.path()).contains("no JPEG or PNG in the folder"));
    assert!(words(&folder.path().join("*.jpg")).contains("no file matches"));
    assert!(words(&folder.path().join("[.jpg")).contains("is no pattern"));
    assert!(words(&folder.path().join("img.jpg")).contains("there is no file"));
}

#[test]
fn a_rate_is_for_what_has_no_times() {
    let folder = folder();
    let clip = crate::clips::clip(&folder, "s=64x64:r=25:d=1", "-c:v libx264 -pix_fmt yuv420p");
    let play = Play { rate: FrameRate::of(10.0), ..Play::default() };
    let words = source::play(&clip, play).err().unwrap().to_string();
    assert!(words.contains("times of its own"), "{words}");
    let bare = folder.path().join("clip.264");
    ffmpeg(["-i", &clip.display().to_string(), "-c", "copy", "-f", "h264", &bare.display().to_string()]);
    let (frames, _) = read(&bare, play);
    assert_eq!((frames.len(), frames[24].pts_ms), (25, 2400.0));
}

#[test]
fn a_looped_file_goes_on_counting() {
    let folder = folder();
    let clip = crate::clips::clip(&folder, "s=64x64:r=25:d=0.4", "-c:v libx264 -bf 2 -pix_fmt yuv420p");
    for (from, first) in [(0, 0), (7, 7), (1_000_003, 1_000_003)] {
        let mut source = source::play(&clip, Play { looped_from: Some(from), ..Play::default() }).unwrap();
        assert_eq!(source.info().frames, None);
        for number in first..first + 25 {
            let frame = source.next_frame().unwrap().unwrap();
            assert_eq!(frame.number, number);
            assert!((frame.pts_ms - number as f64 * 40.0).abs() < 0.01, "{number}: {}", frame.pts_ms);
        }
    }
}
