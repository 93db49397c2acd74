//! The network on a GPU, by candle: batches of pictures of one size, in one pass.
//!
//! It is the reference's code on another device, so it can be run, slowly, on a CPU as well: that is how it is tested.
//! Thresholds are applied here, as only what passes them is worth copying back; which candidates are objects is not
//! decided here.

use candle_core::{DType, Device, Tensor};
use kadr_shared::{geometry::InputSize, message::frame::Colour};

use crate::{
    fast::Precision,
    model::{ParameterError, Plan, Reference, Source},
    nms::Candidate,
    preprocess::{self, PictureError},
};

/// A network that is loaded onto a device.
#[derive(Debug)]
pub(crate) struct Gpu {
    network: Reference,
    device: Device,
}

/// A device that can't be used, or a batch that it can't compute.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    #[error(
        "there is no CUDA device {number} for this kadr (it must be built with `--features cuda`, and run where there is one)"
    )]
    Device { number: usize, source: Box<candle_core::Error> },
    #[error("{0} is computed on CPUs only: choose f32")]
    Precision(Precision),
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error(transparent)]
    Picture(#[from] PictureError),
    #[error("a batch of {pictures} pictures of {input} can't be computed")]
    Compute { pictures: usize, input: InputSize, source: Box<candle_core::Error> },
}

/// A picture of a batch, and what is wanted of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'a> {
    /// I420 of the batch's size.
    pub(crate) planes: &'a [u8],
    pub(crate) colour: Colour,
    /// What is not surer is left out.
    pub(crate) confidence: f32,
}

impl Gpu {
    /// The CUDA device of a number.
    pub(crate) fn cuda(
        plan: &Plan,
        source: &dyn Source,
        precision: Precision,
        number: usize,
    ) -> Result<Self, GpuError> {
        let device =
            Device::new_cuda(number).map_err(|source| GpuError::Device { number, source: Box::new(source) })?;
        Self::load(plan, source, precision, device)
    }

    fn load(plan: &Plan, source: &dyn Source, precision: Precision, device: Device) -> Result<Self, GpuError> {
        if precision != Precision::F32 {
            return Err(GpuError::Precision(precision));
        }
        Ok(Self { network: Reference::load(plan, source, &device)?, device })
    }

    /// The candidates of each picture, in the input's pixels.
    pub(crate) fn analyse(&self, input: InputSize, items: &[Item<'_>]) -> Result<Vec<Vec<Candidate>>, GpuError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = interleaved(input, items)?;
        let failed = |source| GpuError::Compute { pictures: items.len(), input, source: Box::new(source) };
        self.compute(input, items, bytes).map_err(failed)
    }

    fn compute(
        &self,
        input: InputSize,
        items: &[Item<'_>],
        bytes: Vec<u8>,
    ) -> candle_core::Result<Vec<Vec<Candidate>>> {
        let shape = (items.len(), input.height() as usize, input.width() as usize, 3);
        // As bytes over the bus, a quarter of what numbers take; they become numbers there.
        let pictures = Tensor::from_vec(bytes, shape, &self.device)?.permute((0, 3, 1, 2))?.contiguous()?;
        let pictures = (pictures.to_dtype(DType::F32)? / 255.0)?;
        let found = self.network.forward(&pictures)?;
        let boxes = found.boxes.to_vec3::<f32>()?;
        let scores = found.scores.max(1)?.to_vec2::<f32>()?;
        let classes = found.scores.argmax(1)?.to_vec2::<u32>()?;
        let pictures = items.iter().zip(&boxes).zip(scores.iter().zip(&classes));
        Ok(pictures.map(|((item, boxes), (scores, classes))| passed(item.confidence, boxes, scores, classes)).collect())
    }
}

/// Red, green, blue of every pixel of every picture.
fn interleaved(input: InputSize, items: &[Item<'_>]) -> Result<Vec<u8>, PictureError> {
    let pixels = input.width() as usize * input.height() as usize;
    let mut bytes = Vec::with_capacity(items.len() * pixels * 3);
    for item in items {
        preprocess::rgba(item.planes, input, item.colour, |_, colours| {
            bytes.extend(colours.as_chunks::<4>().0.iter().flat_map(|&[red, green, blue, _]| [red, green, blue]));
        })?;
    }
    Ok(bytes)
}

/// What is surer than `confidence`; a score that is no number is not.
fn passed(confidence: f32, boxes: &[Vec<f32>], scores: &[f32], classes: &[u32]) -> Vec<Candidate> {
    let anchors = boxes.iter().zip(scores.iter().zip(classes));
    anchors
        .filter(|(_, (score, _))| **score > confidence)
        .filter_map(|(bbox, (&score, &class))| {
            let bbox = bbox.as_slice().try_into().ok()?;
            Some(Candidate { class: class as usize, score, bbox })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use kadr_shared::message::frame::{Matrix, Range, i420_len};

    use super::*;
    use crate::{model::Parameters, testkit};

    fn network() -> Gpu {
        let parameters: Parameters = testkit::tiny_tensors(5).into_iter().collect();
        let plan = Plan::new(testkit::SCALE, testkit::LABELS.len());
        Gpu::load(&plan, &parameters, Precision::F32, Device::Cpu).unwrap()
    }

    fn planes(input: InputSize, seed: usize) -> Vec<u8> {
        (0..i420_len(input)).map(|at| ((at * (7 + seed) / 3) ^ (at >> 5)) as u8).collect()
    }

    #[test]
    fn a_batch_gives_each_picture_what_it_gets_alone() {
        let (gpu, input) = (network(), "96x64".parse().unwrap());
        let bodies: Vec<_> = (0..3).map(|seed| planes(input, seed)).collect();
        let full = Colour { matrix: Matrix::Bt709, range: Range::Full };
        let items: Vec<_> = bodies
            .iter()
            .zip([Colour::default(), full, full])
            .zip([0.05, 0.1, 0.02])
            .map(|((planes, colour), confidence)| Item { planes, colour, confidence })
            .collect();
        let together = gpu.analyse(input, &items).unwrap();
        assert_eq!(together.len(), 3);
        for (item, together) in items.iter().zip(&together) {
            let [alone] = gpu.analyse(input, &[*item]).unwrap().try_into().unwrap();
            assert!(!alone.is_empty() && alone.len() == together.len());
            for (a, b) in alone.iter().zip(together) {
                assert!(a.class == b.class && (a.score - b.score).abs() < 1e-5, "{a:?} {b:?}");
                assert!(a.bbox.iter().zip(b.bbox).all(|(a, b)| (a - b).abs() < 1e-3), "{a:?} {b:?}");
            }
        }
        assert_eq!(gpu.analyse(input, &[]).unwrap(), Vec::<Vec<Candidate>>::new());
    }

    #[test]
    fn what_only_a_cpu_computes_is_refused() {
        let parameters: Parameters = testkit::tiny_tensors(5).into_iter().collect();
        let plan = Plan::new(testkit::SCALE, testkit::LABELS.len());
        let refused = Gpu::load(&plan, &parameters, Precision::Int8, Device::Cpu);
        assert!(matches!(refused, Err(GpuError::Precision(Precision::Int8))));
    }

    #[test]
    fn a_device_that_is_not_there_is_told_with_what_is_needed() {
        let parameters: Parameters = testkit::tiny_tensors(5).into_iter().collect();
        let plan = Plan::new(testkit::SCALE, testkit::LABELS.len());
        let error = Gpu::cuda(&plan, &parameters, Precision::F32, 63).unwrap_err();
        assert!(error.to_string().contains("CUDA device 63") && error.to_string().contains("--features cuda"));
    }

    #[test]
    fn what_is_no_number_does_not_pass() {
        let boxes = [vec![0.0; 4], vec![1.0; 4], vec![2.0; 4]];
        let found = passed(0.2, &boxes, &[f32::NAN, 0.3, 0.1], &[0, 1, 2]);
        assert_eq!(found, [Candidate { class: 1, score: 0.3, bbox: [1.0; 4] }]);
    }
}
