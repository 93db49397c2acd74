//! Files that are cut or damaged: what can be decoded is, what is missing is counted, and nothing panics.

use std::{fs, io::Cursor, sync::LazyLock};

use kadr_runner::source::{self, SourceError};
use proptest::prelude::*;

use crate::clips::{assert_same, clip, drain, folder, frames, open};

const PROGRESSIVE: &str = "-c:v libx264 -bf 2 -g 10 -pix_fmt yuv420p -movflags faststart";
const FRAGMENTED: &str = "-c:v libx264 -bf 2 -g 10 -pix_fmt yuv420p -movflags frag_keyframe+empty_moov";

/// Cuts a clip of 50 frames to a share of its bytes; gives how many frames came and what was told.
fn cut(options: &str, share: f64) -> (usize, Option<SourceError>) {
    let folder = folder();
    let file = clip(&folder, "s=320x240:r=25:d=2", options);
    let whole = frames(&file);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..(bytes.len() as f64 * share) as usize]).unwrap();
    let (came, error) = drain(open(&file).unwrap().as_mut());
    // Those that depend on a lost frame may be missing at the end; those before are the right ones.
    for (frame, expected) in came.iter().zip(&whole).take(came.len().saturating_sub(4)) {
        assert_eq!(frame, expected);
    }
    (came.len(), error)
}

#[test]
fn a_cut_file_gives_what_it_has() {
    let (came, error) = cut(PROGRESSIVE, 0.6);
    assert!((20..50).contains(&came), "{came}");
    assert!(
        matches!(error, Some(SourceError::Truncated { decoded, expected: 50 }) if decoded == came as u64),
        "{error:?}"
    );
}

#[test]
fn a_cut_fragment_gives_what_it_has() {
    let (came, error) = cut(FRAGMENTED, 0.55);
    assert!((20..50).contains(&came), "{came}");
    assert!(
        matches!(error, Some(SourceError::Truncated { decoded, expected }) if decoded == came as u64 && expected < 50),
        "{error:?}"
    );
}

#[test]
fn a_file_cut_before_its_index_says_so() {
    let folder = folder();
    let file = clip(&folder, "s=320x240:r=25:d=1", "-c:v libx264 -pix_fmt yuv420p");
    let bytes = fs::read(&file).unwrap();
    for length in [40, 1000, bytes.len() - 200] {
        fs::write(&file, &bytes[..length]).unwrap();
        let error = open(&file).err().unwrap();
        assert!(matches!(error, SourceError::NoIndex), "{length} bytes: {error:?}");
    }
}

#[test]
fn damage_in_the_middle_is_counted() {
    let folder = folder();
    let file = clip(&folder, "s=320x240:r=25:d=2", PROGRESSIVE);
    let whole = frames(&file);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 400].fill(0xa5);
    fs::write(&file, &bytes).unwrap();
    let (came, error) = drain(open(&file).unwrap().as_mut());
    assert!(came.len() >= 25, "{}", came.len());
    assert!(
        matches!(error, Some(SourceError::Incomplete { decoded, expected: 50 }) if decoded == came.len() as u64),
        "{error:?}"
    );
    assert_eq!(came[..10], whole[..10]);
}

#[test]
fn a_picture_that_changes_its_size_is_told() {
    let folder = folder();
    let mut joined = String::new();
    for (name, size) in [("a", "320x240"), ("b", "160x120")] {
        let inner = tempfile::tempdir_in(folder.path()).unwrap();
        let file = clip(&inner, &format!("s={size}:r=25:d=1"), "-c:v libx264 -pix_fmt yuv420p");
        let ts = folder.path().join(format!("{name}.ts"));
        let (from, to) = (file.display().to_string(), ts.display().to_string());
        crate::clips::ffmpeg(["-i", &from, "-c", "copy", &to]);
        joined = if joined.is_empty() { format!("concat:{to}") } else { format!("{joined}|{to}") };
    }
    let both = folder.path().join("both.mp4").display().to_string();
    crate::clips::ffmpeg(["-i", &joined, "-c", "copy", "-tag:v", "avc3", &both]);
    let (came, error) = drain(open(both.as_ref()).unwrap().as_mut());
    assert_eq!(came.len(), 25);
    assert!(matches!(error, Some(SourceError::SizeChanged { frames: 0..=25, .. })), "{error:?}");
}

#[test]
fn a_whole_file_has_nothing_to_tell() {
    let folder = folder();
    for options in [PROGRESSIVE, FRAGMENTED] {
        let file = clip(&folder, "s=320x240:r=25:d=2", options);
        assert_same(&frames(&file), &file);
    }
}

static SMALL: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    let input = "s=64x64:r=25:d=0.8";
    let [progressive, fragmented] =
        [PROGRESSIVE, FRAGMENTED].map(|options| fs::read(clip(&folder(), input, options)).unwrap());
    let [mkv, bare] = ["clip.mkv", "clip.h264"].map(|name| {
        let folder = folder();
        let (from, to) = (clip(&folder, input, PROGRESSIVE), folder.path().join(name));
        crate::clips::ffmpeg(["-i", &from.display().to_string(), "-c", "copy", &to.display().to_string()]);
        fs::read(to).unwrap()
    });
    [progressive, fragmented, mkv, bare]
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever bytes are changed, reading ends, and no more frames come than the file has bytes.
    #[test]
    fn changed_bytes_never_panic(
        kind in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        in_index in any::<bool>(),
    ) {
        let mut bytes = SMALL[kind].clone();
        // Half of the cases change the index and not the pictures, which are most of the file.
        let end = if in_index { 1200.min(bytes.len()) } else { bytes.len() };
        for (index, value) in &changes {
            let at = index.index(end);
            bytes[at] = *value;
        }
        let length = bytes.len();
        if let Ok(mut source) = source::read(Cursor::new(bytes)) {
            let (frames, _) = drain(source.as_mut());
            prop_assert!(frames.len() <= length);
        }
    }
}
