//! Layers 10 to 21: coarse features are mixed into fine ones on the way up, and fine into coarse on the way down.

use candle_core::{Result, Tensor};

use super::{
    Plan, Pyramid,
    block::{C2f, upsampled},
    conv::{Channels, Conv, Kind},
    parameters::{ParameterError, Source},
};

#[derive(Debug)]
pub(super) struct Neck {
    up4: C2f,
    up3: C2f,
    down4: Conv,
    mix4: C2f,
    down5: Conv,
    mix5: C2f,
}

impl Neck {
    pub(super) fn load(plan: &Plan, parameters: &dyn Source) -> std::result::Result<Self, ParameterError> {
        let [_, _, c3, c4, c5] = plan.channels;
        let block = |layer, input, output| {
            C2f::load(parameters, &format!("model.{layer}"), Channels(input, output), plan.short, false)
        };
        let down =
            |layer, width| Conv::load(parameters, &format!("model.{layer}"), Kind::Halving, Channels(width, width));
        Ok(Self {
            up4: block(12, c5 + c4, c4)?,
            up3: block(15, c4 + c3, c3)?,
            down4: down(16, c3)?,
            mix4: block(18, c3 + c4, c4)?,
            down5: down(19, c4)?,
            mix5: block(21, c4 + c5, c5)?,
        })
    }

    pub(super) fn forward(&self, features: &Pyramid) -> Result<Pyramid> {
        let Pyramid { p3, p4, p5 } = features;
        let up4 = self.up4.forward(&beside(&upsampled(p5)?, p4)?)?;
        let p3 = self.up3.forward(&beside(&upsampled(&up4)?, p3)?)?;
        let p4 = self.mix4.forward(&beside(&self.down4.forward(&p3)?, &up4)?)?;
        let p5 = self.mix5.forward(&beside(&self.down5.forward(&p4)?, p5)?)?;
        Ok(Pyramid { p3, p4, p5 })
    }
}

/// The channels of both.
fn beside(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Tensor::cat(&[a, b], 1)
}
