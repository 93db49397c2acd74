//! A picture as a JPEG image.

use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};
use kadr_shared::{
    geometry::Size,
    message::frame::{Matrix, Range},
};
use yuv::{YuvError, YuvPlanarImage, YuvRange, YuvStandardMatrix, yuv420_to_rgb};

use crate::picture::Picture;

/// Of 1 to 100: small, and no worse than the video.
const QUALITY: u8 = 75;

#[derive(Debug, thiserror::Error)]
pub(super) enum JpegError {
    #[error("a picture of {0} is too large for a JPEG")]
    Size(Size),
    #[error("the picture can't be read as RGB")]
    Convert(#[from] YuvError),
    #[error("the picture can't be coded")]
    Encode(#[from] EncodingError),
}

pub(super) fn jpeg(picture: &Picture) -> Result<Vec<u8>, JpegError> {
    let size = picture.size();
    let side = |length: u32| u16::try_from(length).map_err(|_| JpegError::Size(size));
    let (width, height) = (side(size.width)?, side(size.height)?);
    let [y, u, v] = picture.planes();
    let (luma, chroma) = (size.width, size.width.div_ceil(2));
    let planes = YuvPlanarImage {
        y_plane: y.data,
        y_stride: luma,
        u_plane: u.data,
        u_stride: chroma,
        v_plane: v.data,
        v_stride: chroma,
        width: size.width,
        height: size.height,
    };
    let matrix = match picture.colour().matrix {
        Matrix::Bt601 => YuvStandardMatrix::Bt601,
        Matrix::Bt709 => YuvStandardMatrix::Bt709,
    };
    let range = match picture.colour().range {
        Range::Limited => YuvRange::Limited,
        Range::Full => YuvRange::Full,
    };
    let stride = size.width.saturating_mul(3);
    let mut rgb = vec![0; stride as usize * size.height as usize];
    yuv420_to_rgb(&planes, &mut rgb, stride, range, matrix)?;
    let mut image = Vec::new();
    let mut encoder = Encoder::new(&mut image, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(&rgb, width, height, ColorType::Rgb)?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Rgb};
    use kadr_shared::message::frame::Colour;

    use super::*;

    #[test]
    fn colours_are_those_of_the_picture() {
        // Orange, as BT.709 of limited range has it.
        let colour = Colour { matrix: Matrix::Bt709, range: Range::Limited };
        let picture = Picture::uniform(Size { width: 33, height: 17 }, colour, [139, 65, 178]).unwrap();
        let image = image::load_from_memory_with_format(&jpeg(&picture).unwrap(), ImageFormat::Jpeg).unwrap().to_rgb8();
        let Rgb([r, g, b]) = image.get_pixel(16, 8);
        assert_eq!(image.dimensions(), (33, 17));
        let near = |found: u8, wanted: u8| found.abs_diff(wanted) < 8;
        assert!(near(*r, 233) && near(*g, 132) && near(*b, 10), "{r} {g} {b}");
    }
}
