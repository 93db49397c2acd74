//! A convolution with bias and, nearly always, SiLU: the only layer with parameters.
//!
//! It is written as one matrix product instead of [`Tensor::conv2d`], whose gathering of patches, one number at a
//! time, takes most of its time. Here a plane keeps its zero border and is seen as one long row: the picture shifted by a
//! kernel's tap is then a slice of it, so that gathering is one copy a channel and tap. The price is a product that is wider
//! by the border's columns, which are cut off after it.

use candle_core::{Result, Tensor};

use super::parameters::{ParameterError, Source};

/// Kernels are square, of side 1 (stride 1) or 3 (stride 1 or 2), padded to keep the size.
#[derive(Debug)]
pub(super) struct Conv {
    /// (out, side · side · in): a row lists the taps in reading order, each with all input channels.
    kernel: Tensor,
    /// (1, out, 1, 1)
    bias: Tensor,
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
            Ok(Self { kernel, bias: bias.reshape((1, output, 1, 1))?, kind, activation })
        };
        pack().map_err(|e| ParameterError::Tensor { name, source: e.into() })
    }

    /// (1, in, height, width) → (1, out, height, width), or half of each side.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = x.dims4()?;
        let product = match self.kind {
            Kind::Point => {
                let product = self.kernel.matmul(&x.reshape((channels, height * width))?)?;
                product.reshape((1, (), height, width))?
            }
            Kind::Area => self.gathered(&bordered(x)?, 1, height, width)?,
            Kind::Halving => self.gathered(&phases(&bordered(x)?)?, 2, height / 2, width / 2)?,
        };
        let sum = product.broadcast_add(&self.bias)?;
        match self.activation {
            Activation::Silu => sum.silu(),
            Activation::None => Ok(sum),
        }
    }

    /// The product over a bordered picture, given as (phases, channels, lines, columns): `step` · `step` phases.
    ///
    /// Tap (ky, kx) of output (y, x) is at line y + ky / step, column x + kx / step of phase (ky % step, kx % step).
    fn gathered(&self, bordered: &Tensor, step: usize, height: usize, width: usize) -> Result<Tensor> {
        let (phases, channels, lines, columns) = bordered.dims4()?;
        let rows = bordered.reshape((phases, channels, lines * columns))?;
        let taps = (0..3)
            .flat_map(|ky| (0..3).map(move |kx| (ky, kx)))
            .map(|(ky, kx)| {
                let shift = ky / step * columns + kx / step;
                rows.get(ky % step * step + kx % step)?.narrow(1, shift, height * columns)
            })
            .collect::<Result<Vec<_>>>()?;
        let product = self.kernel.matmul(&Tensor::cat(&taps, 0)?)?;
        product.reshape((1, (), height, columns))?.narrow(3, 0, width)?.contiguous()
    }
}

impl Kind {
    const fn side(self) -> usize {
        match self {
            Self::Point => 1,
            Self::Area | Self::Halving => 3,
        }
    }
}

/// A border of one zero all round, and two more lines below: one that the last tap's slice runs into, and one because
/// the lines are halved.
fn bordered(x: &Tensor) -> Result<Tensor> {
    x.pad_with_zeros(3, 1, 1)?.pad_with_zeros(2, 1, 3)
}

/// (1, channels, lines, columns) → (4, channels, lines / 2, columns / 2): even and odd lines' even and odd columns.
fn phases(x: &Tensor) -> Result<Tensor> {
    let (_, channels, lines, columns) = x.dims4()?;
    let (lines, columns) = (lines / 2, columns / 2);
    x.reshape((channels, lines, 2, columns, 2))?
        .permute((2, 4, 0, 1, 3))?
        .contiguous()?
        .reshape((4, channels, lines, columns))
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
            input in 1usize..6, output in 1usize..6, height in 1usize..8, width in 1usize..8,
        ) {
            let (height, width) = (height * 2, width * 2);
            let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
            let side = kind.side();
            let (weight, bias) = (random(&[output, input, side, side]), random(&[output]));
            let x = random(&[1, input, height, width]);
            let parameters = [("a.weight".to_owned(), weight.clone()), ("a.bias".to_owned(), bias.clone())];
            let parameters: Parameters = parameters.into_iter().collect();
            let conv = Conv::load_with(&parameters, "a", kind, Channels(input, output), Activation::Silu);
            let found = conv.unwrap().forward(&x).unwrap();
            let step = if kind == Kind::Halving { 2 } else { 1 };
            let bias = bias.reshape((1, output, 1, 1)).unwrap();
            let wanted = x.conv2d(&weight, side / 2, step, 1, 1).unwrap().broadcast_add(&bias).unwrap().silu().unwrap();
            prop_assert_eq!(found.dims(), wanted.dims());
            let worst = (found - wanted).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            prop_assert!(worst < 1e-4, "{} off", worst);
        }
    }
}
