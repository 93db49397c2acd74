//! How many channels and repeats the network of a scale has: the one place where scales differ.

use kadr_shared::catalog::{NamedScale, Scale};

/// The numbers from which every layer's shape follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Channels of the five stages, at strides 2, 4, 8, 16 and 32.
    pub(crate) channels: [usize; 5],
    /// Bottlenecks of a short and of a long C2f block.
    pub(crate) short: usize,
    pub(crate) long: usize,
    pub(crate) classes: usize,
}

/// Bins of the distribution by which one side of a box is told.
pub(crate) const BINS: usize = 16;

/// Published networks round channels to this, so that they vectorise.
const CHANNEL_STEP: f64 = 8.0;

impl Plan {
    pub fn new(scale: Scale, classes: usize) -> Self {
        let (depth, width, ratio) = match scale {
            Scale::Named(NamedScale::N) => (0.33, 0.25, 2.0),
            Scale::Named(NamedScale::S) => (0.33, 0.50, 2.0),
            Scale::Named(NamedScale::M) => (0.67, 0.75, 1.5),
            Scale::Named(NamedScale::L) => (1.0, 1.0, 1.0),
            Scale::Named(NamedScale::X) => (1.0, 1.25, 1.0),
            Scale::Custom { depth, width, ratio } => (depth, width, ratio),
        };
        let channels = |base: f64| ((base * width / CHANNEL_STEP).ceil().max(1.0) * CHANNEL_STEP) as usize;
        let repeats = |base: f64| (base * depth).round().max(1.0) as usize;
        Self {
            channels: [64.0, 128.0, 256.0, 512.0, 512.0 * ratio].map(channels),
            short: repeats(3.0),
            long: repeats(6.0),
            classes,
        }
    }

    /// Channels of the box branch and of the class branch in the head.
    pub(super) fn head_channels(&self) -> (usize, usize) {
        let [_, _, first, ..] = self.channels;
        ((first / 4).max(4 * BINS), first.max(self.classes.min(100)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_published_scales_have_their_published_widths_and_depths() {
        for (scale, channels, short, long) in [
            (NamedScale::N, [16, 32, 64, 128, 256], 1, 2),
            (NamedScale::S, [32, 64, 128, 256, 512], 1, 2),
            (NamedScale::M, [48, 96, 192, 384, 576], 2, 4),
            (NamedScale::L, [64, 128, 256, 512, 512], 3, 6),
            (NamedScale::X, [80, 160, 320, 640, 640], 3, 6),
        ] {
            let plan = Plan::new(Scale::Named(scale), 80);
            assert_eq!(plan, Plan { channels, short, long, classes: 80 }, "{scale:?}");
        }
        assert_eq!(Plan::new(Scale::Named(NamedScale::N), 80).head_channels(), (64, 80));
        assert_eq!(Plan::new(Scale::Named(NamedScale::X), 80).head_channels(), (80, 320));
    }
}
