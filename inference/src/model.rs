//! YOLOv8 on candle's tensors: one description of the network for every scale.
//!
//! A batch of one RGB picture goes in, candidate boxes and their classes' scores come out. Nothing here knows files,
//! colour spaces, thresholds or the network between machines. Layers are numbered as Ultralytics numbers them
//! (<https://docs.ultralytics.com/models/yolov8>), because published weights are named by these numbers.

mod backbone;
mod block;
mod conv;
mod head;
mod neck;
mod parameters;
mod patches;
mod shape;

use candle_core::{Result, Tensor};

use self::{backbone::Backbone, head::Head, neck::Neck};
pub use self::{
    parameters::{ParameterError, Parameters, Source},
    shape::Plan,
};

/// What the network says of a picture, before any threshold: one candidate an anchor.
#[derive(Debug)]
pub struct Candidates {
    /// (anchors, 4): x1, y1, x2, y2 in pixels of the input.
    pub boxes: Tensor,
    /// (classes, anchors): from 0 to 1.
    pub scores: Tensor,
}

/// A loaded network: its parameters are read-only, so that many threads share one.
#[derive(Debug)]
pub struct Network {
    backbone: Backbone,
    neck: Neck,
    head: Head,
}

impl Network {
    /// Takes what `plan` needs out of `parameters`; fails at the first tensor that is missing or of another shape.
    pub fn load(plan: &Plan, parameters: &dyn Source) -> std::result::Result<Self, ParameterError> {
        Ok(Self {
            backbone: Backbone::load(plan, parameters)?,
            neck: Neck::load(plan, parameters)?,
            head: Head::load(plan, parameters)?,
        })
    }

    /// `picture`: (1, 3, height, width), f32 in 0..=1, RGB, both sides multiples of 32.
    pub fn forward(&self, picture: &Tensor) -> Result<Candidates> {
        let features = self.backbone.forward(picture)?;
        self.head.forward(&self.neck.forward(&features)?)
    }
}

/// Features of a picture at strides 8, 16 and 32: each (1, channels, height / stride, width / stride).
#[derive(Debug)]
struct Pyramid {
    p3: Tensor,
    p4: Tensor,
    p5: Tensor,
}
