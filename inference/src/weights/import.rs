//! Other people's files of weights made models that kadr serves: checkpoints of Ultralytics (`.pt`), their ONNX exports,
//! and safetensors of either naming.
//!
//! In the order in which a file goes through it:
//!
//! - `checkpoint` (`pickle`, `zip`), `onnx` and `safetensors` read a file into tensors by name, and nothing more;
//! - `detect` tells which network that is: scale and classes;
//! - [`verify()`] computes a picture on the fast path and by the reference, which must agree;
//! - [`install()`] writes the weights and their entry in the manifest.
//!
//! A file is anybody's: nothing in it is executed, nothing that it declares is believed before it is checked, and what is
//! held in memory is bounded. Files that the manifest names are read by [`super::parameters`] instead.

mod checkpoint;
mod detect;
mod install;
mod labels;
mod onnx;
mod pickle;
mod safetensors;
mod verify;
mod zip;

#[cfg(test)]
pub(super) mod samples;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

use candle_core::Tensor;
use kadr_shared::catalog::{NamedScale, Scale};

pub use self::{
    checkpoint::{CheckpointError, TensorError},
    detect::DetectError,
    install::{InstallError, Installed, install},
    labels::{LabelError, check as check_labels},
    onnx::OnnxError,
    pickle::{PickleError, PickleReason},
    safetensors::SafetensorsError,
    verify::{Agreement, Picture, VerifyError, verify},
    zip::ZipError,
};
use super::naming;
use crate::model::Plan;

/// The largest file that is read as a whole: weights of scale x are 273 MB in single precision.
const MOST_BYTES: u64 = 512 << 20;
/// The most numbers of a model: scale x has 68 million, batch norm apart.
const MOST_NUMBERS: usize = 100 << 20;
/// The most tensors: scale x has some 600, batch norm apart.
const MOST_TENSORS: usize = 10_000;

/// A network that a file holds, and that kadr computes.
#[derive(Debug)]
pub struct Network {
    pub format: Format,
    pub scale: Scale,
    pub classes: usize,
    /// A label a class, if the file has them.
    pub labels: Option<Vec<String>>,
    plan: Plan,
    /// By internal name, f32, exactly those that the network takes.
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Checkpoint,
    Onnx,
    Safetensors,
}

/// A file that can't be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("can't read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{path} is none of the files that can be imported: an Ultralytics checkpoint (.pt), its ONNX export (.onnx), or \
         safetensors"
    )]
    Unknown { path: PathBuf },
    #[error("{path} is a checkpoint of a torch before 1.6: load and save it once with a newer one")]
    Old { path: PathBuf },
    #[error("{path} has {bytes} bytes, at most {MOST_BYTES} are read")]
    Size { path: PathBuf, bytes: u64 },
    #[error("{path} can't be imported as a checkpoint of torch")]
    Checkpoint { path: PathBuf, source: Box<CheckpointError> },
    #[error("{path} can't be imported as ONNX")]
    Onnx { path: PathBuf, source: Box<OnnxError> },
    #[error("{path} can't be imported as safetensors")]
    Safetensors { path: PathBuf, source: Box<SafetensorsError> },
    #[error("{path}: its batch norms can't be folded")]
    Fold { path: PathBuf, source: Box<candle_core::Error> },
    #[error("{path} is not a network that kadr computes (YOLOv8 for detection)")]
    Network { path: PathBuf, source: Box<DetectError> },
}

/// More than a model has.
#[derive(Debug, thiserror::Error)]
pub enum TooLarge {
    #[error("with it the file has more than {MOST_NUMBERS} numbers: the largest YOLOv8 has 68 million")]
    Numbers,
    #[error("the file has more than {MOST_TENSORS} tensors")]
    Tensors,
}

/// What a file holds, before anyone has asked what network it is.
#[derive(Debug)]
struct Stored {
    /// f32.
    tensors: HashMap<String, Tensor>,
    labels: Option<Vec<String>>,
    /// Of the levels, or the coarsest alone.
    strides: Option<Vec<f32>>,
}

/// How many numbers and tensors a file may still have.
#[derive(Debug)]
struct Budget {
    numbers: usize,
    tensors: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { numbers: MOST_NUMBERS, tensors: MOST_TENSORS }
    }
}

impl Budget {
    /// How many numbers a tensor of this shape has, if there may be so many.
    fn take(&mut self, shape: &[usize]) -> Result<usize, TooLarge> {
        self.tensors = self.tensors.checked_sub(1).ok_or(TooLarge::Tensors)?;
        let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size)).ok_or(TooLarge::Numbers)?;
        self.numbers = self.numbers.checked_sub(count).ok_or(TooLarge::Numbers)?;
        Ok(count)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkpoint => "Ultralytics checkpoint",
            Self::Onnx => "ONNX export",
            Self::Safetensors => "safetensors",
        })
    }
}

impl Network {
    /// `s`, or the factors of one's own.
    pub fn scale_name(&self) -> String {
        scale_name(self.scale)
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many numbers the network was trained to.
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(Tensor::elem_count).sum()
    }
}

/// Reads a file and tells which network it holds. What it is is told by its content, not by its name. Blocks.
pub fn inspect(path: &Path) -> Result<Network, ImportError> {
    let read = |source| ImportError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    let mut magic = Vec::new();
    file.by_ref().take(16).read_to_end(&mut magic).map_err(read)?;
    file.rewind().map_err(read)?;
    let format = match magic.as_slice() {
        [b'P', b'K', 3, 4, ..] => Format::Checkpoint,
        [0x80, 2, ..] => return Err(ImportError::Old { path: path.to_owned() }),
        [_, _, _, _, _, _, _, _, b'{', ..] => Format::Safetensors,
        // The first field: a version.
        [8, 1..=127, ..] => Format::Onnx,
        _ => return Err(ImportError::Unknown { path: path.to_owned() }),
    };
    let stored = if format == Format::Checkpoint {
        checkpoint::read(file)
            .map_err(|source| ImportError::Checkpoint { path: path.to_owned(), source: Box::new(source) })?
    } else {
        if length > MOST_BYTES {
            return Err(ImportError::Size { path: path.to_owned(), bytes: length });
        }
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(read)?;
        match format {
            Format::Onnx => onnx::read(&bytes)
                .map_err(|source| ImportError::Onnx { path: path.to_owned(), source: Box::new(source) })?,
            _ => safetensors::read(&bytes)
                .map_err(|source| ImportError::Safetensors { path: path.to_owned(), source: Box::new(source) })?,
        }
    };
    let Stored { tensors, labels, strides } = stored;
    let tensors = tensors.into_iter().map(|(name, tensor)| (internal(name), tensor)).collect();
    let tensors = naming::folded(tensors).map_err(|e| ImportError::Fold { path: path.to_owned(), source: e.into() })?;
    let network = |source| ImportError::Network { path: path.to_owned(), source: Box::new(source) };
    let (scale, plan, tensors) = detect::detect(tensors, strides.as_deref()).map_err(network)?;
    Ok(Network { format, scale, classes: plan.classes, labels, plan, tensors })
}

fn scale_name(scale: Scale) -> String {
    match scale {
        Scale::Named(scale) => NamedScale::name(scale).to_owned(),
        Scale::Custom { depth, width, ratio } => format!("of its own (depth {depth}, width {width}, ratio {ratio})"),
    }
}

/// A network within a network is named twice; candle has names of its own.
fn internal(name: String) -> String {
    let inner = name.strip_prefix("model.").filter(|rest| rest.starts_with("model."));
    naming::internal(&name).or_else(|| inner.map(str::to_owned)).unwrap_or(name)
}
