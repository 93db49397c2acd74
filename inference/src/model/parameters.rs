//! A network's parameters by name: the one internal form that every file of weights is brought to.
//!
//! Names are Ultralytics' with batch norm folded: each convolution is `{path}.weight` and `{path}.bias`, f32 on the CPU.
//! Files and other namings are the business of [`crate::weights`].

use std::collections::HashMap;

use candle_core::{DType, Tensor};

/// Tensors by internal name.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    tensors: HashMap<String, Tensor>,
}

/// A tensor that is not what the network needs.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    #[error("tensor {name} {wanted:?} is missing: are these the weights of this model and scale?")]
    Missing { name: String, wanted: Vec<usize> },
    #[error(
        "tensor {name} has the shape {found:?}, wanted is {wanted:?}: are these the weights of this model and scale?"
    )]
    Shape { name: String, wanted: Vec<usize>, found: Vec<usize> },
    #[error("tensor {name} can't be used")]
    Tensor { name: String, source: Box<candle_core::Error> },
}

impl FromIterator<(String, Tensor)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self { tensors: tensors.into_iter().collect() }
    }
}

/// Where a network takes its parameters from.
pub trait Source {
    /// The tensor of this name, f32, of exactly this shape.
    fn get(&self, name: &str, wanted: &[usize]) -> Result<Tensor, ParameterError>;
}

impl Source for Parameters {
    fn get(&self, name: &str, wanted: &[usize]) -> Result<Tensor, ParameterError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| ParameterError::Missing { name: name.to_owned(), wanted: wanted.to_vec() })?;
        if tensor.dims() != wanted {
            return Err(ParameterError::Shape {
                name: name.to_owned(),
                wanted: wanted.to_vec(),
                found: tensor.dims().to_vec(),
            });
        }
        tensor.to_dtype(DType::F32).map_err(|e| ParameterError::Tensor { name: name.to_owned(), source: e.into() })
    }
}
