//! A network's parameters for the executors of a process: packed once for all of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::Tensor;

use super::{
    element::Element,
    memory::Aligned,
    pack::{Group, Packed, Weights},
};
use crate::model::{
    Graph, ParameterError, Plan, Source,
    graph::{Conv, Step},
    shape::BINS,
};

/// Parameters by path, as they were loaded.
#[derive(Debug)]
pub(super) struct Parameters {
    pub(super) graph: Graph,
    convs: HashMap<String, Loaded>,
    /// What each bin of a side's distance stands for, in strides.
    pub(super) bins: [f32; BINS],
}

/// One convolution's.
#[derive(Debug)]
struct Loaded {
    weights: Vec<f32>,
    inputs: usize,
    side: usize,
    bias: Vec<f32>,
}

impl Parameters {
    pub(super) fn load(plan: &Plan, source: &dyn Source) -> Result<Self, ParameterError> {
        let graph = Graph::new(plan);
        let numbers = |name: String, shape: &[usize]| {
            let tensor = source.get(&name, shape)?;
            let flat = tensor.flatten_all().and_then(|flat: Tensor| flat.to_vec1::<f32>());
            flat.map_err(|source| ParameterError::Tensor { name, source: source.into() })
        };
        let mut convs = HashMap::new();
        for step in &graph.steps {
            if let Step::Conv(Conv { path, kind, from, to, .. }) = step {
                let (inputs, outputs, side) = (graph.channels(*from), graph.channels(*to), kind.side());
                let weights = numbers(format!("{path}.weight"), &[outputs, inputs, side, side])?;
                let bias = numbers(format!("{path}.bias"), &[outputs])?;
                convs.insert(path.clone(), Loaded { weights, inputs, side, bias });
            }
        }
        let mut bins = [0.0; BINS];
        let loaded = numbers("model.22.dfl.conv.weight".to_owned(), &[1, BINS, 1, 1])?;
        bins.iter_mut().zip(loaded).for_each(|(bin, loaded)| *bin = loaded);
        Ok(Self { graph, convs, bins })
    }
}

/// Packed weights, shared by all that need them the same.
#[derive(Debug)]
pub(super) struct Cache<E: Element> {
    pub(super) parameters: Arc<Parameters>,
    packed: Mutex<HashMap<Key, Arc<Shared<E>>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) path: String,
    /// The first input channel that is used.
    pub(super) first: usize,
    pub(super) method: Method,
}

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Method {
    Direct,
    Winograd,
}

#[derive(Debug)]
pub(super) struct Shared<E: Element> {
    pub(super) weights: Arc<Aligned<E::Weight>>,
    pub(super) steps: Vec<f32>,
    pub(super) sums: Vec<f32>,
    pub(super) groups: Vec<Group>,
}

impl<E: Element> Cache<E> {
    pub(super) fn new(parameters: Arc<Parameters>) -> Self {
        Self { parameters, packed: Mutex::default() }
    }

    pub(super) fn bias(&self, path: &str) -> Option<&[f32]> {
        self.parameters.convs.get(path).map(|loaded| loaded.bias.as_slice())
    }

    /// What is packed under this key, or else what `pack` makes of the weights. `None`: there is no such convolution.
    pub(super) fn packed(
        &self,
        key: Key,
        pack: impl FnOnce(&Weights<'_>) -> (Packed<E::Weight>, Vec<Group>),
    ) -> Option<Arc<Shared<E>>> {
        let loaded = self.parameters.convs.get(&key.path)?;
        let mut all = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        let first = key.first;
        let shared = all.entry(key).or_insert_with(|| {
            let weights = Weights { values: &loaded.weights, inputs: loaded.inputs, side: loaded.side, first };
            let (packed, groups) = pack(&weights);
            let weights = Arc::new(Aligned::from_slice(&packed.weights));
            Arc::new(Shared { weights, steps: packed.steps, sums: packed.sums, groups })
        });
        Some(shared.clone())
    }
}
