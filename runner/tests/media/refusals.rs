//! What can't be read is refused at once, by its name and with a way out.

use std::{fs, path::Path};

use crate::clips::{clip, ffmpeg, folder, open};

fn refusal(file: &Path) -> String {
    match open(file) {
        Ok(_) => panic!("{} was opened", file.display()),
        Err(error) => error.to_string(),
    }
}

/// That a clip made with `options` is refused with all of `words`.
fn refuses(options: &str, words: &[&str]) {
    let folder = folder();
    let message = refusal(&clip(&folder, "s=320x240:r=25:d=1", options));
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

#[test]
fn other_codecs_are_named() {
    refuses("-c:v libx265 -x265-params log-level=error:pools=none -pix_fmt yuv420p", &["H.265", "H.264", "ffmpeg"]);
    refuses("-c:v libx265 -x265-params log-level=error:pools=none -tag:v hvc1 -pix_fmt yuv420p", &["H.265"]);
    refuses("-c:v mpeg4", &["MPEG-4 Part 2", "ffmpeg"]);
}

#[test]
fn kinds_of_h264_that_the_decoder_lacks_are_named() {
    refuses("-c:v libx264 -pix_fmt yuv420p -flags +ildct+ilme", &["interlaced", "bwdif"]);
    refuses("-c:v libx264 -pix_fmt yuv420p10le", &["10-bit", "ffmpeg"]);
    refuses("-c:v libx264 -pix_fmt yuv422p", &["4:2:2", "ffmpeg"]);
    refuses("-c:v libx264 -pix_fmt yuv444p", &["4:4:4", "ffmpeg"]);
    refuses("-c:v libx264 -pix_fmt gray", &["monochrome", "ffmpeg"]);
}

#[test]
fn a_file_without_video_has_no_video() {
    let folder = folder();
    let path = folder.path().join("sound.mp4");
    ffmpeg("-f lavfi -i sine=d=1 -c:a aac".split(' ').map(str::as_ref).chain([path.as_os_str()]));
    assert!(refusal(&path).contains("no video track"));
}

#[test]
fn a_track_without_frames_is_no_video() {
    let folder = folder();
    let file = clip(&folder, "s=64x64:r=25:d=1", "-c:v libx264 -pix_fmt yuv420p -movflags frag_keyframe+empty_moov");
    let bytes = fs::read(&file).unwrap();
    let end = bytes.windows(4).position(|w| w == b"moof").unwrap() - 4;
    fs::write(&file, &bytes[..end]).unwrap();
    assert!(refusal(&file).contains("without a single frame"));
}

#[test]
fn what_is_no_file_or_no_video_is_told_apart() {
    let folder = folder();
    let path = folder.path().join("notes.mp4");
    assert!(refusal(&path).contains("there is no file"));
    assert!(refusal(folder.path()).contains("is a folder"));
    fs::write(&path, "these are my notes\n").unwrap();
    assert!(refusal(&path).contains("a text file"));
    fs::write(&path, "").unwrap();
    assert!(refusal(&path).contains("an empty file"));
    let other = folder.path().join("clip.mkv");
    let input = "-f lavfi -i testsrc2=s=64x64:d=1 -c:v libx264".split(' ');
    ffmpeg(input.map(str::as_ref).chain([other.as_os_str()]));
    let message = refusal(&other);
    assert!(message.contains("Matroska") && message.contains("-c copy"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_named_pipe_is_not_waited_for() {
    let folder = folder();
    let path = folder.path().join("pipe.mp4");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(refusal(&path).contains("give a file"));
}

#[test]
fn an_image_that_is_too_large_is_refused_before_it_is_decoded() {
    let folder = folder();
    let path = folder.path().join("bomb.png");
    // A PNG's head alone: 60,000 pixels a side.
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
    let crc = png[12..].iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    });
    png.extend((!crc).to_be_bytes());
    png.extend(b"\0\0\0\x01IDAT\x78\0\0\0\0");
    fs::write(&path, png).unwrap();
    assert!(refusal(&path).contains("too large"), "{}", refusal(&path));
}
