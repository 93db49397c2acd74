//! Weights as safetensors: tensors by name, and perhaps labels among the notes.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::{Budget, Stored, TooLarge, labels, zip::shortened};

/// The longest header: some hundred tensors take a hundred bytes each.
const MOST_HEADER: u64 = 4 << 20;

/// Safetensors that can't be imported.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    #[error("it is damaged or cut short")]
    Format(#[from] SafeTensorError),
    #[error("its header has {0} bytes, at most {MOST_HEADER} are read")]
    Header(u64),
    #[error("tensor {name} is of type {found}; half, single or bfloat16 precision is wanted")]
    Type { name: String, found: String },
    #[error(transparent)]
    Large(#[from] TooLarge),
    #[error("tensor {name} can't be used")]
    Numbers { name: String, source: Box<candle_core::Error> },
}

/// What the safetensors in `bytes` hold.
pub(super) fn read(bytes: &[u8]) -> Result<Stored, SafetensorsError> {
    if let Some(length) = bytes.first_chunk().copied().map(u64::from_le_bytes).filter(|&length| length > MOST_HEADER) {
        return Err(SafetensorsError::Header(length));
    }
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let names = header.metadata().as_ref().and_then(|notes| notes.get("names"));
    let labels = names.and_then(|names| labels::printed(names));
    let mut tensors = HashMap::new();
    let mut budget = Budget::default();
    for (name, view) in SafeTensors::deserialize(bytes)?.iter().filter(|(n, _)| !n.ends_with(".num_batches_tracked")) {
        let shown = || shortened(name);
        let kind = match view.dtype() {
            Dtype::F16 => DType::F16,
            Dtype::F32 => DType::F32,
            Dtype::BF16 => DType::BF16,
            other => return Err(SafetensorsError::Type { name: shown(), found: format!("{other:?}") }),
        };
        if budget.take(view.shape())? == 0 {
            continue;
        }
        let tensor = Tensor::from_raw_buffer(view.data(), kind, view.shape(), &Device::Cpu);
        match tensor.and_then(|tensor| tensor.to_dtype(DType::F32)) {
            Ok(tensor) => tensors.insert(name.to_owned(), tensor),
            Err(e) => return Err(SafetensorsError::Numbers { name: shown(), source: e.into() }),
        };
    }
    Ok(Stored { tensors, labels, strides: None })
}
