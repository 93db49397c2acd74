//! A checkpoint of Ultralytics as torch saves it: an archive with a pickled model, whose numbers lie in entries beside it.
//!
//! The pickle is walked as data: modules hold modules and tensors, and a tensor's name is the way to it. Whether they are
//! a network that kadr computes is decided in [`super::detect`].

mod tensor;

use std::{
    collections::HashMap,
    io::{Read, Seek},
};

use candle_core::Tensor;

pub use self::tensor::TensorError;
use self::tensor::Tensors;
use super::{
    Stored,
    pickle::{self, Id, Pickle, PickleError, Value},
    zip::{Zip, ZipError, shortened},
};

/// Modules of the largest network are some hundred; a hostile file may name one a million times.
const MOST_MODULES: usize = 4_000;
const DEEPEST: usize = 32;
/// The longest name of a module or tensor.
const LONGEST_NAME: usize = 100;
const EPS: f64 = 1e-3;

/// A checkpoint that can't be imported.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Zip(#[from] ZipError),
    #[error(transparent)]
    Pickle(#[from] PickleError),
    #[error("the archive holds no data.pkl: it is no checkpoint of torch")]
    NoPickle,
    #[error("it is a TorchScript export: import the checkpoint (.pt) that it was made from, or its .onnx")]
    TorchScript,
    #[error("it was saved on a big-endian machine, little-endian is wanted")]
    BigEndian,
    #[error("it holds no model: an Ultralytics checkpoint has one under \"ema\" or \"model\"")]
    NoModel,
    #[error("it holds a {0}; kadr computes models for detection (DetectionModel)")]
    Task(String),
    #[error("its activation is {0}, kadr computes SiLU")]
    Activation(String),
    #[error("the batch norm {name} has an epsilon of {eps}, kadr folds such of {EPS}")]
    Eps { name: String, eps: f64 },
    #[error("its modules lie more than {DEEPEST} deep in one another")]
    Deep,
    #[error("it has more than {MOST_MODULES} modules and tensors")]
    Many,
    #[error("a module or tensor in it has no proper name: {0}")]
    Name(String),
    #[error("tensor {name} can't be read")]
    Tensor { name: String, source: TensorError },
}

/// What the checkpoint in `reader` holds.
pub(super) fn read<R: Read + Seek>(reader: R) -> Result<Stored, CheckpointError> {
    let mut zip = Zip::open(reader)?;
    let folders = zip.names().filter_map(|name| name.strip_suffix("data.pkl"));
    let folder = folders.filter(|f| f.is_empty() || f.ends_with('/')).min();
    let folder = folder.ok_or(CheckpointError::NoPickle)?.to_owned();
    if zip.names().any(|name| name.strip_prefix(&folder) == Some("constants.pkl")) {
        return Err(CheckpointError::TorchScript);
    }
    let order = format!("{folder}byteorder");
    if zip.size(&order).is_ok() && zip.read(&order, 16)? != b"little" {
        return Err(CheckpointError::BigEndian);
    }
    let bytes = zip.read(&format!("{folder}data.pkl"), pickle::MOST_BYTES)?;
    let pickle = Pickle::read(&bytes)?;
    let mut walk =
        Walk { pickle: &pickle, tensors: Tensors::new(&pickle, zip, folder), found: HashMap::new(), steps: 0 };
    let model = model(&pickle)?;
    let attributes = walk.attributes(model);
    match attributes {
        Some(attributes) => {
            walk.task(model)?;
            walk.module(attributes, "", 0)?;
        }
        None => walk.state_dict(model)?,
    }
    let attribute = |name: &str| attributes.and_then(|a| pickle.value(a, name));
    let strides = attribute("stride").and_then(|id| walk.tensors.read(id).ok()?.flatten_all().ok()?.to_vec1().ok());
    let labels = attribute("names").and_then(|id| labels(&pickle, id));
    Ok(Stored { tensors: walk.found, labels, strides })
}

/// The averaged weights where they are, as Ultralytics itself chooses; a bare model or state dict is taken as it is.
fn model(pickle: &Pickle<'_>) -> Result<Id, CheckpointError> {
    let root = pickle.root();
    let chosen = ["ema", "model", "state_dict"]
        .into_iter()
        .filter_map(|key| pickle.value(root, key))
        .find(|id| matches!(pickle.get(*id), Value::Object(_) | Value::Dict(_)));
    let id = chosen.unwrap_or(root);
    match pickle.get(id) {
        Value::Object(_) | Value::Dict(_) => Ok(id),
        _ => Err(CheckpointError::NoModel),
    }
}

/// `{0: 'person', …}` with all numbers from 0, or a list.
fn labels(pickle: &Pickle<'_>, names: Id) -> Option<Vec<String>> {
    if let Some(list) = pickle.elements(names) {
        return list.iter().map(|id| pickle.text(*id).map(str::to_owned)).collect();
    }
    let numbered = pickle.entries(names)?.iter().map(|(k, v)| Some((pickle.int(*k)?, pickle.text(*v)?.to_owned())));
    super::labels::in_order(numbered.collect::<Option<Vec<_>>>()?)
}

struct Walk<'p, 'a, R> {
    pickle: &'p Pickle<'a>,
    tensors: Tensors<'p, 'a, R>,
    found: HashMap<String, Tensor>,
    steps: usize,
}

impl<R: Read + Seek> Walk<'_, '_, R> {
    /// A module's attributes; `None` for what is no module.
    fn attributes(&self, id: Id) -> Option<Id> {
        let state = self.pickle.object(id)?.state?;
        self.pickle.value(state, "_modules").map(|_| state)
    }

    /// The class of the whole model tells its task.
    fn task(&self, model: Id) -> Result<(), CheckpointError> {
        let class = self.pickle.object(model).and_then(|object| self.pickle.global(object.class));
        match class {
            Some((module, _)) if module.starts_with("models.") => {
                Err(CheckpointError::Task("network of YOLOv5, YOLOv7 or their like".to_owned()))
            }
            Some((_, name)) if name.ends_with("Model") && name != "DetectionModel" => {
                Err(CheckpointError::Task(shortened(name)))
            }
            _ => Ok(()),
        }
    }

    fn module(&mut self, attributes: Id, path: &str, depth: usize) -> Result<(), CheckpointError> {
        if depth > DEEPEST {
            return Err(CheckpointError::Deep);
        }
        for kind in ["_parameters", "_buffers"] {
            for (name, tensor) in self.named(attributes, kind, path)? {
                self.tensor(name, tensor)?;
            }
        }
        for (name, module) in self.named(attributes, "_modules", path)? {
            let Some(attributes) = self.attributes(module) else { continue };
            self.check(&name, module, attributes)?;
            self.module(attributes, &name, depth + 1)?;
        }
        Ok(())
    }

    /// What tensors don't tell, but results depend on.
    fn check(&self, name: &str, module: Id, attributes: Id) -> Result<(), CheckpointError> {
        let class = self.pickle.object(module).and_then(|object| self.pickle.global(object.class));
        let Some((package, class)) = class else { return Ok(()) };
        if package == "torch.nn.modules.activation" && class != "SiLU" {
            return Err(CheckpointError::Activation(shortened(class)));
        }
        if class == "BatchNorm2d"
            && let Some(Value::Float(eps)) = self.pickle.value(attributes, "eps").map(|id| self.pickle.get(id))
            && (eps - EPS).abs() > 1e-9
        {
            return Err(CheckpointError::Eps { name: name.to_owned(), eps: *eps });
        }
        Ok(())
    }

    fn state_dict(&mut self, dict: Id) -> Result<(), CheckpointError> {
        let entries = self.pickle.entries(dict).ok_or(CheckpointError::NoModel)?;
        if entries.is_empty() {
            return Err(CheckpointError::NoModel);
        }
        for (name, tensor) in self.under("", entries)? {
            self.tensor(name, tensor)?;
        }
        if self.found.is_empty() { Err(CheckpointError::NoModel) } else { Ok(()) }
    }

    fn named(&mut self, attributes: Id, kind: &str, path: &str) -> Result<Vec<(String, Id)>, CheckpointError> {
        let entries = self.pickle.value(attributes, kind).and_then(|id| self.pickle.entries(id)).unwrap_or_default();
        self.under(path, entries)
    }

    fn under(&mut self, path: &str, entries: &[(Id, Id)]) -> Result<Vec<(String, Id)>, CheckpointError> {
        self.steps += entries.len();
        if self.steps > MOST_MODULES {
            return Err(CheckpointError::Many);
        }
        let full = |&(key, value): &(Id, Id)| {
            let name = self.pickle.text(key).unwrap_or("(not a text)");
            let proper = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
            if path.len() + name.len() >= LONGEST_NAME || !name.chars().all(proper) {
                return Err(CheckpointError::Name(shortened(name)));
            }
            Ok((if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }, value))
        };
        entries.iter().map(full).collect()
    }

    fn tensor(&mut self, name: String, id: Id) -> Result<(), CheckpointError> {
        // A count of training steps, and parameters that a module does without: a convolution's bias before a norm.
        if name.ends_with(".num_batches_tracked") || matches!(self.pickle.get(id), Value::None) {
            return Ok(());
        }
        match self.tensors.read(id) {
            Ok(tensor) => {
                self.found.insert(name, tensor);
                Ok(())
            }
            Err(source) => Err(CheckpointError::Tensor { name, source }),
        }
    }
}
