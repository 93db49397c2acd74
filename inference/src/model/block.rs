//! The blocks that the network is built of, above a single convolution.

use candle_core::{D, Result, Tensor};

use super::{
    conv::{Channels, Conv, Kind},
    parameters::{ParameterError, Source},
};

/// Two 3×3 convolutions, with a way round them or without.
#[derive(Debug)]
struct Bottleneck {
    first: Conv,
    second: Conv,
    shortcut: bool,
}

impl Bottleneck {
    fn load(
        parameters: &dyn Source,
        path: &str,
        channels: usize,
        shortcut: bool,
    ) -> std::result::Result<Self, ParameterError> {
        let conv = |name| Conv::load(parameters, &format!("{path}.{name}"), Kind::Area, Channels(channels, channels));
        Ok(Self { first: conv("cv1")?, second: conv("cv2")?, shortcut })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.second.forward_onto(&self.first.forward(x)?, self.shortcut.then_some(x))
    }
}

/// A chain of bottlenecks over half of the channels; every link's output is kept and mixed at the end.
#[derive(Debug)]
pub(super) struct C2f {
    split: Conv,
    chain: Vec<Bottleneck>,
    mix: Conv,
}

impl C2f {
    pub(super) fn load(
        parameters: &dyn Source,
        path: &str,
        Channels(input, output): Channels,
        repeats: usize,
        shortcut: bool,
    ) -> std::result::Result<Self, ParameterError> {
        let half = output / 2;
        let point = |name, channels| Conv::load(parameters, &format!("{path}.{name}"), Kind::Point, channels);
        Ok(Self {
            split: point("cv1", Channels(input, 2 * half))?,
            chain: (0..repeats)
                .map(|i| Bottleneck::load(parameters, &format!("{path}.m.{i}"), half, shortcut))
                .collect::<std::result::Result<_, _>>()?,
            mix: point("cv2", Channels((2 + repeats) * half, output))?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let halves = self.split.forward(x)?.chunk(2, 1)?;
        let mut parts = halves;
        for link in &self.chain {
            if let Some(last) = parts.last() {
                parts.push(link.forward(last)?);
            }
        }
        self.mix.forward(&Tensor::cat(&parts, 1)?)
    }
}

/// Spatial pyramid pooling: the maxima of ever wider neighbourhoods (5, 9, 13 pixels) beside the features themselves.
#[derive(Debug)]
pub(super) struct Sppf {
    narrow: Conv,
    mix: Conv,
}

impl Sppf {
    pub(super) fn load(
        parameters: &dyn Source,
        path: &str,
        channels: usize,
    ) -> std::result::Result<Self, ParameterError> {
        let half = channels / 2;
        let point = |name, channels| Conv::load(parameters, &format!("{path}.{name}"), Kind::Point, channels);
        Ok(Self { narrow: point("cv1", Channels(channels, half))?, mix: point("cv2", Channels(4 * half, channels))? })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let once = self.narrow.forward(x)?;
        let twice = widened(&once)?;
        let thrice = widened(&twice)?;
        let last = widened(&thrice)?;
        self.mix.forward(&Tensor::cat(&[once, twice, thrice, last], 1)?)
    }
}

/// The largest of each 5×5 neighbourhood.
///
/// The border repeats the edge: its pixels are in the neighbourhood already, so they change no maximum. Zeros would,
/// since SiLU goes below zero.
fn widened(x: &Tensor) -> Result<Tensor> {
    x.pad_with_same(D::Minus1, 2, 2)?.pad_with_same(D::Minus2, 2, 2)?.max_pool2d_with_stride(5, 1)
}

/// Twice as high and wide: every pixel four times.
pub(super) fn upsampled(x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    x.upsample_nearest2d(2 * height, 2 * width)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_maximum_near_an_edge_is_one_of_the_picture_even_when_all_are_negative() {
        let x = Tensor::full(-0.2f32, (1, 1, 3, 2), &Device::Cpu).unwrap();
        let y = widened(&x).unwrap();
        assert_eq!(y.dims(), x.dims());
        assert_eq!(y.max_all().unwrap().to_scalar::<f32>().unwrap(), -0.2);
    }
}
