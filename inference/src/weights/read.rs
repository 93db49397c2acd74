//! Verified bytes into a network's parameters: safetensors, f16 or f32, either naming, batch norm folded or apart.

use std::{collections::HashMap, fmt::Write as _, path::PathBuf};

use candle_core::{DType, Device};
use kadr_shared::catalog::Naming;

use super::{VerifiedWeights, naming};
use crate::model::Parameters;

/// A verified file that still can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{path} is no readable safetensors file")]
    Format { path: PathBuf, source: Box<candle_core::Error> },
    #[error("{path}: tensor {name} is of type {found}, f16 or f32 is wanted")]
    Type { path: PathBuf, name: String, found: &'static str },
    #[error("{path}: tensor {name} can't be converted to f32")]
    Convert { path: PathBuf, name: String, source: Box<candle_core::Error> },
    #[error("{path}: tensor {name} is not one of candle's YOLOv8; is the naming in the manifest right?")]
    Name { path: PathBuf, name: String },
    #[error("{path}: its batch norms can't be folded")]
    Fold { path: PathBuf, source: Box<candle_core::Error> },
}

/// The parameters in a file, under internal names.
pub fn parameters(weights: &VerifiedWeights) -> Result<Parameters, ReadError> {
    let path = || weights.path.clone();
    let stored = candle_core::safetensors::load_buffer(&weights.bytes, &Device::Cpu)
        .map_err(|e| ReadError::Format { path: path(), source: e.into() })?;
    let mut tensors = HashMap::with_capacity(stored.len());
    // A count of training steps that exporters like to leave in.
    for (name, tensor) in stored.into_iter().filter(|(name, _)| !name.ends_with(".num_batches_tracked")) {
        let found = tensor.dtype();
        if !matches!(found, DType::F16 | DType::F32) {
            return Err(ReadError::Type { path: path(), name, found: found.as_str() });
        }
        let tensor = match tensor.to_dtype(DType::F32) {
            Ok(tensor) => tensor,
            Err(e) => return Err(ReadError::Convert { path: path(), name, source: e.into() }),
        };
        let name = match weights.file.naming {
            Naming::Ultralytics => name,
            Naming::Candle => {
                naming::internal(&name).ok_or_else(|| ReadError::Name { path: path(), name: name.clone() })?
            }
        };
        tensors.insert(name, tensor);
    }
    let tensors = naming::folded(tensors).map_err(|e| ReadError::Fold { path: path(), source: e.into() })?;
    Ok(tensors.into_iter().collect())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(digest.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
