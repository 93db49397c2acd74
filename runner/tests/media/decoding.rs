//! Files that are sound: every frame comes, in order, with its time, and as ffmpeg decodes it.

use kadr_runner::source::FrameRate;
use kadr_shared::geometry::Size;

use crate::clips::{assert_same, clip, ffmpeg, folder, frames, open};

/// Decodes a clip of two seconds made with `options`.
fn decodes(input: &str, options: &str) {
    let folder = folder();
    let file = clip(&folder, input, options);
    let source = open(&file).unwrap();
    let frames = frames(&file);
    assert_eq!(source.info().frames, Some(frames.len() as u64));
    let step = 1000.0 / source.info().frame_rate.hz();
    for frame in &frames {
        let expected = frame.number as f64 * step;
        assert!((frame.pts_ms - expected).abs() < 0.01, "frame {}: {} ms", frame.number, frame.pts_ms);
    }
    assert_same(&frames, &file);
}

#[test]
fn high_with_b_frames() {
    decodes("s=320x240:r=25:d=2", "-c:v libx264 -profile:v high -bf 3 -pix_fmt yuv420p");
}

#[test]
fn b_frames_and_many_key_frames() {
    decodes("s=320x240:r=25:d=4", "-c:v libx264 -bf 3 -g 7 -pix_fmt yuv420p");
}

#[test]
fn a_pyramid_of_many_b_frames_and_references() {
    decodes(
        "s=320x240:r=25:d=4",
        "-c:v libx264 -preset veryslow -bf 8 -refs 16 -b_strategy 2 -x264-params b-pyramid=normal -pix_fmt yuv420p",
    );
}

#[test]
fn open_groups_of_pictures() {
    decodes("s=320x240:r=25:d=4", "-c:v libx264 -bf 3 -g 12 -x264-params open-gop=1 -pix_fmt yuv420p");
}

#[test]
fn main_and_baseline() {
    decodes("s=320x240:r=25:d=2", "-c:v libx264 -profile:v main -pix_fmt yuv420p");
    decodes("s=320x240:r=25:d=2", "-c:v libx264 -profile:v baseline -pix_fmt yuv420p");
}

#[test]
fn several_slices_a_picture() {
    decodes("s=320x240:r=25:d=2", "-c:v libx264 -bf 2 -slices 4 -pix_fmt yuv420p");
    decodes("s=320x240:r=25:d=2", "-c:v libx264 -tune zerolatency -slices 4 -pix_fmt yuv420p");
}

#[test]
fn key_frames_only_and_weighted_prediction() {
    decodes("s=320x240:r=25:d=1", "-c:v libx264 -g 1 -pix_fmt yuv420p");
    decodes("s=320x240:r=25:d=2,fade=t=out:d=2", "-c:v libx264 -weightp 2 -bf 3 -pix_fmt yuv420p");
}

#[test]
fn a_size_that_is_no_multiple_of_16() {
    decodes("s=322x178:r=25:d=1", "-c:v libx264 -bf 2 -pix_fmt yuv420p");
}

#[test]
fn a_rate_that_is_no_whole_number() {
    let options = "-c:v libx264 -bf 2 -pix_fmt yuv420p";
    decodes("s=320x240:r=30000/1001:d=2", options);
    let folder = folder();
    let source = open(&clip(&folder, "s=64x64:r=30000/1001:d=1", options)).unwrap();
    let FrameRate { numerator, denominator } = source.info().frame_rate;
    assert_eq!((numerator.get(), denominator.get()), (30_000, 1001));
}

#[test]
fn fragments_of_every_layout() {
    for flags in ["frag_keyframe+empty_moov", "frag_keyframe", "frag_keyframe+empty_moov+default_base_moof", "dash"] {
        let options = format!("-c:v libx264 -bf 2 -g 10 -pix_fmt yuv420p -movflags {flags}");
        decodes("s=320x240:r=25:d=2", &options);
    }
    decodes(
        "s=320x240:r=25:d=2",
        "-c:v libx264 -bf 2 -pix_fmt yuv420p -movflags empty_moov+default_base_moof -frag_duration 200000",
    );
}

#[test]
fn sound_beside_the_video() {
    let sound = "-f lavfi -i sine=d=2 -c:v libx264 -bf 2 -pix_fmt yuv420p -c:a aac";
    decodes("s=320x240:r=25:d=2", sound);
    decodes("s=320x240:r=25:d=2", &format!("{sound} -movflags faststart"));
    decodes("s=320x240:r=25:d=2", &format!("{sound} -movflags frag_keyframe+empty_moov"));
}

#[test]
fn parameter_sets_within_the_stream() {
    // avc3 keeps no parameter sets in the index.
    decodes(
        "s=320x240:r=25:d=2",
        "-c:v libx264 -bf 2 -g 10 -x264-params repeat-headers=1 -flags -global_header -tag:v avc3 -pix_fmt yuv420p",
    );
}

#[test]
fn a_turned_video_is_upright() {
    for degrees in ["90", "180", "270"] {
        let folder = folder();
        let file = clip(&folder, "s=320x240:r=25:d=1", "-c:v libx264 -bf 2 -pix_fmt yuv420p");
        let turned = folder.path().join("turned.mp4");
        let (from, to, note) = (file.display().to_string(), turned.display().to_string(), format!("rotate={degrees}"));
        ffmpeg(["-i", &from, "-c", "copy", "-metadata:s:v", &note, &to]);
        let size = if degrees == "180" { (320, 240) } else { (240, 320) };
        let found = open(&turned).unwrap().info().size;
        assert_eq!((found.width, found.height), size, "{degrees}");
        assert_same(&frames(&turned), &turned);
    }
}

#[test]
fn uneven_timing_is_kept() {
    let folder = folder();
    let file = clip(
        &folder,
        "s=160x120:r=25:d=2",
        "-vf select='not(eq(mod(n\\,5)\\,3))' -fps_mode vfr -c:v libx264 -bf 2 -pix_fmt yuv420p",
    );
    let times: Vec<_> = frames(&file).iter().map(|frame| frame.pts_ms.round()).collect();
    assert_eq!(times.len(), 40);
    assert_eq!(times[..6], [0.0, 40.0, 80.0, 160.0, 200.0, 240.0]);
}

#[test]
fn images_are_videos_of_one_frame() {
    let folder = folder();
    for (name, size) in [("a.jpg", "321x241"), ("b.png", "333x77"), ("named.mp4", "64x48")] {
        let path = folder.path().join(name);
        let input = format!("testsrc=s={size}:d=1");
        let (codec, format) = if name.ends_with("jpg") { ("mjpeg", "yuvj444p") } else { ("png", "rgb24") };
        let head = ["-f", "lavfi", "-i", &input, "-frames:v", "1", "-pix_fmt", format, "-c:v", codec, "-f", "image2"];
        ffmpeg(head.iter().map(|s| s.as_ref()).chain([path.as_os_str()]));
        let source = open(&path).unwrap();
        let (width, height) = size.split_once('x').unwrap();
        let size = Size { width: width.parse().unwrap(), height: height.parse().unwrap() };
        assert_eq!((source.info().size, source.info().frames), (size, Some(1)));
        let frames = frames(&path);
        assert_eq!((frames.len(), frames[0].number, frames[0].pts_ms), (1, 0, 0.0));
        assert_eq!(frames[0].picture.size(), size);
    }
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn the_reference_clips() {
    for (name, count) in [("highway.mp4", 268), ("car-park.mp4", 377), ("persons.mp4", 1394)] {
        let file = crate::clips::fixtures().join("clips").join(name);
        let frames = frames(&file);
        assert_eq!(frames.len(), count, "{name}");
        assert_same(&frames, &file);
    }
}
