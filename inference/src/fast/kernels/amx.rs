//! x86-64 with AMX: sixteen pixels by sixteen output channels in one of eight tiles, by one instruction.
//!
//! What follows the sums is AVX-512's. Tiles and their shapes live within one block of assembly: the compiler knows
//! nothing of them, and nothing of them is left when it ends.

// SAFETY, of every function here: traits say what their callers keep. Bodies are unsafe as a whole, since nearly every call
// in them is.
#![allow(unsafe_op_in_unsafe_fn)]

use std::{
    arch::{asm, x86_64::__cpuid_count},
    mem::{MaybeUninit, offset_of},
    sync::OnceLock,
};

use super::{
    Kernels, Step, Tile, TileFn,
    avx512::{self, Bytes, Half},
    lanes::Lanes,
    tile::finish,
};
use crate::fast::{
    element::{Bf16, Element},
    kernels::Cpu,
    layout::COLOURS,
};

/// Pixels of the widest tile: ten of AMX's, so that shapes are loaded seldom (170 cycles) and sums stay in the first cache.
const MOST: usize = 160;
/// Rows of AMX's tiles, and bytes of a row.
const ROWS: usize = 16;
const ROW: usize = 64;

/// Whether this machine has it, and the system lets this process use it.
pub(super) fn is_here() -> bool {
    static HERE: OnceLock<bool> = OnceLock::new();
    *HERE.get_or_init(|| {
        const TILES: u32 = 1 << 24;
        const BF16: u32 = 1 << 22;
        const INT8: u32 = 1 << 25;
        let wanted = TILES | BF16 | INT8;
        __cpuid_count(7, 0).edx & wanted == wanted && is_permitted()
    })
}

/// Linux wants to be asked once for a process: tiles make what it keeps of a thread 8 KB larger.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: isize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let answer: isize;
    // SAFETY: the call reads and writes no memory of this process.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// How others are asked is not known here.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The shapes of all tiles, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Four tiles of sums, two of pixels, two of weights: `pixels` by `bytes` of input channels.
    fn new(pixels: usize, bytes: usize) -> Self {
        let (sums, input) = (ROW as u16, bytes as u16);
        let (pixels, groups) = (pixels as u8, (bytes / 4) as u8);
        let mut shapes = Self { palette: 1, start: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        shapes.row_bytes[..8].copy_from_slice(&[sums, sums, sums, sums, input, input, sums, sums]);
        shapes.rows[..8].copy_from_slice(&[pixels, pixels, pixels, pixels, pixels, pixels, groups, groups]);
        shapes
    }
}

/// What a block of assembly works through: for each pair of tiles of pixels, for each run of taps, for each part of it.
#[repr(C)]
struct Walk {
    shapes: Shapes,
    taps: *const usize,
    /// Bytes from a run's first tap to the next one's.
    run: usize,
    runs: usize,
    /// Parts of a run, each of as many bytes a pixel as a tile takes; and those.
    parts: usize,
    part: usize,
    weights: *const u8,
    /// Bytes of weights of a part.
    advance: usize,
    /// Bytes from a block's sums to the next one's.
    block: usize,
}

/// Two tiles of pixels: where their inputs lie at offset 0, and where their sums go.
#[repr(C)]
#[derive(Clone, Copy)]
struct Pair {
    inputs: [*const u8; 2],
    sums: [*mut u8; 2],
}

/// Lanes whose sums tiles can feed.
trait Matrix: Lanes {
    /// The sums of `BLOCKS` blocks of output channels, sixteen 32-bit numbers a pixel.
    ///
    /// # Safety
    /// The CPU has AMX. `row` are the bytes from a pixel to the next one. Every input and weight that the walk says can
    /// be read, and the sums of each pair written.
    unsafe fn multiply<const BLOCKS: usize>(walk: &Walk, pairs: &[Pair], row: usize);
}

/// The loop around one instruction. With one block the second tile of weights and its sums are left out.
macro_rules! multiply {
    ($product:literal, $size:literal, $walk:expr, $pairs:expr, $row:expr, $blocks:literal, [$($load:literal)?], [$($feed:literal,)*], [$($store:literal,)*]) => {
        asm!(
            "ldtilecfg [{walk} + {shapes}]",
            // For each pair.
            "2:",
            "mov {weights}, [{walk} + {weights_at}]",
            "mov {tap}, [{walk} + {taps}]",
            "mov {runs}, [{walk} + {runs_at}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            // For each run of taps.
            "3:",
            concat!("imul {first}, [{tap}], ", $size),
            "mov {second}, {first}",
            "add {first}, [{pair}]",
            "add {second}, [{pair} + 8]",
            "mov {parts}, [{walk} + {parts_at}]",
            // For each part.
            "4:",
            "tileloadd tmm4, [{first} + {row}]",
            concat!("tileloadd tmm6, [{weights} + {line} * ", $blocks, "]"),
            "tileloadd tmm5, [{second} + {row}]",
            $($load,)?
            concat!($product, " tmm0, tmm4, tmm6"),
            concat!($product, " tmm2, tmm5, tmm6"),
            $(concat!($product, $feed),)*
            "add {weights}, [{walk} + {advance}]",
            "add {first}, [{walk} + {part}]",
            "add {second}, [{walk} + {part}]",
            "dec {parts}",
            "jnz 4b",
            "add {tap}, [{walk} + {run}]",
            "dec {runs}",
            "jnz 3b",
            "mov {first}, [{pair} + 16]",
            "mov {second}, [{pair} + 24]",
            "tilestored [{first} + {line}], tmm0",
            "tilestored [{second} + {line}], tmm2",
            "add {first}, [{walk} + {block}]",
            "add {second}, [{walk} + {block}]",
            $($store,)*
            "add {pair}, {pair_size}",
            "dec {pairs}",
            "jnz 2b",
            "tilerelease",
            walk = in(reg) $walk,
            pair = inout(reg) $pairs.as_ptr() => _,
            pairs = inout(reg) $pairs.len() => _,
            row = in(reg) $row,
            line = in(reg) ROW,
            weights = out(reg) _,
            tap = out(reg) _,
            runs = out(reg) _,
            parts = out(reg) _,
            first = out(reg) _,
            second = out(reg) _,
            shapes = const offset_of!(Walk, shapes),
            taps = const offset_of!(Walk, taps),
            run = const offset_of!(Walk, run),
            runs_at = const offset_of!(Walk, runs),
            parts_at = const offset_of!(Walk, parts),
            part = const offset_of!(Walk, part),
            weights_at = const offset_of!(Walk, weights),
            advance = const offset_of!(Walk, advance),
            block = const offset_of!(Walk, block),
            pair_size = const size_of::<Pair>(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

macro_rules! matrix {
    ($lanes:ty, $product:literal, $size:literal) => {
        impl Matrix for $lanes {
            #[inline(always)]
            unsafe fn multiply<const BLOCKS: usize>(walk: &Walk, pairs: &[Pair], row: usize) {
                if BLOCKS == 1 {
                    multiply!($product, $size, walk, pairs, row, 1, [], [], [])
                } else {
                    multiply!(
                        $product,
                        $size,
                        walk,
                        pairs,
                        row,
                        2,
                        ["tileloadd tmm7, [{weights} + {line} * 2 + 64]"],
                        [" tmm1, tmm4, tmm7", " tmm3, tmm5, tmm7",],
                        ["tilestored [{first} + {line}], tmm1", "tilestored [{second} + {line}], tmm3",]
                    )
                }
            }
        }
    };
}

matrix!(Bytes, "tdpbusd", 1);
matrix!(Half, "tdpbf16ps", 2);

/// See [`super::tile::tile`], which asks for the same.
///
/// A run of taps lies side by side in memory, so that a tile takes it at once: of three taps of sixteen bytes, 48 of its
/// 64. The pixels are shared out among tiles of one height, an even number of them; the last may overlap the one before.
#[inline(always)]
unsafe fn tile<L: Matrix, const BLOCKS: usize, const STEP: usize, const GROUPS: usize>(t: &Tile<'_, L::Element>) {
    let size = size_of::<L::Element>();
    let run_bytes = t.run * GROUPS * 4;
    let parts = run_bytes.div_ceil(ROW);
    let part = run_bytes / parts;
    let pairs = t.pixels.div_ceil(2 * ROWS);
    let rows = t.pixels.div_ceil(2 * pairs);
    let mut sums = MaybeUninit::<[[[u32; 16]; MOST]; BLOCKS]>::uninit();
    let sums = sums.as_mut_ptr().cast::<u8>();
    let at = |number: usize| (number * rows).min(t.pixels - rows);
    let mut made = [Pair { inputs: [std::ptr::null(); 2], sums: [std::ptr::null_mut(); 2] }; MOST / (2 * ROWS)];
    for (number, pair) in made[..pairs].iter_mut().enumerate() {
        let both = [at(2 * number), at(2 * number + 1)];
        pair.inputs = both.map(|pixel| t.input.add(pixel * STEP).cast());
        pair.sums = both.map(|pixel| sums.add(pixel * ROW));
    }
    let walk = Walk {
        shapes: Shapes::new(rows, part),
        taps: t.taps.as_ptr(),
        run: t.run * size_of::<usize>(),
        runs: t.taps.len() / t.run,
        parts,
        part,
        weights: t.weights.cast(),
        advance: part / 4 * BLOCKS * ROW,
        block: MOST * ROW,
    };
    L::multiply::<BLOCKS>(&walk, &made[..pairs], STEP * size);
    for block in 0..BLOCKS {
        let sums = sums.add(block * MOST * ROW);
        finish::<L>(t, block, t.pixels, |pixel| L::sums(sums.add(pixel * ROW).cast::<L::Sums>().read_unaligned()));
    }
}

/// The function of [`Kernels`] for some lanes.
macro_rules! tiles {
    ($name:ident: $element:ty, $lanes:ty, features $features:literal) => {
        pub(super) fn $name() -> Kernels<$element> {
            const GROUP: usize = <$element as Element>::GROUP;

            // SAFETY: as of AVX-512's.
            #[target_feature(enable = $features)]
            unsafe fn tile_of<const BLOCKS: usize, const STEP: usize, const GROUPS: usize>(t: &Tile<'_, $element>) {
                tile::<$lanes, BLOCKS, STEP, GROUPS>(t)
            }

            fn of(pixels: usize, blocks: usize, step: Step) -> Option<TileFn<$element>> {
                if pixels == 0 || pixels > MOST {
                    return None;
                }
                Some(match (blocks, step) {
                    (1, Step::Picture) => tile_of::<1, 8, { COLOURS.div_ceil(GROUP) }>,
                    (1, Step::Next) => tile_of::<1, 16, { 16 / GROUP }>,
                    (1, Step::Second) => tile_of::<1, 32, { 16 / GROUP }>,
                    (2, Step::Picture) => tile_of::<2, 8, { COLOURS.div_ceil(GROUP) }>,
                    (2, Step::Next) => tile_of::<2, 16, { 16 / GROUP }>,
                    (2, Step::Second) => tile_of::<2, 32, { 16 / GROUP }>,
                    _ => return None,
                })
            }

            Kernels { cpu: Cpu::Amx, pixels: [MOST, MOST, 0], tile: of, ..avx512::$name() }
        }
    };
}

tiles!(half: Bf16, Half, features "avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,avx2,fma");
tiles!(bytes: u8, Bytes, features "avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2,fma");
