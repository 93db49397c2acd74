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
    fs::write(&path, "these are my notes\n").unwrap();
    assert!(refusal(&path).contains("a text file"));
    fs::write(&path, "").unwrap();
    assert!(refusal(&path).contains("an empty file"));
    let other = folder.path().join("clip.avi");
    let input = "-f lavfi -i testsrc2=s=64x64:d=1 -c:v libx264 -pix_fmt yuv420p".split(' ');
    ffmpeg(input.map(str::as_ref).chain([other.as_os_str()]));
    let message = refusal(&other);
    assert!(message.contains("AVI") && message.contains("-c copy"), "{message}");
}

#[test]
fn what_other_containers_hold_is_named() {
    let folder = folder();
    let h265 = "-c:v libx265 -x265-params log-level=error:pools=none -pix_fmt yuv420p";
    for (name, options, words) in [
        ("a.mkv", h265, ["H.265", "ffmpeg"]),
        ("b.webm", "-c:v libvpx -pix_fmt yuv420p", ["VP8", "ffmpeg"]),
        ("c.mkv", "-c:v mjpeg -pix_fmt yuvj420p", ["Motion JPEG", "ffmpeg"]),
        ("d.mkv", "-c:v libx264 -pix_fmt yuv420p10le", ["10-bit", "ffmpeg"]),
        ("e.mkv", "-c:v libx264 -pix_fmt yuv420p -flags +ildct+ilme", ["interlaced", "bwdif"]),
        ("f.mkv", "-vn -f lavfi -i sine=d=1 -map 1 -c:a aac", ["no video track", ""]),
        ("g.h265", h265, ["H.265 without a container", "ffmpeg"]),
        ("h.h264", "-c:v libx264 -pix_fmt yuv422p", ["4:2:2", "ffmpeg"]),
        ("i.m2v", "-c:v mpeg2video", ["MPEG video without a container", "ffmpeg"]),
    ] {
        let path = folder.path().join(name);
        let (inputs, options): (Vec<_>, Vec<_>) = match options.strip_prefix("-vn ") {
            Some(rest) => (rest.split(' ').take(4).collect(), rest.split(' ').skip(4).collect()),
            None => (vec![], options.split(' ').collect()),
        };
        let to = path.display().to_string();
        let head = ["-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=1"];
        ffmpeg(head.into_iter().chain(inputs).chain(options).chain([to.as_str()]));
        let message = refusal(&path);
        assert!(words.iter().all(|word| message.contains(word)), "{name}: {message}");
    }
}

#[test]
fn a_matroska_file_that_is_packed_or_ends_early_is_told() {
    let folder = folder();
    let path = folder.path().join("clip.mkv");
    let options = "-f lavfi -i testsrc2=s=64x64:d=1 -c:v libx264 -pix_fmt yuv420p".split(' ');
    ffmpeg(options.map(str::as_ref).chain([path.as_os_str()]));
    let bytes = fs::read(&path).unwrap();
    let cluster = bytes.windows(4).position(|w| w == b"\x1f\x43\xb6\x75").unwrap();
    let tracks = bytes.windows(4).position(|w| w == b"\x16\x54\xae\x6b").unwrap();
    for (length, words) in
        [(cluster, "without a single frame"), (tracks, "before its tracks"), (tracks + 40, "before its tracks")]
    {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(refusal(&path).contains(words), "{length}: {}", refusal(&path));
    }
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
