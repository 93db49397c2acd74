//! Where a feature map's numbers lie: sixteen channels of a pixel side by side, pixels line by line, one block of sixteen
//! channels after another, with a border of one pixel round every block.
//!
//! The border holds what stands for zero and is never written, so that a 3×3 kernel needs no code for edges. The picture
//! has one block of four channels.

use crate::model::graph::{Graph, Map};

/// Channels of a block.
pub(crate) const BLOCK: usize = 16;
/// Channels of the picture's only block: red, green, blue, and one that is there for the sake of its size.
const PICTURE_BLOCK: usize = 4;
/// Channels of it that are multiplied, with others only if they come in a group with them.
pub(crate) const COLOURS: usize = 3;

/// A map's layout for a picture of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Channels of a block.
    pub(crate) depth: usize,
    /// The first block of each part, and behind the last one's end.
    starts: Vec<usize>,
}

impl Layout {
    pub(crate) fn new(map: &Map, width: usize, height: usize) -> Self {
        let depth = if map.stride == 1 { PICTURE_BLOCK } else { BLOCK };
        Self { width: width / map.stride, height: height / map.stride, depth, starts: starts(&map.parts) }
    }

    /// Of the same size, for other channels.
    pub(crate) fn with_parts(&self, parts: &[usize]) -> Self {
        Self { starts: starts(parts), ..*self }
    }

    /// So many lines of the same.
    pub(crate) fn of_height(&self, height: usize) -> Self {
        Self { height, ..self.clone() }
    }

    /// Whether the borders lie at the same places, as far as both reach.
    pub(crate) fn same_size(&self, other: &Self) -> bool {
        (self.width, self.height, self.depth) == (other.width, other.height, other.depth)
    }

    /// Blocks of all parts.
    pub(crate) fn blocks(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The first block of a part; of the one behind the last, the end.
    pub(crate) fn start(&self, part: usize) -> usize {
        self.starts.get(part).copied().unwrap_or_else(|| self.blocks())
    }

    /// Numbers from a line to the next one.
    pub(crate) fn row(&self) -> usize {
        (self.width + 2) * self.depth
    }

    /// Numbers from a block to the next one.
    pub(crate) fn plane(&self) -> usize {
        self.row() * (self.height + 2)
    }

    /// Numbers of all blocks.
    pub(crate) fn len(&self) -> usize {
        self.plane() * self.blocks()
    }

    /// Where a pixel of a block begins; x and y count from the map's first pixel inside the border.
    pub(crate) fn at(&self, block: usize, y: usize, x: usize) -> usize {
        self.corner(block, y, x) + self.row() + self.depth
    }

    /// Where the pixel up and left of a pixel begins: the first one that a 3×3 kernel looks at.
    pub(crate) fn corner(&self, block: usize, y: usize, x: usize) -> usize {
        block * self.plane() + y * self.row() + x * self.depth
    }
}

/// The first block of each part, and the end of the last one.
fn starts(parts: &[usize]) -> Vec<usize> {
    let mut end = 0;
    let ends = parts.iter().map(|channels| {
        end += channels.div_ceil(BLOCK);
        end
    });
    std::iter::once(0).chain(ends).collect()
}

/// For each channel of the padded blocks of these parts, which channel of theirs it is: none for padding.
pub(crate) fn slots(parts: &[usize]) -> Vec<Option<usize>> {
    let mut slots = Vec::new();
    let mut channel = 0;
    for &channels in parts {
        slots.extend((channel..channel + channels).map(Some));
        slots.resize(slots.len().next_multiple_of(BLOCK), None);
        channel += channels;
    }
    slots
}

/// The layouts of all maps of a network.
pub(crate) fn layouts(graph: &Graph, width: usize, height: usize) -> Vec<Layout> {
    graph.maps.iter().map(|map| Layout::new(map, width, height)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_begins_a_block_of_its_own() {
        let layout = Layout::new(&Map { stride: 8, parts: vec![4, 16, 40] }, 64, 32);
        assert_eq!((layout.width, layout.height, layout.blocks()), (8, 4, 5));
        assert_eq!([0, 1, 2, 3, 9].map(|part| layout.start(part)), [0, 1, 2, 5, 5]);
        assert_eq!(layout.row(), 10 * 16);
        assert_eq!(layout.at(1, 0, 0), 6 * 160 + 160 + 16);
        assert_eq!(layout.at(1, 0, 0) - layout.corner(1, 0, 0), layout.row() + 16);
    }

    #[test]
    fn slots_tell_padding_from_channels() {
        let slots = slots(&[2, 17]);
        assert_eq!(slots.len(), 48);
        assert_eq!((slots[1], slots[2], slots[16], slots[32], slots[33]), (Some(1), None, Some(2), Some(18), None));
    }
}
