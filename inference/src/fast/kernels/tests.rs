//! Each CPU's kernels against their portable twins, over random numbers, taps, offsets and finishes.

use proptest::prelude::*;

use super::*;
use crate::fast::layout::{BLOCK, COLOURS};

/// Numbers from -1 to 1 (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn below(&mut self, end: usize) -> usize {
        (((self.next() + 1.0) / 2.0 * end as f32) as usize).min(end - 1)
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Activations of about the size that they have.
    fn stored<E: Element>(&mut self, count: usize) -> Vec<E> {
        let scale = if E::PRECISION == crate::fast::Precision::Int8 { 127.0 } else { 2.0 };
        let offset = if E::PRECISION == crate::fast::Precision::Int8 { 128.0 } else { 0.0 };
        (0..count).map(|_| E::nearest(self.next() * scale + offset)).collect()
    }
}

const STEPS: [(Step, usize, usize); 3] = [(Step::Picture, 8, 4), (Step::Next, 16, 16), (Step::Second, 32, 16)];
/// Numbers from an output block to the next one.
const PLANE: usize = 200 * BLOCK;

/// What a tile is given, and what it writes into.
struct Case<E: Element> {
    input: Vec<E>,
    taps: Vec<usize>,
    run: usize,
    /// Of each block: [tap][group][output channel][channel of the group].
    weights: Vec<Vec<E::Weight>>,
    scale: Vec<f32>,
    bias: Vec<f32>,
    addend: Option<Vec<f32>>,
    odd: bool,
    shortcut: Option<Vec<E>>,
    numbers: [f32; 3],
    kind: usize,
}

impl<E: Element> Case<E> {
    fn new(random: &mut Random, blocks: usize, pixels: usize, step: usize, channels: usize) -> Self {
        // In a picture a line of the square is always a run.
        let run = if channels < BLOCK || random.below(2) == 1 { 3 } else { 1 };
        let mut taps = Vec::new();
        for first in (0..1 + random.below(12)).map(|_| random.below(200)).collect::<Vec<_>>() {
            taps.extend((0..run).map(|tap| first + tap * channels));
        }
        let fed = if channels < BLOCK { COLOURS.next_multiple_of(E::GROUP) } else { channels };
        let count = taps.len() * fed * BLOCK;
        let bytes = E::PRECISION == crate::fast::Precision::Int8;
        // As a layer's scales are: sums of many products come to a few units.
        let small = if bytes { 1.0 / (127.0 * 127.0) } else { 1.0 } / (taps.len() * channels) as f32;
        let finish = random.below(3);
        Self {
            input: random.stored(200 + pixels * step + run * channels),
            weights: (0..blocks).map(|_| E::row(&random.floats(count)).weights).collect(),
            scale: random.floats(blocks * BLOCK).iter().map(|s| 4.0 * s * small).collect(),
            bias: random.floats(blocks * BLOCK),
            addend: (finish == 1).then(|| random.floats(blocks * PLANE)),
            odd: random.below(2) == 1,
            shortcut: (finish == 2).then(|| random.stored(blocks * PLANE)),
            numbers: if bytes { [0.9, 40.0, 60.0] } else { [1.0, 1.0, 0.0] },
            kind: random.below(4),
            taps,
            run,
        }
    }

    /// The weights of these blocks in a tile's order.
    fn packed(&self, blocks: std::ops::Range<usize>) -> Vec<E::Weight> {
        let group = BLOCK * E::GROUP;
        let groups = self.weights[0].len() / group;
        let of =
            |g: usize| self.weights[blocks.clone()].iter().flat_map(move |w| w[g * group..(g + 1) * group].to_vec());
        (0..groups).flat_map(of).collect()
    }

    /// Runs tiles of `pixels` by `blocks` over all pixels and blocks; what came out, as numbers.
    fn run(&self, kernels: &Kernels<E>, step: (Step, usize), all: (usize, usize), tile: (usize, usize)) -> Vec<f32> {
        let (mut plain, mut stored) = (vec![0f32; all.1 * PLANE], vec![E::nearest(0.0); all.1 * PLANE]);
        for block in (0..all.1).step_by(tile.1) {
            let weights = self.packed(block..block + tile.1);
            for pixel in (0..all.0).step_by(tile.0) {
                let at = block * PLANE + pixel * BLOCK;
                let numbers = self.numbers;
                let over = (pixel + usize::from(self.odd)) / 2 * BLOCK + block * PLANE;
                let null = std::ptr::null();
                let finish = Finish {
                    scale: self.scale[block * BLOCK..].as_ptr(),
                    bias: self.bias[block * BLOCK..].as_ptr(),
                    addend: self.addend.as_ref().map_or(null, |addend| addend[over..].as_ptr()),
                    addend_plane: PLANE,
                    odd: (pixel + usize::from(self.odd)) % 2 == 1,
                    shortcut: self.shortcut.as_ref().map_or(std::ptr::null(), |shortcut| shortcut[at..].as_ptr()),
                    shortcut_plane: PLANE,
                    shortcut_scale: numbers[0],
                    gain: numbers[1],
                    offset: numbers[2],
                };
                let output = match self.kind {
                    0 => Output::Sums(plain[at..].as_mut_ptr()),
                    1 => Output::Linear(plain[at..].as_mut_ptr()),
                    _ => Output::Activated(stored[at..].as_mut_ptr()),
                };
                let function = (kernels.tile)(tile.0, tile.1, step.0).unwrap();
                let input = self.input[pixel * step.1..].as_ptr();
                // SAFETY: everything is as long as the case was made for.
                unsafe {
                    function(&Tile {
                        input,
                        taps: &self.taps,
                        run: self.run,
                        pixels: tile.0,
                        weights: weights.as_ptr(),
                        output,
                        plane: PLANE,
                        finish,
                    })
                };
            }
        }
        if self.kind < 2 { plain } else { stored.into_iter().map(E::value).collect() }
    }
}

fn compare<E: Computed>(seed: u64, tolerance: f32) {
    let mut random = Random(seed);
    let twin = E::kernels(Cpu::Portable);
    for cpu in Cpu::here() {
        let kernels = E::kernels(cpu);
        for (step, numbers, channels) in STEPS {
            for (blocks, &most) in (1..).zip(&kernels.pixels) {
                for pixels in 1..=most {
                    let case = Case::<E>::new(&mut random, blocks, pixels, numbers, channels);
                    let found = case.run(&kernels, (step, numbers), (pixels, blocks), (pixels, blocks));
                    let wanted = case.run(&twin, (step, numbers), (pixels, blocks), (1, 1));
                    // A byte may be rounded to the other side.
                    let bytes = E::PRECISION == crate::fast::Precision::Int8 && case.kind > 1;
                    for (at, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                        let allowed = if bytes { 1.0 } else { tolerance * wanted.abs().max(1.0) };
                        let near = (found - wanted).abs() <= allowed;
                        assert!(near, "{kernels:?} {step:?} {pixels}×{blocks} at {at}: {found}, not {wanted}");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn tiles_of_f32_are_their_twins(seed: u64) {
        compare::<f32>(seed, 1e-4);
    }

    #[test]
    fn tiles_of_bf16_are_their_twins_to_the_last_bit_or_two(seed: u64) {
        compare::<Bf16>(seed, 0.016);
    }

    #[test]
    fn tiles_of_bytes_are_their_twins_to_the_last_step(seed: u64) {
        compare::<u8>(seed, 1e-4);
    }

    #[test]
    fn maxima_are_the_twins_at_every_edge(seed: u64, width in 1usize..9, height in 1usize..9) {
        fn pooled<E: Computed>(cpu: Cpu, numbers: &[E], width: usize, height: usize) -> Vec<f32> {
            let row = (width + 2) * BLOCK;
            let mut output = vec![E::nearest(0.0); numbers.len()];
            for y in 0..height {
                let first = row + BLOCK;
                let (input, output) = (numbers[first..].as_ptr(), output[first + y * row..].as_mut_ptr());
                // SAFETY: the block has a border.
                unsafe { (E::kernels(cpu).pool)(&Pool { input, output, y, width, height, row }) };
            }
            output.into_iter().map(E::value).collect()
        }
        fn check<E: Computed>(random: &mut Random, width: usize, height: usize) {
            let numbers: Vec<E> = random.stored((width + 2) * (height + 2) * BLOCK);
            let wanted = pooled(Cpu::Portable, &numbers, width, height);
            for cpu in Cpu::here() {
                assert_eq!(pooled(cpu, &numbers, width, height), wanted, "{cpu}");
            }
            let at = |y: usize, x: usize| numbers[((y + 1) * (width + 2) + x + 1) * BLOCK].value();
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let lines = y.saturating_sub(2)..(y + 3).min(height);
                let near = lines.flat_map(|y| (x.saturating_sub(2)..(x + 3).min(width)).map(move |x| at(y, x)));
                assert_eq!(wanted[((y + 1) * (width + 2) + x + 1) * BLOCK], near.fold(f32::MIN, f32::max));
            }
        }
        let mut random = Random(seed);
        check::<f32>(&mut random, width, height);
        check::<Bf16>(&mut random, width, height);
        check::<u8>(&mut random, width, height);
    }

    #[test]
    fn winograds_transforms_make_a_convolution(seed: u64) {
        let mut random = Random(seed);
        let (input, kernel) = (random.floats(36), random.floats(9));
        let spread: Vec<f32> = input.iter().flat_map(|&v| [v; BLOCK]).collect();
        let weights = transformed(kernel.as_slice().try_into().unwrap());
        for transforms in Cpu::here().filter_map(|cpu| f32::kernels(cpu).transforms) {
            let mut points = vec![0f32; POINTS * BLOCK];
            // SAFETY: 6×6 pixels, 36 points.
            unsafe {
                (transforms.before)(&TransformIn {
                    input: spread.as_ptr(), row: 6 * BLOCK, points: points.as_mut_ptr(), stride: BLOCK,
                });
            }
            points.chunks_exact_mut(BLOCK).zip(weights).for_each(|(point, w)| point.iter_mut().for_each(|p| *p *= w));
            let mut output = vec![0f32; 16 * BLOCK];
            let (scale, bias) = ([vector::SWISH_IN; BLOCK], [0.0; BLOCK]);
            // SAFETY: 36 points, 4×4 pixels.
            unsafe {
                (transforms.after)(&TransformOut {
                    points: points.as_ptr(), stride: BLOCK, output: output.as_mut_ptr(), row: 4 * BLOCK,
                    scale: scale.as_ptr(), bias: bias.as_ptr(), shortcut: std::ptr::null(), shortcut_row: 0,
                });
            }
            for (y, x) in (0..4).flat_map(|y| (0..4).map(move |x| (y, x))) {
                let taps = (0..9).map(|t| input[(y + t / 3) * 6 + x + t % 3] * kernel[t]);
                let sum: f32 = taps.sum();
                let wanted = sum / (1.0 + (-sum).exp());
                let found = output[(y * 4 + x) * BLOCK + 7];
                prop_assert!((found - wanted).abs() < 1e-4, "{} not {}", found, wanted);
            }
        }
    }

    #[test]
    fn thresholds_are_their_twins_and_nothing_that_is_no_number_passes(seed: u64, width in 1usize..20) {
        let mut random = Random(seed);
        let mut logits = random.floats(2 * width * BLOCK);
        let nan = random.below(logits.len());
        logits[nan] = f32::NAN;
        let wanted: Vec<bool> = (0..width).map(|x| {
            let lanes = |block: usize| logits[(block * width + x) * BLOCK..][..BLOCK].iter();
            lanes(0).chain(lanes(1)).any(|&logit| logit > 0.9)
        }).collect();
        for cpu in Cpu::here() {
            let mut found = vec![false; width];
            // SAFETY: two blocks of a line.
            unsafe {
                (f32::kernels(cpu).threshold)(&Threshold {
                    logits: logits.as_ptr(), plane: width * BLOCK, blocks: 2, least: 0.9, found: found.as_mut_ptr(), width,
                });
            }
            prop_assert_eq!(&found, &wanted, "{}", cpu);
        }
    }
}

#[test]
fn an_activation_is_what_it_should_be_from_far_below_to_far_above() {
    // One tap of one channel with weight 1: the output is SiLU of the input.
    for cpu in Cpu::here() {
        let kernels = f32::kernels(cpu);
        let tile = (kernels.tile)(1, 1, Step::Next).unwrap();
        let mut weights = vec![0f32; BLOCK * BLOCK];
        weights[..BLOCK].fill(1.0);
        let (scale, bias) = ([vector::SWISH_IN; BLOCK], [0.0; BLOCK]);
        for x in [-1e30, -200.0, -87.0, -20.0, -1.278, -1e-6, 0.0, 1e-6, 0.5, 3.0, 88.0, 1e30, f32::NAN] {
            let mut input = [0f32; BLOCK];
            input[0] = x;
            let mut output = [0f32; BLOCK];
            let null = std::ptr::null();
            let finish = Finish {
                scale: scale.as_ptr(),
                bias: bias.as_ptr(),
                addend: null,
                addend_plane: 0,
                odd: false,
                shortcut: null,
                shortcut_plane: 0,
                shortcut_scale: 0.0,
                gain: vector::SWISH_OUT,
                offset: 0.0,
            };
            let output_at = Output::Activated(output.as_mut_ptr());
            // SAFETY: one pixel of one block.
            unsafe {
                tile(&Tile {
                    input: input.as_ptr(),
                    taps: &[0],
                    run: 1,
                    pixels: 1,
                    weights: weights.as_ptr(),
                    output: output_at,
                    plane: 0,
                    finish,
                });
            }
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            let near = (f64::from(output[3]) - exact).abs() <= 1e-6 * exact.abs().max(1.0);
            assert!(near || (x.is_nan() && output[3].is_nan()), "{cpu}: SiLU({x}) = {}, not {exact}", output[3]);
        }
    }
}
