//! Steps of a pass as tasks for a team: the one place where threads write into the same buffers.
//!
//! Why that is sound, for all of it: a step reads maps that earlier steps have written and writes others (the graph's
//! tests hold that nothing is written twice, the plan gives maps that live at the same time buffers of their own), and
//! its tasks write different pixels or blocks. Offsets follow from the layouts that the buffers were made for.
#![allow(unsafe_code, reason = "threads write different parts of one buffer")]

mod winograd;

pub(super) use self::winograd::Room;
use super::{
    conv::{Ready, Tiles},
    head::{Flags, Head},
    kernels::{Computed, Finish, Kernels, Output, Pool, Threshold, Tile},
    layout::{BLOCK, Layout},
    memory::Aligned,
    pair::Pair,
    plan::{Blocks, Place, Planned},
    threads::Team,
};
use crate::model::graph::Kind;

/// Where each map lies.
pub(super) struct Memory<'a, E> {
    maps: &'a [Planned],
    stored: Pointers<E>,
    plain: Pointers<f32>,
}

/// To the buffers, for all threads.
struct Pointers<N>([*mut N; BUFFERS]);

/// More than any network needs (YOLOv8: 16 at most).
const BUFFERS: usize = 64;

// SAFETY: what is done with them is above.
unsafe impl<N: Send> Sync for Pointers<N> {}

impl<N: super::memory::Number> Pointers<N> {
    fn to(buffers: &mut [Aligned<N>]) -> Self {
        debug_assert!(buffers.len() <= BUFFERS);
        let mut pointers = [std::ptr::null_mut(); BUFFERS];
        pointers.iter_mut().zip(buffers).for_each(|(pointer, buffer)| *pointer = buffer.as_mut_ptr());
        Self(pointers)
    }

    fn get(&self, buffer: usize) -> *mut N {
        self.0[buffer]
    }
}

/// A pointer that tasks share.
#[derive(Clone, Copy)]
struct Everyones<N>(*mut N);

// SAFETY: what is done with it is above.
unsafe impl<N: Send> Sync for Everyones<N> {}

impl<N> Everyones<N> {
    /// A method, so that closures take the whole and not the pointer in it.
    fn get(&self) -> *mut N {
        self.0
    }
}

/// Lines of a map of activations, or all of it.
struct Lines<'a, E> {
    numbers: *mut E,
    layout: &'a Layout,
    /// The map's line that is the first one here. The one before it lies in the border.
    first: usize,
}

impl<E> Clone for Lines<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Lines<'_, E> {}

// SAFETY: what is done with it is above.
unsafe impl<E: Send> Sync for Lines<'_, E> {}

impl<E> Lines<'_, E> {
    /// Where a pixel of the map begins.
    fn at(&self, block: usize, y: usize, x: usize) -> usize {
        // The line before the first one is meant by its number as well.
        self.layout.corner(block, y + 1 - self.first, x) + self.layout.depth
    }

    /// Where the pixel up and left of it does.
    fn corner(&self, block: usize, y: usize, x: usize) -> usize {
        self.layout.corner(block, y - self.first, x)
    }
}

impl<'a, E: Computed> Memory<'a, E> {
    pub(super) fn new(maps: &'a [Planned], stored: &mut [Aligned<E>], plain: &mut [Aligned<f32>]) -> Self {
        Self { maps, stored: Pointers::to(stored), plain: Pointers::to(plain) }
    }

    fn layout(&self, map: usize) -> &'a Layout {
        &self.maps[map].layout
    }

    /// The first number of a map of activations.
    fn stored(&self, map: usize) -> *mut E {
        match self.maps[map].place {
            Place::Stored(buffer) => self.stored.get(buffer),
            Place::Plain(_) | Place::Nowhere => std::ptr::null_mut(),
        }
    }

    /// The first number of a map of f32 numbers.
    fn plain(&self, map: usize) -> *mut f32 {
        match self.maps[map].place {
            Place::Plain(buffer) => self.plain.get(buffer),
            Place::Stored(_) | Place::Nowhere => std::ptr::null_mut(),
        }
    }

    /// A whole map of activations.
    fn whole(&self, map: usize) -> Lines<'a, E> {
        Lines { numbers: self.stored(map), layout: self.layout(map), first: 0 }
    }

    /// Two convolutions, band by band. Lines between two bands are computed for both.
    pub(super) fn pair(&self, pair: &Pair<E>, room: &mut Room<E>, team: &mut Team) {
        let Pair { first, second, between, taps, bands } = pair;
        let (middle, to) = (self.layout(first.to.map), self.layout(second.to.map));
        assert!(
            room.bands.len() >= team.members() && room.bands.iter().all(|band| band.as_ref().len() >= between.len())
        );
        let zero = room.bands[0].as_ref()[between.row() - 1];
        let rooms = Everyones(room.bands.as_mut_ptr());
        team.run(*bands, &|member, task| {
            let lines = to.height * task / bands..to.height * (task + 1) / bands;
            // SAFETY: the member's own.
            let numbers = unsafe { (*rooms.get().add(member)).as_mut_ptr() };
            // The second one looks at the line before its first.
            let band = Lines { numbers, layout: between, first: 2 * lines.start };
            let needed = (2 * lines.start).saturating_sub(1)..(2 * lines.end).min(middle.height);
            if lines.start == 0 {
                for block in 0..between.blocks() {
                    // SAFETY: the band's first line, where another task may have left one of its own.
                    unsafe {
                        let line = numbers.add(between.corner(block, 0, 0));
                        std::slice::from_raw_parts_mut(line, between.row()).fill(zero);
                    }
                }
            }
            for y in needed {
                first.groups.iter().for_each(|tiles| {
                    self.lines(first, tiles, y..y + 1, None, (self.whole(first.from.map), band), &first.work.taps);
                });
            }
            for y in lines {
                second.groups.iter().for_each(|tiles| {
                    self.lines(second, tiles, y..y + 1, None, (band, self.whole(second.to.map)), taps);
                });
            }
        });
    }

    /// A convolution, a line's tiles after another's. `wanted` has a flag a pixel: tiles without any are left out.
    pub(super) fn direct(&self, conv: &Ready<E>, wanted: Option<&[bool]>, team: &mut Team) {
        let to = self.layout(conv.to.map);
        let (groups, bands) = (conv.groups.len(), conv.work.bands);
        let lines = |band: usize| to.height * band / bands..to.height * (band + 1) / bands;
        let (ends, taps) = ((self.whole(conv.from.map), self.whole(conv.to.map)), conv.work.taps.as_slice());
        if conv.work.by_group {
            team.run(groups * bands, &|_, task| {
                self.lines(conv, &conv.groups[task / bands], lines(task % bands), wanted, ends, taps)
            });
        } else {
            team.run(bands, &|_, task| {
                // A line of the input stays in the first cache while all groups read it.
                for y in lines(task) {
                    conv.groups.iter().for_each(|tiles| self.lines(conv, tiles, y..y + 1, wanted, ends, taps));
                }
            });
        }
    }

    /// One group of output blocks on some lines, from one place to another; `taps` are of the layout that is read.
    fn lines(
        &self,
        conv: &Ready<E>,
        tiles: &Tiles<E>,
        lines: std::ops::Range<usize>,
        wanted: Option<&[bool]>,
        (from, to): (Lines<'_, E>, Lines<'_, E>),
        taps: &[usize],
    ) {
        let width = self.layout(conv.to.map).width;
        let stride = conv.kind.stride();
        let first = conv.to.first + tiles.group.first;
        // SAFETY: within the map of the input, of the weights and the output: see above.
        unsafe {
            let weights = conv.weights.as_ptr().add(tiles.group.weights);
            for y in lines {
                for strip in &tiles.strips {
                    if wanted.is_some_and(|wanted| !wanted[y * width + strip.x..][..strip.pixels].contains(&true)) {
                        continue;
                    }
                    let (inputs, x) = (conv.from.first, strip.x);
                    let input = match conv.kind {
                        Kind::Point => from.at(inputs, y, x),
                        Kind::Area | Kind::Halving => from.corner(inputs, y * stride, x * stride),
                    };
                    let output = to.at(first, y, x);
                    (strip.tile)(&Tile {
                        input: from.numbers.add(input),
                        taps,
                        run: conv.kind.side(),
                        pixels: strip.pixels,
                        weights,
                        output: if conv.activated {
                            Output::Activated(to.numbers.add(output))
                        } else {
                            Output::Linear(self.plain(conv.to.map).add(output))
                        },
                        plane: to.layout.plane(),
                        finish: self.finish(conv, tiles.group.first, y, x),
                    });
                }
            }
        }
    }

    /// # Safety
    /// The group is one of the convolution's, the pixel one of its output's.
    unsafe fn finish(&self, conv: &Ready<E>, group: usize, y: usize, x: usize) -> Finish<E> {
        let numbers = &conv.numbers;
        // SAFETY: within the maps, as the caller says.
        unsafe {
            let (addend, addend_plane) = match conv.part {
                Some(map) => {
                    let layout = self.layout(map);
                    (self.plain(map).add(layout.at(group, y / 2, x / 2)).cast_const(), layout.plane())
                }
                None => (std::ptr::null(), 0),
            };
            let (shortcut, shortcut_plane) = match conv.shortcut {
                Some(Blocks { map, first, .. }) => {
                    let layout = self.layout(map);
                    (self.stored(map).add(layout.at(first + group, y, x)).cast_const(), layout.plane())
                }
                None => (std::ptr::null(), 0),
            };
            Finish {
                scale: numbers.scale.as_ptr().add(group * BLOCK),
                bias: numbers.bias.as_ptr().add(group * BLOCK),
                addend,
                addend_plane,
                odd: x % 2 == 1,
                shortcut,
                shortcut_plane,
                shortcut_scale: numbers.shortcut_scale,
                gain: numbers.gain,
                offset: numbers.offset,
            }
        }
    }

    /// The maxima of each block.
    pub(super) fn pool(&self, from: Blocks, to: Blocks, kernels: &Kernels<E>, team: &mut Team) {
        let (source, target) = (self.layout(from.map), self.layout(to.map));
        team.run(from.count, &|_, block| {
            for y in 0..source.height {
                // SAFETY: a line of a block, of which the input is another part of the map.
                unsafe {
                    (kernels.pool)(&Pool {
                        input: self.stored(from.map).add(source.at(from.first + block, 0, 0)),
                        output: self.stored(to.map).add(target.at(to.first + block, y, 0)),
                        y,
                        width: source.width,
                        height: source.height,
                        row: source.row(),
                    });
                }
            }
        });
    }

    /// Marks where any class of a level has a logit above `least`.
    pub(super) fn mark(&self, head: &Head, least: f32, kernels: &Kernels<E>, flags: &mut Flags, team: &mut Team) {
        let layout = &head.layout;
        let found = Everyones(flags.likely.as_mut_ptr());
        team.run(layout.height.min(4), &|_, task| {
            let bands = layout.height.min(4);
            for y in layout.height * task / bands..layout.height * (task + 1) / bands {
                // SAFETY: a line of logits, and the flags of its pixels.
                unsafe {
                    (kernels.threshold)(&Threshold {
                        logits: self.plain(head.classes).add(layout.at(0, y, 0)),
                        plane: layout.plane(),
                        blocks: layout.blocks(),
                        least,
                        found: found.get().add(y * layout.width),
                        width: layout.width,
                    });
                }
            }
        });
        flags.mark_margin(layout);
    }
}
