//! What stored numbers stand for: value = (stored - zero) · step, one step and zero a map.
//!
//! Numbers of f32 and bf16 stand for themselves; the picture's are 0 to 255 at any precision.

use super::calibration::Calibration;
use crate::model::graph::Graph;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub(super) step: f32,
    pub(super) zero: f32,
}

impl Scale {
    pub(super) const PLAIN: Self = Self { step: 1.0, zero: 0.0 };
    const PICTURE: Self = Self { step: 1.0 / 255.0, zero: 0.0 };

    /// Bytes for numbers from `low` to `high`; zero is always among them, and stored exactly.
    pub(super) fn of_range(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let step = ((high - low) / 255.0).max(f32::MIN_POSITIVE);
        Self { step, zero: (-low / step).round() }
    }
}

/// Of each map of the graph, as it was calibrated.
pub(super) fn calibrated(graph: &Graph, calibration: &Calibration) -> Vec<Scale> {
    let ranges = calibration.ranges.iter().map(|&[low, high]| Scale::of_range(low, high));
    plain(graph)
        .into_iter()
        .zip(ranges)
        .enumerate()
        .map(|(map, (plain, range))| if map == Graph::PICTURE.map { plain } else { range })
        .collect()
}

/// Of each map of the graph, where numbers stand for themselves.
pub(super) fn plain(graph: &Graph) -> Vec<Scale> {
    let mut scales = vec![Scale::PLAIN; graph.maps.len()];
    if let Some(picture) = scales.get_mut(Graph::PICTURE.map) {
        *picture = Scale::PICTURE;
    }
    scales
}
