//! From a frame's planes to the network's input: I420 to RGB by the frame's own matrix and range, then 0..=1.
//!
//! Scaling and letterboxing are done already, by the runner: a body has the network's input size.

use candle_core::{Device, Tensor};
use kadr_shared::{
    geometry::InputSize,
    message::frame::{Colour, Matrix, Range, i420_len},
};
use yuv::{YuvError, YuvPlanarImage, YuvRange, YuvStandardMatrix, yuv420_to_rgba};

/// A body that can't be made a picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("the planes have {found} bytes, I420 of {input} has {wanted}")]
    Length { input: InputSize, wanted: usize, found: usize },
    #[error("the planes of {input} can't be read as RGB")]
    Convert { input: InputSize, source: YuvError },
    #[error("a picture of {input} can't be made a tensor")]
    Tensor { input: InputSize, source: Box<candle_core::Error> },
}

/// Lines that are converted at a time.
const BAND: usize = 16;

/// (1, 3, height, width), f32 in 0..=1, RGB, of an I420 body: what the reference takes.
pub fn picture(body: &[u8], input: InputSize, colour: Colour) -> Result<Tensor, PictureError> {
    let (width, height) = (input.width() as usize, input.height() as usize);
    let mut planes = vec![0.0; 3 * width * height];
    rgba(body, input, colour, |first, colours| {
        for (pixel, colours) in colours.as_chunks::<4>().0.iter().enumerate() {
            for (plane, &colour) in planes.chunks_exact_mut(width * height).zip(colours) {
                if let Some(value) = plane.get_mut(first * width + pixel) {
                    *value = f32::from(colour) / 255.0;
                }
            }
        }
    })?;
    let shape = (1, 3, height, width);
    Tensor::from_vec(planes, shape, &Device::Cpu).map_err(|e| PictureError::Tensor { input, source: e.into() })
}

/// Hands out some lines at a time of an I420 body as red, green, blue and anything, with the number of the first line.
pub(crate) fn rgba(
    body: &[u8],
    input: InputSize,
    colour: Colour,
    mut each: impl FnMut(usize, &[u8]),
) -> Result<(), PictureError> {
    let wanted = i420_len(input);
    if body.len() != wanted {
        return Err(PictureError::Length { input, wanted, found: body.len() });
    }
    let (width, luma) = (input.width() as usize, wanted / 3 * 2);
    let (y_plane, chroma) = body.split_at(luma);
    let (u_plane, v_plane) = chroma.split_at(luma / 4);
    let matrix = match colour.matrix {
        Matrix::Bt601 => YuvStandardMatrix::Bt601,
        Matrix::Bt709 => YuvStandardMatrix::Bt709,
    };
    let range = match colour.range {
        Range::Limited => YuvRange::Limited,
        Range::Full => YuvRange::Full,
    };
    // Sides are multiples of 32.
    let lumas = y_plane.chunks_exact(BAND * width);
    let chromas = u_plane.chunks_exact(BAND * width / 4).zip(v_plane.chunks_exact(BAND * width / 4));
    let stride = input.width();
    let mut colours = [0; BAND * InputSize::MAX as usize * 4];
    for (band, (y_plane, (u_plane, v_plane))) in lumas.zip(chromas).enumerate() {
        let planes = YuvPlanarImage {
            y_plane,
            y_stride: stride,
            u_plane,
            u_stride: stride / 2,
            v_plane,
            v_stride: stride / 2,
            width: stride,
            height: BAND as u32,
        };
        let colours = colours.get_mut(..BAND * width * 4).unwrap_or_default();
        yuv420_to_rgba(&planes, colours, stride * 4, range, matrix)
            .map_err(|source| PictureError::Convert { input, source })?;
        each(band * BAND, colours);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// White, yellow, cyan, green, magenta, red, blue, black at 75 %: full bars clip, and so hide a wrong range.
    const BARS: [[u8; 3]; 8] = [
        [191, 191, 191],
        [191, 191, 0],
        [0, 191, 191],
        [0, 191, 0],
        [191, 0, 191],
        [191, 0, 0],
        [0, 0, 191],
        [0, 0, 0],
    ];

    type Triplets = [[u8; 3]; 8];

    /// Y, Cb, Cr of the bars, by ITU-R BT.601 and BT.709.
    const LIMITED_601: Triplets = [
        [180, 128, 128],
        [162, 44, 142],
        [131, 156, 44],
        [112, 72, 58],
        [84, 184, 198],
        [65, 100, 212],
        [35, 212, 114],
        [16, 128, 128],
    ];
    const LIMITED_709: Triplets = [
        [180, 128, 128],
        [168, 44, 136],
        [145, 147, 44],
        [133, 63, 52],
        [63, 193, 204],
        [51, 109, 212],
        [28, 212, 120],
        [16, 128, 128],
    ];
    const FULL_601: Triplets = [
        [191, 128, 128],
        [169, 32, 144],
        [134, 160, 32],
        [112, 65, 48],
        [79, 191, 208],
        [57, 96, 224],
        [22, 224, 112],
        [0, 128, 128],
    ];
    const FULL_709: Triplets = [
        [191, 128, 128],
        [177, 32, 137],
        [151, 150, 32],
        [137, 54, 41],
        [54, 202, 215],
        [41, 106, 224],
        [14, 224, 119],
        [0, 128, 128],
    ];

    fn colour(matrix: Matrix, range: Range) -> Colour {
        Colour { matrix, range }
    }

    fn flat(yuv: [u8; 3], input: InputSize) -> Vec<u8> {
        let luma = i420_len(input) / 3 * 2;
        [vec![yuv[0]; luma], vec![yuv[1]; luma / 4], vec![yuv[2]; luma / 4]].concat()
    }

    /// The largest difference of any bar's any channel, in levels of 255.
    fn worst(triplets: &Triplets, colour: Colour) -> f32 {
        let input: InputSize = "64x32".parse().unwrap();
        let mut worst = 0f32;
        for (yuv, wanted) in triplets.iter().zip(BARS) {
            let picture = picture(&flat(*yuv, input), input, colour).unwrap();
            assert_eq!(picture.dims(), [1, 3, 32, 64]);
            let planes = picture.reshape((3, 32 * 64)).unwrap().to_vec2::<f32>().unwrap();
            for (plane, wanted) in planes.iter().zip(wanted) {
                for v in plane {
                    worst = worst.max((v * 255.0 - f32::from(wanted)).abs());
                }
            }
        }
        worst
    }

    #[test]
    fn colour_bars_come_out_right_by_their_own_matrix_and_range_and_wrong_by_any_other() {
        let colours = [
            (LIMITED_601, colour(Matrix::Bt601, Range::Limited)),
            (LIMITED_709, colour(Matrix::Bt709, Range::Limited)),
            (FULL_601, colour(Matrix::Bt601, Range::Full)),
            (FULL_709, colour(Matrix::Bt709, Range::Full)),
        ];
        for (triplets, own) in &colours {
            assert!(worst(triplets, *own) <= 2.0, "{own}: {} levels off", worst(triplets, *own));
            for (_, other) in colours.iter().filter(|(_, other)| other != own) {
                assert!(worst(triplets, *other) > 10.0, "bars of {own} must not pass for {other}");
            }
        }
    }

    #[test]
    fn planes_lie_where_the_format_says() {
        // White left, black right.
        let input: InputSize = "64x32".parse().unwrap();
        let mut body = flat([16, 128, 128], input);
        for line in body[..64 * 32].chunks_exact_mut(64) {
            line[..32].fill(235);
        }
        let picture = picture(&body, input, Colour::default()).unwrap().squeeze(0).unwrap().to_vec3::<f32>().unwrap();
        for plane in &picture {
            for line in plane {
                assert!(line[..32].iter().all(|&v| v > 0.99) && line[32..].iter().all(|&v| v < 0.01));
            }
        }
    }

    #[test]
    fn a_body_of_another_length_is_refused() {
        let input: InputSize = "64x32".parse().unwrap();
        let error = picture(&[0; 10], input, Colour::default()).unwrap_err().to_string();
        assert!(error.contains("10 bytes") && error.contains("3072"), "{error}");
    }
}
