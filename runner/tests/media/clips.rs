//! Makes clips by ffmpeg and reads them back by it.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use kadr_runner::{
    picture::Picture,
    source::{self, FileSource, Frame, Source, SourceError},
};
use tempfile::TempDir;

/// A folder that goes away with the test.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Runs ffmpeg quietly; gives what it wrote to its standard output.
pub(crate) fn ffmpeg(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Vec<u8> {
    run(Command::new("ffmpeg").args(["-nostdin", "-hide_banner", "-v", "error", "-y"]).args(args))
}

/// What `ffprobe` says by `-of csv`, without the section's name.
pub(crate) fn ffprobe(file: &Path, entries: &str) -> String {
    let args = ["-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries", entries, "-of", "csv=p=0"];
    String::from_utf8(run(Command::new("ffprobe").args(args).arg(file))).unwrap().trim().to_owned()
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("ffmpeg and ffprobe are installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.trim().is_empty(), "{command:?}: {errors}");
    output.stdout
}

/// A clip of ffmpeg's moving test picture: `input` such as `s=320x240:r=25:d=2`, `options` as on a command line.
pub(crate) fn clip(folder: &TempDir, input: &str, options: &str) -> PathBuf {
    made(folder, &format!("testsrc2={input}"), options)
}

/// A clip of any of ffmpeg's generators.
pub(crate) fn made(folder: &TempDir, generator: &str, options: &str) -> PathBuf {
    let path = folder.path().join("clip.mp4");
    let mut args: Vec<&OsStr> = ["-f", "lavfi", "-i", generator].map(OsStr::new).to_vec();
    args.extend(options.split_whitespace().map(OsStr::new));
    args.push(path.as_os_str());
    ffmpeg(args);
    path
}

/// Every plane of every frame as ffmpeg decodes it, converted neither in size nor in colour.
pub(crate) fn reference(file: &Path) -> Vec<u8> {
    let mut args: Vec<&OsStr> = vec![OsStr::new("-i"), file.as_os_str()];
    args.extend("-map 0:v:0 -fps_mode passthrough -f rawvideo -pix_fmt yuv420p -".split(' ').map(OsStr::new));
    ffmpeg(args)
}

pub(crate) fn open(file: &Path) -> Result<Box<dyn FileSource>, SourceError> {
    source::open(file)
}

/// All frames, and the error after them if there is one.
pub(crate) fn drain(source: &mut dyn Source) -> (Vec<Frame>, Option<SourceError>) {
    let mut frames = Vec::new();
    loop {
        match source.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => {
                assert!(matches!(source.next_frame(), Ok(None)), "an error is told once");
                return (frames, Some(error));
            }
        }
    }
}

/// All frames of a file that is sound.
pub(crate) fn frames(file: &Path) -> Vec<Frame> {
    let (frames, error) = drain(open(file).unwrap().as_mut());
    assert!(error.is_none(), "{error:?}");
    frames
}

/// Likeness in decibels: above 40 nobody sees a difference; another frame of the test picture has less than 30.
pub(crate) fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: u64 = a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
    if squares == 0 { f64::INFINITY } else { 10.0 * (255.0f64.powi(2) * a.len() as f64 / squares as f64).log10() }
}

/// That the frames are those that ffmpeg decodes, one by one.
pub(crate) fn assert_same(frames: &[Frame], file: &Path) {
    let reference = reference(file);
    let picture_len = Picture::len(frames[0].picture.size()).unwrap();
    assert_eq!(frames.len(), reference.len() / picture_len, "the number of frames");
    for (frame, expected) in frames.iter().zip(reference.chunks(picture_len)) {
        let likeness = psnr(frame.picture.bytes(), expected);
        assert!(likeness >= 40.0, "frame {} is {likeness:.1} dB from ffmpeg's", frame.number);
    }
    assert!(frames.iter().enumerate().all(|(index, frame)| frame.number == index as u64));
}

/// The folder of reference data.
#[cfg_attr(not(kadr_fixtures), allow(dead_code))]
pub(crate) fn fixtures() -> PathBuf {
    std::env::var_os("KADR_FIXTURES").expect("KADR_FIXTURES is set when this is compiled").into()
}
