//! Layer 22: at every pixel of each level, an anchor's box and its classes' scores.
//!
//! A box is told as the distances from the anchor to its four sides, each as a distribution over bins of one stride.

use candle_core::{Device, Result, Tensor};
use candle_nn::ops::{sigmoid, softmax_last_dim};

use super::{
    Candidates, Plan, Pyramid,
    conv::{Activation, Channels, Conv, Kind},
    parameters::{ParameterError, Source},
    shape::BINS,
};

#[derive(Debug)]
pub(super) struct Head {
    levels: [Level; 3],
    /// (BINS, 1): what each bin stands for, in strides.
    bins: Tensor,
}

/// The branches of one level of the pyramid.
#[derive(Debug)]
struct Level {
    stride: usize,
    sides: Branch,
    classes: Branch,
}

/// Two 3×3 convolutions and a plain 1×1 one.
#[derive(Debug)]
struct Branch {
    first: Conv,
    second: Conv,
    out: Conv,
}

impl Branch {
    fn load(
        parameters: &dyn Source,
        path: &str,
        Channels(input, output): Channels,
        hidden: usize,
    ) -> std::result::Result<Self, ParameterError> {
        let (area, point) = (Kind::Area, Kind::Point);
        let last = Channels(hidden, output);
        Ok(Self {
            first: Conv::load(parameters, &format!("{path}.0"), area, Channels(input, hidden))?,
            second: Conv::load(parameters, &format!("{path}.1"), area, Channels(hidden, hidden))?,
            out: Conv::load_with(parameters, &format!("{path}.2"), point, last, Activation::None)?,
        })
    }

    /// (1, in, height, width) → (out, height · width)
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.out.forward(&self.second.forward(&self.first.forward(x)?)?)?.flatten_from(2)?.squeeze(0)
    }
}

impl Level {
    /// Boxes (height · width, 4) in pixels of the input, and scores (classes, height · width).
    fn forward(&self, x: &Tensor, bins: &Tensor) -> Result<(Tensor, Tensor)> {
        let (_, _, height, width) = x.dims4()?;
        let count = height * width;
        let sides = self.sides.forward(x)?.reshape((4, BINS, count))?.permute((2, 0, 1))?.contiguous()?;
        let weights = softmax_last_dim(&sides)?.reshape((count * 4, BINS))?;
        let distances = weights.matmul(bins)?.reshape((count, 4))?;
        let centres = centres(height, width, x.device())?;
        let near = (&centres - distances.narrow(1, 0, 2)?)?;
        let far = (&centres + distances.narrow(1, 2, 2)?)?;
        let boxes = (Tensor::cat(&[near, far], 1)? * self.stride as f64)?;
        Ok((boxes, sigmoid(&self.classes.forward(x)?)?))
    }
}

/// (height · width, 2): x and y of each pixel's centre, line by line.
fn centres(height: usize, width: usize, device: &Device) -> Result<Tensor> {
    let centres: Vec<f32> =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as f32 + 0.5, y as f32 + 0.5])).collect();
    Tensor::from_vec(centres, (height * width, 2), device)
}

impl Head {
    pub(super) fn load(plan: &Plan, parameters: &dyn Source) -> std::result::Result<Self, ParameterError> {
        let [_, _, c3, c4, c5] = plan.channels;
        let (sides, classes) = plan.head_channels();
        let level = |i: usize, stride, input| -> std::result::Result<Level, ParameterError> {
            let branch = |name, output, hidden| {
                Branch::load(parameters, &format!("model.22.{name}.{i}"), Channels(input, output), hidden)
            };
            Ok(Level { stride, sides: branch("cv2", 4 * BINS, sides)?, classes: branch("cv3", plan.classes, classes)? })
        };
        let name = "model.22.dfl.conv.weight";
        let bins = parameters.get(name, &[1, BINS, 1, 1])?;
        Ok(Self {
            levels: [level(0, 8, c3)?, level(1, 16, c4)?, level(2, 32, c5)?],
            bins: bins
                .reshape((BINS, 1))
                .map_err(|e| ParameterError::Tensor { name: name.to_owned(), source: e.into() })?,
        })
    }

    pub(super) fn forward(&self, Pyramid { p3, p4, p5 }: &Pyramid) -> Result<Candidates> {
        let (mut boxes, mut scores) = (Vec::with_capacity(3), Vec::with_capacity(3));
        for (level, features) in self.levels.iter().zip([p3, p4, p5]) {
            let (b, s) = level.forward(features, &self.bins)?;
            boxes.push(b);
            scores.push(s);
        }
        Ok(Candidates { boxes: Tensor::cat(&boxes, 0)?, scores: Tensor::cat(&scores, 1)? })
    }
}
