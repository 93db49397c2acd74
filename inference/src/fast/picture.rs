//! A picture into the network's first map: red, green, blue and a fourth number that counts for nothing, a pixel.

use kadr_shared::{geometry::InputSize, message::frame::Colour};

use super::{element::Element, layout::Layout, memory::Aligned};
use crate::preprocess::{self, PictureError};

/// From a frame's planes, by its own matrix and range; no more than a few lines are anything between.
pub(super) fn set_i420<E: Element>(
    numbers: &mut Aligned<E>,
    layout: &Layout,
    body: &[u8],
    input: InputSize,
    colour: Colour,
) -> Result<(), PictureError> {
    let (row, border, width) = (layout.row(), layout.depth, layout.width * layout.depth);
    // Below the upper border.
    let lines = numbers.as_mut().get_mut(row..).unwrap_or_default();
    preprocess::rgba(body, input, colour, |first, colours| {
        let lines = lines.chunks_exact_mut(row).skip(first);
        for (line, colours) in lines.zip(colours.chunks_exact(width)) {
            let pixels = line.get_mut(border..border + width).unwrap_or_default();
            pixels.iter_mut().zip(colours).for_each(|(number, &colour)| *number = E::colour(colour));
        }
    })
}

/// From a tensor's numbers: (3, height, width), in 0..=1.
pub(super) fn set_planes<E: Element>(numbers: &mut Aligned<E>, layout: &Layout, planes: &[f32]) {
    let numbers = numbers.as_mut();
    for (channel, plane) in planes.chunks_exact(layout.width * layout.height).enumerate() {
        for (y, line) in plane.chunks_exact(layout.width).enumerate() {
            for (x, value) in line.iter().enumerate() {
                if let Some(number) = numbers.get_mut(layout.at(0, y, x) + channel) {
                    *number = E::nearest(value * 255.0);
                }
            }
        }
    }
}
