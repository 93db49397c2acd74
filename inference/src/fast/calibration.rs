//! What the bytes of int8 stand for: ranges of each feature map, measured on frames, and the file that they are kept in.

use std::sync::Arc;

use kadr_shared::{geometry::InputSize, message::frame::Colour};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    engine::EngineError,
    executor::{Pass, Program},
    kernels::{Computed, Cpu},
    network::{Cache, Parameters},
    picture,
    plan::Buffers,
    scales,
};
use crate::{
    model::{Plan, Source},
    weights::hex,
};

/// Ranges of the maps of one network with certain weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Of the weights that it was made with.
    pub weights_sha256: String,
    /// Frames that were looked at.
    pub frames: usize,
    /// The smallest and the largest number of each map.
    pub(super) ranges: Vec<[f32; 2]>,
}

/// A file that holds no calibration for these weights.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    #[error("it is no calibration")]
    Format(#[from] serde_json::Error),
    #[error("it is damaged: its sha256 is {found}, {wanted} stands in it; calibrate again")]
    Damaged { wanted: String, found: String },
    #[error("it belongs to other weights (sha256 {found}, these have {wanted}); calibrate again")]
    OtherWeights { wanted: String, found: String },
}

/// As it stands in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    calibration: Calibration,
    /// Of the calibration's JSON without spaces.
    sha256: String,
}

impl Calibration {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let sha256 = self.sha256()?;
        serde_json::to_vec_pretty(&File { calibration: self.clone(), sha256 })
    }

    /// Reads a file's bytes, for the weights of this sha256.
    pub fn from_bytes(bytes: &[u8], weights_sha256: &str) -> Result<Self, CalibrationError> {
        let File { calibration, sha256: wanted } = serde_json::from_slice(bytes)?;
        let found = calibration.sha256()?;
        if found != wanted {
            return Err(CalibrationError::Damaged { wanted, found });
        }
        if calibration.weights_sha256 != weights_sha256 {
            let (wanted, found) = (weights_sha256.to_owned(), calibration.weights_sha256);
            return Err(CalibrationError::OtherWeights { wanted, found });
        }
        Ok(calibration)
    }

    fn sha256(&self) -> Result<String, serde_json::Error> {
        Ok(hex(&Sha256::digest(serde_json::to_vec(self)?)))
    }
}

/// Looks at frames.
#[derive(Debug)]
pub struct Calibrator {
    pass: Pass<f32>,
    input: InputSize,
    weights_sha256: String,
    frames: usize,
    /// Sums of the smallest and the largest numbers.
    sums: Vec<[f64; 2]>,
}

impl Calibrator {
    pub fn new(
        plan: &Plan,
        source: &dyn Source,
        weights_sha256: &str,
        input: InputSize,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let parameters = Arc::new(Parameters::load(plan, source)?);
        let (scales, maps) = (scales::plain(&parameters.graph), parameters.graph.maps.len());
        let cpu = Cpu::detect();
        let program = Program::new(&Cache::new(parameters), f32::kernels(cpu), &scales, input, Buffers::Apart);
        let program = program.ok_or(EngineError::Kernel { cpu, precision: super::Precision::F32 })?;
        let pass = Pass::new(Arc::new(program), threads)?;
        Ok(Self { pass, input, weights_sha256: weights_sha256.to_owned(), frames: 0, sums: vec![[0.0; 2]; maps] })
    }

    /// Takes a frame into account: I420 of the input's size.
    pub fn add(&mut self, body: &[u8], colour: Colour) -> Result<(), EngineError> {
        if let Some((numbers, layout)) = self.pass.picture() {
            picture::set_i420(numbers, layout, body, self.input, colour)?;
        }
        self.look();
        Ok(())
    }

    /// The same of a tensor's numbers: (3, height, width), f32 in 0..=1, RGB.
    pub fn add_planes(&mut self, planes: &[f32]) -> Result<(), EngineError> {
        if planes.len() != 3 * self.input.width() as usize * self.input.height() as usize {
            return Err(EngineError::Numbers { wanted: self.input, found: planes.len() });
        }
        if let Some((numbers, layout)) = self.pass.picture() {
            picture::set_planes(numbers, layout, planes);
        }
        self.look();
        Ok(())
    }

    fn look(&mut self) {
        // With all candidates, so that no part of the head is left out.
        self.pass.run(0.0, &mut Vec::new(), None);
        self.frames += 1;
        let sums = &mut self.sums;
        self.pass.ranges(&mut |map, low, high| {
            if let Some(sum) = sums.get_mut(map) {
                *sum = [sum[0] + f64::from(low), sum[1] + f64::from(high)];
            }
        });
    }

    pub fn frames(&self) -> usize {
        self.frames
    }

    /// The mean of the frames' ranges: wide enough for nearly all, and not as coarse as the widest would make it.
    pub fn finish(self) -> Calibration {
        let frames = self.frames.max(1) as f64;
        let ranges = self.sums.iter().map(|sum| sum.map(|sum| (sum / frames) as f32)).collect();
        Calibration { weights_sha256: self.weights_sha256, frames: self.frames, ranges }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration() -> Calibration {
        Calibration { weights_sha256: "ab".into(), frames: 3, ranges: vec![[0.0, 1.5], [-0.27, 7.125]] }
    }

    #[test]
    fn a_file_is_read_for_its_own_weights_and_refused_for_others_or_damaged() {
        let bytes = calibration().to_bytes().unwrap();
        assert_eq!(Calibration::from_bytes(&bytes, "ab").unwrap(), calibration());
        let error = Calibration::from_bytes(&bytes, "cd").unwrap_err();
        assert!(matches!(error, CalibrationError::OtherWeights { .. }), "{error}");
        let text = String::from_utf8(bytes).unwrap().replace("7.125", "7.5");
        let error = Calibration::from_bytes(text.as_bytes(), "ab").unwrap_err();
        assert!(matches!(error, CalibrationError::Damaged { .. }), "{error}");
        let error = Calibration::from_bytes(b"{}", "ab").unwrap_err();
        assert!(matches!(error, CalibrationError::Format(_)), "{error}");
    }
}
