//! Colour: what the file says of its matrix and range is read, and known colours come out as themselves.

use kadr_runner::picture::Picture;
use kadr_shared::message::frame::{Colour, Matrix, Range};

use crate::clips::{ffmpeg, folder, frames, made, open};

/// The RGB of a pixel, read as its picture says.
pub(crate) fn rgb(picture: &Picture, x: usize, y: usize) -> [f64; 3] {
    let [luma, u, v] = picture.planes();
    let at = |plane: kadr_runner::picture::Plane<'_>, x: usize, y: usize| f64::from(plane.data[y * plane.width + x]);
    let (luma, u, v) = (at(luma, x, y), at(u, x / 2, y / 2) - 128.0, at(v, x / 2, y / 2) - 128.0);
    let (luma, chroma) = match picture.colour().range {
        Range::Limited => ((luma - 16.0) * 255.0 / 219.0, 255.0 / 224.0),
        Range::Full => (luma, 1.0),
    };
    // ITU-R BT.601 and BT.709: the weights of red and blue in luma.
    let (red, blue) = match picture.colour().matrix {
        Matrix::Bt601 => (0.299, 0.114),
        Matrix::Bt709 => (0.2126, 0.0722),
    };
    let r = luma + chroma * v * 2.0 * (1.0 - red);
    let b = luma + chroma * u * 2.0 * (1.0 - blue);
    [r, (luma - red * r - blue * b) / (1.0 - red - blue), b]
}

/// The bars' colours, from left to right.
const BARS: [[f64; 3]; 4] = [[255.0, 0.0, 0.0], [0.0, 255.0, 0.0], [0.0, 0.0, 255.0], [200.0, 120.0, 40.0]];

fn bars() -> String {
    let one = |colour: &str| format!("color=c={colour}:s=64x64:r=25:d=0.2,format=rgb24");
    let all: Vec<_> = ["0xff0000", "0x00ff00", "0x0000ff", "0xc87828"].map(one).into();
    format!("{}[a];{}[b];{}[c];{}[d];[a][b][c][d]hstack=4", all[0], all[1], all[2], all[3])
}

fn assert_bars(picture: &Picture) {
    for (index, wanted) in BARS.iter().enumerate() {
        let found = rgb(picture, index * 64 + 32, 32);
        let off = wanted.iter().zip(found).map(|(w, f)| (w - f).abs()).fold(0.0, f64::max);
        assert!(off <= 6.0, "bar {index}: {wanted:?} became {found:.0?} as {}", picture.colour());
    }
}

#[test]
fn tags_are_read_and_bars_keep_their_colours() {
    for (matrix, range, tags, scaled) in [
        (Matrix::Bt709, Range::Limited, "-colorspace bt709 -color_range tv", "bt709:out_range=tv"),
        (Matrix::Bt709, Range::Full, "-colorspace bt709 -color_range pc", "bt709:out_range=pc"),
        (Matrix::Bt601, Range::Limited, "-colorspace smpte170m -color_range tv", "smpte170m:out_range=tv"),
        (Matrix::Bt601, Range::Full, "-colorspace bt470bg -color_range pc", "bt470bg:out_range=pc"),
        (Matrix::Bt601, Range::Limited, "", "bt601:out_range=tv"),
    ] {
        let folder = folder();
        let generator = format!("{},scale=out_color_matrix={scaled},format=yuv420p", bars());
        let file = made(&folder, &generator, &format!("-c:v libx264 -qp 4 {tags}"));
        assert_eq!(open(&file).unwrap().info().colour, Colour { matrix, range }, "{tags}");
        assert_bars(&frames(&file)[0].picture);
    }
}

#[test]
fn the_container_tells_where_the_stream_is_silent() {
    let folder = folder();
    let generator = format!("{},scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", bars());
    let file = made(&folder, &generator, "-c:v libx264 -qp 4 -colorspace bt709 -movflags write_colr");
    // The stream's own word is taken out.
    let silent = folder.path().join("silent.mp4");
    let filter = "h264_metadata=matrix_coefficients=2:colour_primaries=2:transfer_characteristics=2";
    let args = ["-i".as_ref(), file.as_os_str(), "-c".as_ref(), "copy".as_ref(), "-bsf:v".as_ref(), filter.as_ref()];
    ffmpeg(args.into_iter().chain(["-movflags".as_ref(), "write_colr".as_ref(), silent.as_os_str()]));
    assert_eq!(open(&silent).unwrap().info().colour.matrix, Matrix::Bt709);
}

#[test]
fn images_keep_their_colours() {
    let folder = folder();
    let path = folder.path().join("bars.png");
    ffmpeg(["-f", "lavfi", "-i", &bars(), "-frames:v", "1", &path.display().to_string()]);
    assert_bars(&frames(&path)[0].picture);
}

#[test]
fn transparency_is_put_over_black() {
    let folder = folder();
    let path = folder.path().join("clear.png");
    let input = "color=c=0xff0000@0.5:s=32x32,format=rgba";
    ffmpeg(["-f", "lavfi", "-i", input, "-frames:v", "1", &path.display().to_string()]);
    let [r, g, b] = rgb(&frames(&path)[0].picture, 16, 16);
    assert!((r - 128.0).abs() < 4.0 && g.abs() < 4.0 && b.abs() < 4.0, "{r} {g} {b}");
}
