//! The network by candle's own operators, a step at a time: slow on a CPU and easy to read. What the fast executor is
//! tested against, and what runs on a GPU.

use std::collections::HashMap;

use candle_core::{D, Device, Error, Result, Tensor};
use candle_nn::ops::{sigmoid, softmax_last_dim};

use super::{
    graph::{Activation, Conv, Graph, Kind, Level, Step, View},
    parameters::{ParameterError, Source},
    shape::{BINS, Plan},
};

/// A loaded network: its parameters are read-only, so that many threads share one.
#[derive(Debug)]
pub struct Reference {
    graph: Graph,
    /// (weight, bias) by path.
    parameters: HashMap<String, (Tensor, Tensor)>,
    /// (BINS, 1): what each bin stands for, in strides.
    bins: Tensor,
}

/// What the network says of pictures, before any threshold: one candidate an anchor.
#[derive(Debug)]
pub struct Candidates {
    /// (batch, anchors, 4): x1, y1, x2, y2 in pixels of the input.
    pub boxes: Tensor,
    /// (batch, classes, anchors): from 0 to 1.
    pub scores: Tensor,
}

impl Reference {
    /// Takes what `plan` needs out of `parameters`; fails at the first tensor that is missing or of another shape.
    pub fn load(plan: &Plan, parameters: &dyn Source, device: &Device) -> std::result::Result<Self, ParameterError> {
        let graph = Graph::new(plan);
        let get = |name: &str, shape: &[usize]| {
            let there = |source: Error| ParameterError::Tensor { name: name.to_owned(), source: source.into() };
            parameters.get(name, shape)?.to_device(device).map_err(there)
        };
        let mut loaded = HashMap::new();
        for step in &graph.steps {
            if let Step::Conv(Conv { path, kind, from, to, .. }) = step {
                let (input, output, side) = (graph.channels(*from), graph.channels(*to), kind.side());
                let weight = get(&format!("{path}.weight"), &[output, input, side, side])?;
                let bias = get(&format!("{path}.bias"), &[output])?;
                loaded.insert(path.clone(), (weight, bias));
            }
        }
        let name = "model.22.dfl.conv.weight";
        let bins = get(name, &[1, BINS, 1, 1])?
            .reshape((BINS, 1))
            .map_err(|source| ParameterError::Tensor { name: name.to_owned(), source: source.into() })?;
        Ok(Self { graph, parameters: loaded, bins })
    }

    /// `pictures`: (batch, 3, height, width), f32 in 0..=1, RGB, both sides multiples of 32.
    pub fn forward(&self, pictures: &Tensor) -> Result<Candidates> {
        let mut maps = Maps::new(&self.graph);
        maps.write(Graph::PICTURE, pictures)?;
        for step in &self.graph.steps {
            match step {
                Step::Conv(conv) => self.convolve(conv, &mut maps)?,
                Step::Pool { from, to } => maps.write(*to, &pooled(&maps.read(*from)?)?)?,
                Step::Double { from, to } => maps.write(*to, &doubled(&maps.read(*from)?)?)?,
            }
        }
        let levels: Result<Vec<_>> = self.graph.levels.iter().map(|level| self.decode(level, &maps)).collect();
        let (boxes, scores): (Vec<_>, Vec<_>) = levels?.into_iter().unzip();
        Ok(Candidates { boxes: Tensor::cat(&boxes, 1)?, scores: Tensor::cat(&scores, 2)? })
    }

    fn convolve(&self, conv: &Conv, maps: &mut Maps<'_>) -> Result<()> {
        let Some((weight, bias)) = self.parameters.get(&conv.path) else {
            return Err(Error::msg(format!("{} was not loaded", conv.path)));
        };
        let padding = usize::from(conv.kind != Kind::Point);
        let sums = maps.read(conv.from)?.conv2d(weight, padding, conv.kind.stride(), 1, 1)?;
        let sums = sums.broadcast_add(&bias.reshape((1, (), 1, 1))?)?;
        let out = match conv.activation {
            Activation::Silu => sums.silu()?,
            Activation::None => sums,
        };
        let out = match conv.shortcut {
            Some(view) => (out + maps.read(view)?)?,
            None => out,
        };
        maps.write(conv.to, &out)
    }

    /// Boxes (batch, height · width, 4) in pixels of the input, and scores (batch, classes, height · width).
    ///
    /// A box is told as the distances from the anchor to its four sides, each as a distribution over bins of one stride.
    fn decode(&self, level: &Level, maps: &Maps<'_>) -> Result<(Tensor, Tensor)> {
        let sides = maps.read(level.sides)?;
        let (batch, _, height, width) = sides.dims4()?;
        let count = height * width;
        let sides = sides.reshape((batch, 4, BINS, count))?.permute((0, 3, 1, 2))?.contiguous()?;
        let weights = softmax_last_dim(&sides)?.reshape((batch * count * 4, BINS))?;
        let distances = weights.matmul(&self.bins)?.reshape((batch, count, 4))?;
        let centres = centres(height, width, sides.device())?;
        let near = centres.broadcast_sub(&distances.narrow(2, 0, 2)?)?;
        let far = centres.broadcast_add(&distances.narrow(2, 2, 2)?)?;
        let boxes = (Tensor::cat(&[near, far], 2)? * level.stride as f64)?;
        Ok((boxes, sigmoid(&maps.read(level.classes)?.flatten_from(2)?)?))
    }
}

/// (1, height · width, 2): x and y of each pixel's centre, line by line.
fn centres(height: usize, width: usize, device: &Device) -> Result<Tensor> {
    let centres: Vec<f32> =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as f32 + 0.5, y as f32 + 0.5])).collect();
    Tensor::from_vec(centres, (1, height * width, 2), device)
}

/// The border repeats the edge: its pixels are in the neighbourhood already, so they change no maximum. Zeros would,
/// since SiLU goes below zero.
fn pooled(x: &Tensor) -> Result<Tensor> {
    x.pad_with_same(D::Minus1, 2, 2)?.pad_with_same(D::Minus2, 2, 2)?.max_pool2d_with_stride(5, 1)
}

fn doubled(x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    x.upsample_nearest2d(2 * height, 2 * width)
}

/// The parts that have been written so far.
struct Maps<'a> {
    graph: &'a Graph,
    parts: Vec<Vec<Option<Tensor>>>,
}

impl<'a> Maps<'a> {
    fn new(graph: &'a Graph) -> Self {
        Self { graph, parts: graph.maps.iter().map(|map| vec![None; map.parts.len()]).collect() }
    }

    /// The parts of a view, one after another.
    fn read(&self, view: View) -> Result<Tensor> {
        let parts = self.parts.get(view.map).and_then(|parts| parts.get(view.from..view.to)).unwrap_or_default();
        match parts.iter().flatten().collect::<Vec<_>>().as_slice() {
            [one] if parts.len() == 1 => Ok((*one).clone()),
            all if all.len() == parts.len() => Tensor::cat(all, 1),
            _ => Err(Error::msg(format!("{view:?} is read before it is written"))),
        }
    }

    fn write(&mut self, view: View, tensor: &Tensor) -> Result<()> {
        let mut from = 0;
        for (part, &channels) in (view.from..view.to).zip(self.graph.parts(view)) {
            let slot = self.parts.get_mut(view.map).and_then(|parts| parts.get_mut(part));
            if let Some(slot) = slot {
                *slot = Some(tensor.narrow(1, from, channels)?.contiguous()?);
            }
            from += channels;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_near_an_edge_is_one_of_the_picture_even_when_all_are_negative() {
        let x = Tensor::full(-0.2f32, (1, 1, 3, 2), &Device::Cpu).unwrap();
        let y = pooled(&x).unwrap();
        assert_eq!(y.dims(), x.dims());
        assert_eq!(y.max_all().unwrap().to_scalar::<f32>().unwrap(), -0.2);
    }
}
