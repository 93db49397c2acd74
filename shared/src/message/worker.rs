//! A worker's sign of life for one of its models, on `kadr.inf.{model}`.
//!
//! That it comes is what counts, and how many frames it takes; the rest of what it says is for people.

use serde::{Deserialize, Serialize};

use crate::{id::WorkerId, message::detection::ModelStamp};

/// What a worker is to one of its models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sign {
    pub worker: WorkerId,
    /// Cameras' frames that it analyses at the same time, each as soon as may be, of all its models. Older workers do not say it.
    #[serde(default = "one")]
    pub at_once: usize,
    #[serde(flatten)]
    pub weights: WeightsState,
    pub frames: Frames,
}

const fn one() -> usize {
    1
}

/// How far the model's weights are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum WeightsState {
    /// They are loaded with the first frame.
    Unopened,
    Opening,
    /// Loaded and warm.
    Ready {
        model: ModelStamp,
        /// What computes: `amx`, `avx512-vnni`, `avx512`, `avx2`, `portable` or `cuda`.
        path: String,
    },
    /// Frames are refused for this reason; it is tried again.
    Failed {
        error: String,
    },
}

/// What became of the model's frames since the worker's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Frames {
    pub analysed: u64,
    /// Those that can never be analysed.
    pub refused: u64,
    /// Those that were past their time when it was their turn.
    pub late: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_is_one_flat_object() {
        let model = ModelStamp { name: "tiny".parse().unwrap(), sha256: "ab".into(), precision: "f32".into() };
        let weights = WeightsState::Ready { model, path: "avx2".into() };
        let sign = Sign {
            worker: "w".parse().unwrap(),
            at_once: 2,
            weights,
            frames: Frames { analysed: 3, refused: 0, late: 1 },
        };
        let text = serde_json::to_string(&sign).unwrap();
        assert_eq!(
            text,
            r#"{"worker":"w","at_once":2,"state":"ready","model":{"name":"tiny","sha256":"ab","precision":"f32"},"path":"avx2","frames":{"analysed":3,"refused":0,"late":1}}"#
        );
        assert_eq!(serde_json::from_str::<Sign>(&text).unwrap(), sign);
    }
}
