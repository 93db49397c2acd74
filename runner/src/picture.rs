//! A full frame in memory: three tight planes of 8-bit YUV 4:2:0 (I420), and how they are to be read as RGB.
//!
//! It is passed from the source to the scaler, the overlay and the recorder. Cloning shares the pixels; drawing on a
//! shared one copies them first. Nothing here converts, scales or draws.

use std::sync::Arc;

use kadr_shared::{geometry::Size, message::frame::Colour};

/// An owned I420 picture.
///
/// Luma is `width × height` bytes, each chroma plane `⌈width/2⌉ × ⌈height/2⌉`; rows follow one another without
/// padding, and the planes lie in one buffer in the order Y, U, V.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    size: Size,
    colour: Colour,
    data: Arc<Vec<u8>>,
}

/// One plane, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane<'a> {
    pub width: usize,
    pub height: usize,
    /// `width × height` bytes.
    pub data: &'a [u8],
}

/// One plane, written.
#[derive(Debug, PartialEq, Eq)]
pub struct PlaneMut<'a> {
    pub width: usize,
    pub height: usize,
    /// `width × height` bytes.
    pub data: &'a mut [u8],
}

/// Bytes that are no picture of the size they are said to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    #[error("an I420 picture of {size} has {wanted} bytes, {found} were given")]
    Length { size: Size, wanted: usize, found: usize },
    #[error("{size} is no picture's size: a side is 0, or it is too large for this machine's memory")]
    Size { size: Size },
}

impl Picture {
    /// Takes over `data`, which holds the planes of a picture of `size` as [`Picture`] lays them out.
    pub fn new(size: Size, colour: Colour, data: Vec<u8>) -> Result<Self, PictureError> {
        let wanted = Self::len(size).ok_or(PictureError::Size { size })?;
        if data.len() != wanted {
            return Err(PictureError::Length { size, wanted, found: data.len() });
        }
        Ok(Self { size, colour, data: Arc::new(data) })
    }

    /// A picture of one colour, given as `[y, u, v]`.
    pub fn uniform(size: Size, colour: Colour, [y, u, v]: [u8; 3]) -> Result<Self, PictureError> {
        let mut data = vec![0; Self::len(size).ok_or(PictureError::Size { size })?];
        let [luma, first, second] = split_mut(size, &mut data);
        luma.data.fill(y);
        first.data.fill(u);
        second.data.fill(v);
        Self::new(size, colour, data)
    }

    /// The bytes of a picture of `size`; none if a side is 0 or the product overflows.
    pub fn len(size: Size) -> Option<usize> {
        let (width, height) = (usize::try_from(size.width).ok()?, usize::try_from(size.height).ok()?);
        let luma = width.checked_mul(height).filter(|&n| n > 0)?;
        let chroma = width.div_ceil(2).checked_mul(height.div_ceil(2))?;
        luma.checked_add(chroma.checked_mul(2)?)
    }

    pub const fn size(&self) -> Size {
        self.size
    }

    pub const fn colour(&self) -> Colour {
        self.colour
    }

    /// All planes as they lie in memory.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Y, U and V.
    pub fn planes(&self) -> [Plane<'_>; 3] {
        let [y, u, v] = extents(self.size);
        let (luma, chroma) = self.data.split_at(y.0 * y.1);
        let (first, second) = chroma.split_at(u.0 * u.1);
        let plane = |(width, height): (usize, usize), data| Plane { width, height, data };
        [plane(y, luma), plane(u, first), plane(v, second)]
    }

    /// Y, U and V to draw on. Copies the pixels if another clone shares them.
    pub fn planes_mut(&mut self) -> [PlaneMut<'_>; 3] {
        split_mut(self.size, Arc::<Vec<u8>>::make_mut(&mut self.data).as_mut_slice())
    }
}

fn extents(size: Size) -> [(usize, usize); 3] {
    let chroma = (size.width.div_ceil(2) as usize, size.height.div_ceil(2) as usize);
    [(size.width as usize, size.height as usize), chroma, chroma]
}

/// `data` has the length of a picture of `size`; whoever calls has checked it.
fn split_mut(size: Size, data: &mut [u8]) -> [PlaneMut<'_>; 3] {
    let [y, u, v] = extents(size);
    let (luma, chroma) = data.split_at_mut(y.0 * y.1);
    let (first, second) = chroma.split_at_mut(u.0 * u.1);
    let plane = |(width, height): (usize, usize), data| PlaneMut { width, height, data };
    [plane(y, luma), plane(u, first), plane(v, second)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn odd_sides_round_chroma_up() {
        let picture = Picture::uniform(size(5, 3), Colour::default(), [1, 2, 3]).unwrap();
        assert_eq!(picture.planes().map(|p| (p.width, p.height, p.data.len())), [(5, 3, 15), (3, 2, 6), (3, 2, 6)]);
        assert_eq!(picture.planes().map(|p| p.data[0]), [1, 2, 3]);
    }

    #[test]
    fn drawing_leaves_other_clones_alone() {
        let kept = Picture::uniform(size(4, 4), Colour::default(), [9, 9, 9]).unwrap();
        let mut drawn = kept.clone();
        drawn.planes_mut()[0].data[0] = 1;
        assert_eq!((kept.bytes()[0], drawn.bytes()[0]), (9, 1));
    }

    #[test]
    fn wrong_lengths_and_sizes_are_refused() {
        assert_eq!(
            Picture::new(size(4, 4), Colour::default(), vec![0; 23]),
            Err(PictureError::Length { size: size(4, 4), wanted: 24, found: 23 })
        );
        for bad in [size(0, 4), size(4, 0), size(u32::MAX, u32::MAX)] {
            assert_eq!(Picture::new(bad, Colour::default(), vec![]), Err(PictureError::Size { size: bad }));
        }
    }
}
