//! A convolution with bias and, nearly always, SiLU: the only layer with parameters.
//!
//! It is one matrix product of the kernel and the picture's patches; [`super::patches`] says why not [`Tensor::conv2d`].

use candle_core::{Result, Tensor};

use super::{
    parameters::{ParameterError, Source},
    patches::{Planes, silu, with_values},
};

/// Numbers in one band of patches (4 MiB): so it stays in the cache between being gathered and multiplied. Not less:
/// before each product candle counts the cores anew, by a look into /proc, unless RAYON_NUM_THREADS is set.
const BAND: usize = 1 << 20;

/// Kernels are square, of side 1 (stride 1) or 3 (stride 1 or 2), padded to keep the size.
#[derive(Debug)]
pub(super) struct Conv {
    /// (out, side · side · in): a row lists the taps in reading order, each with all input channels.
    kernel: Tensor,
    bias: Vec<f32>,
    kind: Kind,
    activation: Activation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// 1×1.
    Point,
    /// 3×3.
    Area,
    /// 3×3 at every second pixel of every second line.
    Halving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    Silu,
    None,
}

/// Input and output channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Channels(pub(super) usize, pub(super) usize);

impl Conv {
    /// A convolution with SiLU, named `{path}.conv`.
    pub(super) fn load(
        parameters: &dyn Source,
        path: &str,
        kind: Kind,
        channels: Channels,
    ) -> std::result::Result<Self, ParameterError> {
        Self::load_with(parameters, &format!("{path}.conv"), kind, channels, Activation::Silu)
    }

    pub(super) fn load_with(
        parameters: &dyn Source,
        path: &str,
        kind: Kind,
        Channels(input, output): Channels,
        activation: Activation,
    ) -> std::result::Result<Self, ParameterError> {
        let side = kind.side();
        let name = format!("{path}.weight");
        let weight = parameters.get(&name, &[output, input, side, side])?;
        let bias = parameters.get(&format!("{path}.bias"), &[output])?;
        let pack = || -> Result<Self> {
            let kernel = weight.permute((0, 2, 3, 1))?.contiguous()?.reshape((output, side * side * input))?;
            Ok(Self { kernel, bias: bias.to_vec1()?, kind, activation })
        };
        pack().map_err(|e| ParameterError::Tensor { name, source: e.into() })
    }

    /// (1, in, height, width) → (1, out, height, width), or half of each side.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_onto(x, None)
    }

    /// The same, added to `shortcut`.
    pub(super) fn forward_onto(&self, x: &Tensor, shortcut: Option<&Tensor>) -> Result<Tensor> {
        let (_, channels, height, width) = x.dims4()?;
        let (side, step) = (self.kind.side(), self.kind.step());
        let (out_height, out_width) = (height / step, width / step);
        let area = out_height * out_width;
        let mut out = vec![0f32; self.bias.len() * area];
        let taps = side * side * channels;
        let band = (BAND / (taps * out_width)).max(1);
        with_values(x, |values| {
            let planes = Planes { values, channels, height, width, side, step };
            for from in (0..out_height).step_by(band) {
                let lines = from..out_height.min(from + band);
                let count = lines.len() * out_width;
                let columns = Tensor::from_vec(planes.patches(lines), (taps, count), x.device())?;
                self.finish(&self.kernel.matmul(&columns)?, count, &mut out, from * out_width, area)?;
            }
            Ok(())
        })?;
        if let Some(shortcut) = shortcut {
            with_values(shortcut, |values| {
                out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
                Ok(())
            })?;
        }
        Tensor::from_vec(out, (1, self.bias.len(), out_height, out_width), x.device())
    }

    /// Puts a band's product (out, count), with bias and activation, at its place in each plane of `out`.
    fn finish(&self, product: &Tensor, count: usize, out: &mut [f32], from: usize, area: usize) -> Result<()> {
        with_values(product, |values| {
            for ((row, plane), bias) in values.chunks_exact(count).zip(out.chunks_exact_mut(area)).zip(&self.bias) {
                let places = plane.iter_mut().skip(from).zip(row);
                match self.activation {
                    Activation::Silu => places.for_each(|(out, v)| *out = silu(v + bias)),
                    Activation::None => places.for_each(|(out, v)| *out = v + bias),
                }
            }
            Ok(())
        })
    }
}

impl Kind {
    const fn side(self) -> usize {
        match self {
            Self::Point => 1,
            Self::Area | Self::Halving => 3,
        }
    }

    const fn step(self) -> usize {
        match self {
            Self::Point | Self::Area => 1,
            Self::Halving => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::{super::Parameters, *};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_matrix_product_equals_candles_own_convolution(
            kind in prop::sample::select(vec![Kind::Point, Kind::Area, Kind::Halving]),
            input in 1usize..6, output in 1usize..6, height in 1usize..8, width in 1usize..8, shortcut: bool,
        ) {
            let (height, width) = (height * 2, width * 2);
            let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
            let side = kind.side();
            let (weight, bias) = (random(&[output, input, side, side]), random(&[output]));
            let x = random(&[1, input, height, width]);
            let parameters = [("a.weight".to_owned(), weight.clone()), ("a.bias".to_owned(), bias.clone())];
            let parameters: Parameters = parameters.into_iter().collect();
            let conv = Conv::load_with(&parameters, "a", kind, Channels(input, output), Activation::Silu);
            let step = if kind == Kind::Halving { 2 } else { 1 };
            let shortcut = shortcut.then(|| random(&[1, output, height / step, width / step]));
            let found = conv.unwrap().forward_onto(&x, shortcut.as_ref()).unwrap();
            let bias = bias.reshape((1, output, 1, 1)).unwrap();
            let wanted = x.conv2d(&weight, side / 2, step, 1, 1).unwrap().broadcast_add(&bias).unwrap().silu().unwrap();
            let wanted = shortcut.map_or(wanted.clone(), |s| (wanted + s).unwrap());
            prop_assert_eq!(found.dims(), wanted.dims());
            let worst = (found - wanted).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            prop_assert!(worst < 1e-4, "{} off", worst);
        }
    }
}
