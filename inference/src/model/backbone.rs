//! Layers 0 to 9: from pixels to features at strides 8, 16 and 32.

use candle_core::{Result, Tensor};

use super::{
    Plan, Pyramid,
    block::{C2f, Sppf},
    conv::{Channels, Conv, Kind},
    parameters::{ParameterError, Source},
};

#[derive(Debug)]
pub(super) struct Backbone {
    stem: Conv,
    stages: [Stage; 4],
    pool: Sppf,
}

/// Half the size, then a C2f block.
#[derive(Debug)]
struct Stage {
    down: Conv,
    block: C2f,
}

impl Stage {
    fn load(
        parameters: &dyn Source,
        layer: usize,
        channels: Channels,
        repeats: usize,
    ) -> std::result::Result<Self, ParameterError> {
        let Channels(_, output) = channels;
        Ok(Self {
            down: Conv::load(parameters, &format!("model.{layer}"), Kind::Halving, channels)?,
            block: C2f::load(parameters, &format!("model.{}", layer + 1), Channels(output, output), repeats, true)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.block.forward(&self.down.forward(x)?)
    }
}

impl Backbone {
    pub(super) fn load(plan: &Plan, parameters: &dyn Source) -> std::result::Result<Self, ParameterError> {
        let [c1, c2, c3, c4, c5] = plan.channels;
        let stage = |layer, input, output, repeats| Stage::load(parameters, layer, Channels(input, output), repeats);
        Ok(Self {
            stem: Conv::load(parameters, "model.0", Kind::Halving, Channels(3, c1))?,
            stages: [
                stage(1, c1, c2, plan.short)?,
                stage(3, c2, c3, plan.long)?,
                stage(5, c3, c4, plan.long)?,
                stage(7, c4, c5, plan.short)?,
            ],
            pool: Sppf::load(parameters, "model.9", c5)?,
        })
    }

    pub(super) fn forward(&self, picture: &Tensor) -> Result<Pyramid> {
        let [quarter, eighth, sixteenth, last] = &self.stages;
        let p3 = eighth.forward(&quarter.forward(&self.stem.forward(picture)?)?)?;
        let p4 = sixteenth.forward(&p3)?;
        let p5 = self.pool.forward(&last.forward(&p4)?)?;
        Ok(Pyramid { p3, p4, p5 })
    }
}
