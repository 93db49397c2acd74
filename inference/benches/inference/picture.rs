//! What all look at: a street from the reference data, letterboxed, or noise where that is not there.

use std::path::{Path, PathBuf};

use image::{RgbImage, imageops};
use kadr_shared::geometry::{InputSize, Letterbox, Size};

const STREET: &str = "bus.jpg";
/// Round a letterboxed picture.
const GREY: image::Rgb<u8> = image::Rgb([114; 3]);

pub(crate) struct Picture {
    pub(crate) name: &'static str,
    pub(crate) input: InputSize,
    /// (3, height, width), f32 in 0..=1, RGB.
    pub(crate) planes: Vec<f32>,
    /// The same, for the peers.
    pub(crate) file: PathBuf,
}

impl Picture {
    pub(crate) fn new(input: &str, folder: &Path) -> Self {
        let file = folder.join(format!("{input}.f32"));
        let input: InputSize = input.parse().unwrap();
        let fixtures = std::env::var_os("KADR_FIXTURES").map(PathBuf::from);
        let street = fixtures.map(|fixtures| fixtures.join("images").join(STREET)).filter(|street| street.exists());
        let (name, pixels) = match street {
            Some(street) => (STREET, letterboxed(&image::open(street).unwrap().to_rgb8(), input)),
            None => ("noise", noise(input)),
        };
        let plane = |channel: usize| pixels.as_raw().iter().skip(channel).step_by(3).map(|&v| f32::from(v) / 255.0);
        let planes: Vec<f32> = (0..3).flat_map(plane).collect();
        std::fs::write(&file, planes.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<u8>>()).unwrap();
        Self { name, input, planes, file }
    }
}

fn letterboxed(picture: &RgbImage, input: InputSize) -> RgbImage {
    let place = Letterbox::fit(Size { width: picture.width(), height: picture.height() }, input);
    let mut pixels = RgbImage::from_pixel(input.width(), input.height(), GREY);
    let inside = imageops::resize(picture, place.width, place.height, imageops::FilterType::Triangle);
    imageops::replace(&mut pixels, &inside, place.left.into(), place.top.into());
    pixels
}

/// The same on every machine.
fn noise(input: InputSize) -> RgbImage {
    let mut state = 1u32;
    RgbImage::from_fn(input.width(), input.height(), |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [a, b, c, _] = (state >> 8).to_le_bytes();
        image::Rgb([a, b, c])
    })
}
