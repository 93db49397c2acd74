//! The weights in an ONNX export of Ultralytics: the graph's initialisers, under the names that they had in torch.
//!
//! Protocol buffers are read field by field, three messages deep: no recursion, and nothing is reserved that is not there.
//! The graph itself is not followed; whether the tensors are a network that kadr computes is decided in [`super::detect`].

use std::{borrow::Cow, collections::HashMap};

use candle_core::{DType, Device, Tensor};

use super::{Budget, Stored, TooLarge, labels, zip::shortened};

const MOST_DIMENSIONS: usize = 8;
/// ONNX's types of numbers that are read.
const FLOATS: [u64; 2] = [FLOAT, FLOAT16];
const FLOAT: u64 = 1;
const FLOAT16: u64 = 10;
/// Activations that leave no trace in the tensors, but for which kadr has no step.
const OTHER_ACTIVATIONS: [&str; 10] =
    ["Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "HardSwish", "HardSigmoid", "Mish"];

/// An ONNX file that can't be imported.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    #[error("it is cut short or no ONNX: a field does not end where it should, at byte {0}")]
    Cut(usize),
    #[error("it is no ONNX: a field is of a kind that does not belong there, at byte {0}")]
    Field(usize),
    #[error("it holds no graph")]
    NoGraph,
    #[error("it is quantised ({0}): import the float export, kadr quantises by itself")]
    Quantised(String),
    #[error("its activation is {0}, kadr computes SiLU")]
    Activation(String),
    #[error(
        "its weights have lost their names (such as model.0.conv.weight): export it with Ultralytics, or import the .pt"
    )]
    Unnamed,
    #[error("the numbers of tensor {0} lie in another file: export it in one")]
    Elsewhere(String),
    #[error("the numbers of tensor {name} are of ONNX's type {found}; 1 (float) or 10 (float16) is wanted")]
    Type { name: String, found: u64 },
    #[error("tensor {name} has the shape {shape:?}, but {found} bytes of numbers")]
    Size { name: String, shape: Vec<usize>, found: usize },
    #[error("tensor {0} has a shape that is none")]
    Shape(String),
    #[error("tensor {0} is there twice")]
    Twice(String),
    #[error(transparent)]
    Large(#[from] TooLarge),
    #[error("tensor {name} can't be used")]
    Numbers { name: String, source: Box<candle_core::Error> },
}

/// What the ONNX file in `bytes` holds.
pub(super) fn read(bytes: &[u8]) -> Result<Stored, OnnxError> {
    let (mut graph, mut names, mut stride) = (None, None, None);
    for field in Fields::new(bytes) {
        match field? {
            (7, Value::Bytes(bytes)) => graph = Some(bytes),
            (14, Value::Bytes(bytes)) => {
                let (key, value) = entry(bytes)?;
                match key {
                    b"names" => names = str::from_utf8(value).ok(),
                    b"stride" => stride = str::from_utf8(value).ok(),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    let graph = graph.ok_or(OnnxError::NoGraph)?;
    let mut tensors = HashMap::new();
    let mut budget = Budget::default();
    for field in Fields::new(graph) {
        match field? {
            (1, Value::Bytes(node)) => step(node)?,
            (5, Value::Bytes(bytes)) => {
                let raw = Raw::read(bytes)?;
                if raw.is_weight() {
                    let (name, tensor) = raw.tensor(&mut budget)?;
                    if tensors.contains_key(&name) {
                        return Err(OnnxError::Twice(name));
                    }
                    tensors.insert(name, tensor);
                }
            }
            _ => {}
        }
    }
    if tensors.is_empty() {
        return Err(OnnxError::Unnamed);
    }
    let labels = names.and_then(labels::printed);
    // The coarsest one alone is noted.
    let strides = stride.and_then(|stride| Some(vec![stride.trim().parse().ok()?]));
    Ok(Stored { tensors, labels, strides })
}

/// A key with its value.
fn entry(bytes: &[u8]) -> Result<(&[u8], &[u8]), OnnxError> {
    let (mut key, mut value) = (b"".as_slice(), b"".as_slice());
    for field in Fields::new(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Refuses a step that tells of another kind of network.
fn step(node: &[u8]) -> Result<(), OnnxError> {
    for field in Fields::new(node) {
        if let (4, Value::Bytes(kind)) = field? {
            let kind = String::from_utf8_lossy(kind);
            if kind.starts_with("QLinear") || kind.contains("QuantizeLinear") || kind.ends_with("Integer") {
                return Err(OnnxError::Quantised(shortened(&kind)));
            }
            if OTHER_ACTIVATIONS.contains(&&*kind) {
                return Err(OnnxError::Activation(shortened(&kind)));
            }
        }
    }
    Ok(())
}

/// A tensor as it is written.
#[derive(Default)]
struct Raw<'a> {
    name: &'a [u8],
    kind: u64,
    shape: Vec<u64>,
    numbers: Cow<'a, [u8]>,
    elsewhere: bool,
}

impl<'a> Raw<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, OnnxError> {
        let mut raw = Self::default();
        for field in Fields::new(bytes) {
            match field? {
                (1, Value::Number(size)) => raw.size(size),
                (1, Value::Bytes(packed)) => {
                    let mut sizes = Fields::new(packed);
                    while !sizes.rest().is_empty() {
                        let size = sizes.number()?;
                        raw.size(size);
                    }
                }
                (2, Value::Number(kind)) => raw.kind = kind,
                (8, Value::Bytes(name)) => raw.name = name,
                (9, Value::Bytes(numbers)) | (4, Value::Bytes(numbers)) => raw.numbers = Cow::Borrowed(numbers),
                // Written one by one.
                (4, Value::Four(number)) => raw.numbers.to_mut().extend(number),
                (14, Value::Number(1)) => raw.elsewhere = true,
                _ => {}
            }
        }
        Ok(raw)
    }

    /// Constants of the exporter's own stand among the weights: sizes to split or reshape by.
    fn is_weight(&self) -> bool {
        let learned = self.name.ends_with(b".weight") || self.name.ends_with(b".bias");
        self.name.starts_with(b"model.") && (learned || FLOATS.contains(&self.kind))
    }

    /// One too many is enough to know.
    fn size(&mut self, size: u64) {
        if self.shape.len() <= MOST_DIMENSIONS {
            self.shape.push(size);
        }
    }

    fn tensor(self, budget: &mut Budget) -> Result<(String, Tensor), OnnxError> {
        let name = shortened(&String::from_utf8_lossy(self.name));
        if self.elsewhere {
            return Err(OnnxError::Elsewhere(name));
        }
        let kind = match self.kind {
            FLOAT => DType::F32,
            FLOAT16 => DType::F16,
            found => return Err(OnnxError::Type { name, found }),
        };
        let shape: Option<Vec<usize>> = self.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
        let Some(shape) = shape.filter(|shape| shape.len() <= MOST_DIMENSIONS) else {
            return Err(OnnxError::Shape(name));
        };
        let count = budget.take(&shape)?;
        if count == 0 || self.numbers.len() != count * kind.size_in_bytes() {
            return Err(OnnxError::Size { name, shape, found: self.numbers.len() });
        }
        let tensor = Tensor::from_raw_buffer(&self.numbers, kind, &shape, &Device::Cpu);
        match tensor.and_then(|tensor| tensor.to_dtype(DType::F32)) {
            Ok(tensor) => Ok((name, tensor)),
            Err(e) => Err(OnnxError::Numbers { name, source: e.into() }),
        }
    }
}

/// The fields of one message.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Four([u8; 4]),
    Eight,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], OnnxError> {
        let taken = self.rest().get(..length).ok_or(OnnxError::Cut(self.at))?;
        self.at += length;
        Ok(taken)
    }

    /// Seven bits a byte, least first; the last one has no eighth.
    fn number(&mut self) -> Result<u64, OnnxError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let &[byte] = self.take(1)? else { return Err(OnnxError::Cut(self.at)) };
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(OnnxError::Field(self.at))
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), OnnxError> {
        let begun = self.at;
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => {
                self.take(8)?;
                Value::Eight
            }
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| OnnxError::Cut(begun))?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Four(self.take(4)?.try_into().map_err(|_| OnnxError::Cut(begun))?),
            _ => return Err(OnnxError::Field(begun)),
        };
        match key >> 3 {
            0 => Err(OnnxError::Field(begun)),
            number => Ok((number, value)),
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), OnnxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest().is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests;
