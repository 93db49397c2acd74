//! The innermost loops, written once for any vectors and precision, and made for each kind of CPU.
//!
//! - [`vector`] says what sixteen f32 numbers can do, [`lanes`] how sixteen sums are fed at a precision: the two traits
//!   behind which CPUs differ;
//! - [`tile`] computes some pixels of a convolution, [`transform`] is Winograd's before and after, [`pool`] and
//!   [`threshold`] are the rest of a pass;
//! - [`portable`], [`avx2`], [`avx512`] and [`amx`] are the CPUs. NEON and others would stand beside them: a `Vector`, `Lanes` and a
//!   table of kernels.
//!
//! Which pixels, which channels and which buffers is not decided here.
#![allow(unsafe_code, reason = "SIMD intrinsics, and loops over memory that the caller vouches for")]

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(super) mod lanes;
mod pool;
mod portable;
#[cfg(test)]
mod tests;
mod threshold;
mod tile;
mod transform;
pub(super) mod vector;

use std::fmt;

pub(super) use self::{
    pool::Pool,
    threshold::Threshold,
    tile::{Finish, Output, Tile},
    transform::{POINTS, TransformIn, TransformOut, weights as transformed},
};
use super::element::{Bf16, Element};

/// What a CPU offers at a precision.
pub(crate) struct Kernels<E: Element> {
    pub(super) cpu: Cpu,
    /// Pixels of the largest tile that is 1, 2 and 3 blocks of output channels wide; 0 where there is none.
    pub(super) pixels: [usize; 3],
    /// The tile of this size, if there is one.
    pub(super) tile: fn(pixels: usize, blocks: usize, step: Step) -> Option<TileFn<E>>,
    pub(super) pool: unsafe fn(&Pool<E>),
    pub(super) threshold: unsafe fn(&Threshold),
    /// Winograd's transforms, where they pay.
    pub(super) transforms: Option<Transforms>,
}

pub(super) type TileFn<E> = unsafe fn(&Tile<'_, E>);

#[derive(Debug, Clone, Copy)]
pub(super) struct Transforms {
    pub(super) before: unsafe fn(&TransformIn),
    pub(super) after: unsafe fn(&TransformOut),
}

impl<E: Element> fmt::Debug for Kernels<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", E::PRECISION, self.cpu)
    }
}

/// Numbers from one output pixel's input to the next one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Every second pixel of the picture, four channels each.
    Picture,
    /// The next pixel of a block.
    Next,
    /// Every second pixel of a block.
    Second,
}

/// A kind of CPU, as far as kernels differ; the later ones are the faster ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cpu {
    /// Any.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, VL, DQ and BW.
    Avx512,
    /// The same with VNNI and BF16.
    Avx512Vnni,
    /// The same with AMX: tiles of bytes and of bf16.
    Amx,
}

impl Cpu {
    const ALL: [Self; 5] = [Self::Amx, Self::Avx512Vnni, Self::Avx512, Self::Avx2, Self::Portable];

    /// The best kind that this machine is.
    pub fn detect() -> Self {
        Self::here().next().unwrap_or(Self::Portable)
    }

    /// All kinds that this machine is, the fastest first.
    pub fn here() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|cpu| cpu.is_here())
    }

    #[cfg(target_arch = "x86_64")]
    fn is_here(self) -> bool {
        let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = || {
            avx2()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
        };
        let vnni = || avx512() && is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bf16");
        match self {
            Self::Portable => true,
            Self::Avx2 => avx2(),
            Self::Avx512 => avx512(),
            Self::Avx512Vnni => vnni(),
            Self::Amx => vnni() && amx::is_here(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_here(self) -> bool {
        self == Self::Portable
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Amx => "amx",
        }
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A precision with kernels for each kind of CPU.
pub(crate) trait Computed: Element {
    /// The fastest kernels that a machine of this kind can run. `cpu` must be one that this machine is.
    fn kernels(cpu: Cpu) -> Kernels<Self>;
}

impl Computed for f32 {
    fn kernels(cpu: Cpu) -> Kernels<Self> {
        match cpu {
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512 | Cpu::Avx512Vnni | Cpu::Amx => avx512::single(),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2 => avx2::single(),
            _ => portable::single(),
        }
    }
}

impl Computed for Bf16 {
    fn kernels(cpu: Cpu) -> Kernels<Self> {
        match cpu {
            #[cfg(target_arch = "x86_64")]
            Cpu::Amx => amx::half(),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512Vnni => avx512::half(),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2 | Cpu::Avx512 => avx2::half(),
            _ => portable::half(),
        }
    }
}

impl Computed for u8 {
    fn kernels(cpu: Cpu) -> Kernels<Self> {
        match cpu {
            #[cfg(target_arch = "x86_64")]
            Cpu::Amx => amx::bytes(),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512Vnni => avx512::bytes(),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2 | Cpu::Avx512 => avx2::bytes(),
            _ => portable::bytes(),
        }
    }
}

/// The functions of [`Kernels`] for some lanes, with the features of the CPU that has them.
///
/// Tiles are listed by their pixels, for 1, 2 and 3 blocks of output channels.
macro_rules! kernels {
    (
        $name:ident: $element:ty, $lanes:ty, $cpu:expr, $(features $features:literal,)?
        [$($one:literal)*] [$($two:literal)*] [$($three:literal)*], $transforms:expr
    ) => {
        pub(super) fn $name() -> $crate::fast::kernels::Kernels<$element> {
            use $crate::fast::{
                element::Element,
                layout::COLOURS,
                kernels::{Kernels, Pool, Step, Threshold, Tile, TileFn, lanes::Lanes, pool, threshold, tile},
            };

            const GROUP: usize = <$element as Element>::GROUP;

            // SAFETY (of all three): what the caller of a table's function must keep is what these ask for; and that the
            // CPU has the features, `Computed::kernels` asks of its caller.
            $(#[target_feature(enable = $features)])?
            unsafe fn tile_of<const PIXELS: usize, const BLOCKS: usize, const STEP: usize, const GROUPS: usize>(
                t: &Tile<'_, $element>,
            ) {
                unsafe { tile::tile::<$lanes, PIXELS, BLOCKS, STEP, GROUPS>(t) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn pool_of(p: &Pool<$element>) {
                unsafe { pool::pool::<$lanes>(p) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn threshold_of(t: &Threshold) {
                unsafe { threshold::threshold::<<$lanes as Lanes>::Vector>(t) }
            }

            fn tile(pixels: usize, blocks: usize, step: Step) -> Option<TileFn<$element>> {
                Some(match (blocks, step, pixels) {
                    $((1, Step::Picture, $one) => tile_of::<$one, 1, 8, { COLOURS.div_ceil(GROUP) }>,)*
                    $((1, Step::Next, $one) => tile_of::<$one, 1, 16, { 16 / GROUP }>,)*
                    $((1, Step::Second, $one) => tile_of::<$one, 1, 32, { 16 / GROUP }>,)*
                    $((2, Step::Picture, $two) => tile_of::<$two, 2, 8, { COLOURS.div_ceil(GROUP) }>,)*
                    $((2, Step::Next, $two) => tile_of::<$two, 2, 16, { 16 / GROUP }>,)*
                    $((2, Step::Second, $two) => tile_of::<$two, 2, 32, { 16 / GROUP }>,)*
                    $((3, Step::Picture, $three) => tile_of::<$three, 3, 8, { COLOURS.div_ceil(GROUP) }>,)*
                    $((3, Step::Next, $three) => tile_of::<$three, 3, 16, { 16 / GROUP }>,)*
                    $((3, Step::Second, $three) => tile_of::<$three, 3, 32, { 16 / GROUP }>,)*
                    _ => return None,
                })
            }

            let most = |tiles: &[usize]| tiles.iter().copied().max().unwrap_or(0);
            Kernels {
                cpu: $cpu,
                pixels: [most(&[$($one),*]), most(&[$($two),*]), most(&[$($three),*])],
                tile,
                pool: pool_of,
                threshold: threshold_of,
                transforms: $transforms,
            }
        }
    };
}
use kernels;

/// Winograd's transforms for some vectors.
macro_rules! transforms {
    ($vector:ty $(, features $features:literal)?) => {{
        use $crate::fast::kernels::{TransformIn, TransformOut, Transforms, transform};

        // SAFETY (of both): as of the other kernels.
        $(#[target_feature(enable = $features)])?
        unsafe fn before(t: &TransformIn) {
            unsafe { transform::before::<$vector>(t) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn after(t: &TransformOut) {
            unsafe { transform::after::<$vector>(t) }
        }

        Some(Transforms { before, after })
    }};
}
use transforms;
