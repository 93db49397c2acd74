//! A network with its weights: the model's own where a folder of `KADR_MODELS` has them, else random ones.
//!
//! How long a network takes depends on its weights in one way alone: kadr computes boxes only where a score passes. So
//! random classes are shifted until about as few anchors pass as on a street.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    path::Path,
};

use candle_core::Tensor;
use kadr_inference::{
    Store,
    fast::{Cpu, Engine, Mode},
    model::{ParameterError, Parameters, Plan, Source},
    testkit, weights,
};
use kadr_shared::catalog::{Catalog, NamedScale, Scale};

use crate::{CONFIDENCE, picture::Picture};

pub(crate) const CLASSES: usize = 80;
/// One in so many anchors passes, if weights are random.
const RARITY: usize = 150;
/// What the classes' last weights are multiplied by, again and again, where scores are too sure.
const CALM: f64 = 0.1;
/// What all weights are multiplied by, if they are random.
const DAMPED: f64 = 0.75;

pub(crate) struct Network {
    pub(crate) name: &'static str,
    pub(crate) plan: Plan,
    pub(crate) parameters: Parameters,
    /// `real` or `random`.
    pub(crate) weights: &'static str,
}

impl Network {
    pub(crate) fn new(name: &'static str, scale: NamedScale, picture: &Picture) -> Self {
        let scale = Scale::Named(scale);
        let plan = Plan::new(scale, CLASSES);
        let (weights, parameters) = match real(name) {
            Some(parameters) => ("real", parameters),
            None => ("random", random(&plan, scale, picture)),
        };
        Self { name, plan, parameters, weights }
    }

    /// Writes the weights under Ultralytics' names, batch norm folded.
    pub(crate) fn write(&self, file: &Path) {
        let asked = Asked { parameters: &self.parameters, tensors: RefCell::default() };
        Engine::load(&self.plan, &asked, Mode::F32, Cpu::Portable).expect("the weights fit");
        candle_core::safetensors::save(&asked.tensors.into_inner(), file).expect("the weights can be written");
    }
}

fn real(name: &str) -> Option<Parameters> {
    let folders = std::env::var_os("KADR_MODELS")?;
    let catalog = Catalog::built_in().unwrap();
    let file = Store::new(std::env::split_paths(&folders)).locate(catalog.model(&name.parse().unwrap()).ok()?).ok()?;
    Some(weights::parameters(&file).expect("weights that can be read"))
}

fn random(plan: &Plan, scale: Scale, picture: &Picture) -> Parameters {
    let mut tensors = testkit::tensors(scale, CLASSES, 1);
    // Through so many layers a signal grows beyond what networks have, and numbers so small that a CPU takes a hundred times
    // as long come of it.
    change(&mut tensors, |name| name.ends_with(".weight") && !name.contains(".dfl."), |weight| weight * DAMPED);
    let mut shift = shift(plan, &tensors, picture);
    // Scores so sure that they are rounded to 1 can't be shifted: until none is, classes count less.
    for _ in 0..10 {
        if shift.is_finite() {
            break;
        }
        change(&mut tensors, |name| last(name, "weight"), |weight| weight * CALM);
        shift = self::shift(plan, &tensors, picture);
    }
    assert!(shift.is_finite(), "random weights whose scores differ");
    change(&mut tensors, |name| last(name, "bias"), |bias| bias + shift);
    tensors.into_iter().collect()
}

/// What the classes' logits lack for one anchor in [`RARITY`] to pass.
fn shift(plan: &Plan, tensors: &BTreeMap<String, Tensor>, picture: &Picture) -> f64 {
    let parameters: Parameters = tensors.clone().into_iter().collect();
    let engine = Engine::load(plan, &parameters, Mode::F32, Cpu::detect()).unwrap();
    let mut found = Vec::new();
    engine.executor(picture.input, 1).unwrap().analyse_planes(&picture.planes, 0.0, &mut found).unwrap();
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let logit = |score: f32| f64::from(score / (1.0 - score)).ln();
    logit(CONFIDENCE) - logit(found[found.len() / RARITY].score)
}

/// Whether this is one of the last convolution of a level's classes.
fn last(name: &str, what: &str) -> bool {
    name.contains(".cv3.") && name.ends_with(&format!(".2.{what}"))
}

fn change(
    tensors: &mut BTreeMap<String, Tensor>,
    which: impl Fn(&str) -> bool,
    to: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
) {
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| which(name)) {
        *tensor = to(tensor).unwrap();
    }
}

/// Remembers each tensor that it is asked for.
struct Asked<'a> {
    parameters: &'a Parameters,
    tensors: RefCell<HashMap<String, Tensor>>,
}

impl Source for Asked<'_> {
    fn get(&self, name: &str, wanted: &[usize]) -> Result<Tensor, ParameterError> {
        let tensor = self.parameters.get(name, wanted)?;
        self.tensors.borrow_mut().insert(name.to_owned(), tensor.clone());
        Ok(tensor)
    }
}
