//! Which network tensors are: the scale whose names and shapes are theirs, all of them and no others.
//!
//! Files are not known here, and nothing is computed but whether numbers are numbers.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor};
use kadr_shared::catalog::{NamedScale, Scale};

use super::{scale_name, zip::shortened};
use crate::model::{Graph, Plan, shape::BINS};

const MOST_CLASSES: usize = 4096;
const WIDEST: usize = 4096;
const STRIDES: [f32; 3] = [8.0, 16.0, 32.0];
const DFL: &str = "model.22.dfl.conv.weight";

/// Tensors that are no network that kadr computes.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error("its tensors have no names such as model.0.conv.weight; it holds {0}")]
    Names(String),
    #[error("it is {0}")]
    Other(&'static str),
    #[error("its strides are {0:?}; 8, 16 and 32 are wanted")]
    Strides(Vec<f32>),
    #[error("it has {0} classes, from 1 to {MOST_CLASSES} are possible")]
    Classes(usize),
    #[error("it is closest to scale {scale}, but tensor {name} {wanted:?} is missing")]
    Missing { scale: &'static str, name: String, wanted: Vec<usize> },
    #[error("it is closest to scale {scale}, but tensor {name} has the shape {found:?} instead of {wanted:?}")]
    Shape { scale: &'static str, name: String, wanted: Vec<usize>, found: Vec<usize> },
    #[error("it has all that scale {scale} has, and tensor {name}, which it has not")]
    Extra { scale: String, name: String },
    #[error("tensor {0} holds what is no number")]
    NotFinite(String),
    #[error("tensor {name} can't be used")]
    Tensor { name: String, source: Box<candle_core::Error> },
}

type Detected = (Scale, Plan, BTreeMap<String, Tensor>);

/// The scale, the plan and the tensors in order. Tensors have internal names, norms are folded.
pub(super) fn detect(mut tensors: HashMap<String, Tensor>, strides: Option<&[f32]>) -> Result<Detected, DetectError> {
    if let Some(kind) = other_kind(&tensors) {
        return Err(DetectError::Other(kind));
    }
    if let Some(found) = strides
        && found != STRIDES
        && found != [32.0]
    {
        return Err(DetectError::Strides(found.iter().copied().take(8).collect()));
    }
    let Some(classes) = tensors.get("model.22.cv3.0.2.weight").and_then(|t| t.dims().first()).copied() else {
        let first = tensors.keys().min().map_or_else(|| "none".to_owned(), |name| shortened(name));
        return Err(DetectError::Names(first));
    };
    if !(1..=MOST_CLASSES).contains(&classes) {
        return Err(DetectError::Classes(classes));
    }
    if !tensors.contains_key(DFL) {
        // It counts the bins, and is not learned: exporters may leave it out.
        let bins: Vec<f32> = (0u8..).take(BINS).map(f32::from).collect();
        let bins = Tensor::from_vec(bins, (1, BINS, 1, 1), &Device::Cpu);
        tensors.insert(DFL.into(), bins.map_err(|e| DetectError::Tensor { name: DFL.into(), source: e.into() })?);
    }
    let (scale, plan) = scale(&tensors, classes)?;
    let wanted = wanted(&plan);
    for (name, tensor) in &tensors {
        if !wanted.contains_key(name) {
            return Err(DetectError::Extra { scale: scale_name(scale), name: shortened(name) });
        }
        let largest = tensor.abs().and_then(|t| t.max_all()).and_then(|t| t.to_scalar::<f32>());
        match largest {
            Ok(largest) if largest.is_finite() && !has_nan(tensor) => {}
            Ok(_) => return Err(DetectError::NotFinite(name.clone())),
            Err(e) => return Err(DetectError::Tensor { name: name.clone(), source: e.into() }),
        }
    }
    Ok((scale, plan, tensors.into_iter().collect()))
}

/// A sum with it is none; a maximum may pass it over.
fn has_nan(tensor: &Tensor) -> bool {
    tensor.sum_all().and_then(|sum| sum.to_scalar::<f32>()).is_ok_and(f32::is_nan)
}

/// What tells networks apart that look alike from afar. In words that complete "it is".
fn other_kind(tensors: &HashMap<String, Tensor>) -> Option<&'static str> {
    type Sign = fn(&str) -> bool;
    let any = |sign: Sign| tensors.keys().any(|name| sign(name));
    let kinds: [(Sign, &str); 10] = [
        (|n| n.contains(".proto."), "a model for segmentation; models for detection are wanted"),
        (|n| n.contains(".linear."), "a model for classification; models for detection are wanted"),
        (|n| n.contains(".one2one_"), "a YOLOv10 or one of its like, without suppression; YOLOv8 is wanted"),
        (|n| n.contains(".decoder."), "a transformer (RT-DETR); YOLOv8 is wanted"),
        (|n| n.starts_with("model.24.m."), "a YOLOv5 with anchors; YOLOv8 is wanted"),
        (|n| n.starts_with("model.4.cv2.0."), "a YOLOv9; YOLOv8 is wanted"),
        (|n| n.contains(".cv2.3."), "a model of four levels (P2 or P6); one of three levels, P3 to P5, is wanted"),
        (|n| n.starts_with("model.22.cv4."), "a model for poses or turned boxes; models for detection are wanted"),
        (|n| n.starts_with("model.23.cv3."), "a YOLO11 or one of its like; YOLOv8 is wanted"),
        (
            |n| n.starts_with("model.24.cv3.") || n.starts_with("model.21.cv3."),
            "a YOLOv5, YOLO12 or one of their like; YOLOv8 is wanted",
        ),
    ];
    kinds.into_iter().find_map(|(sign, kind)| any(sign).then_some(kind))
}

fn wanted(plan: &Plan) -> HashMap<String, Vec<usize>> {
    let bins = (DFL.to_owned(), vec![1, BINS, 1, 1]);
    Graph::new(plan).parameters().chain([bins]).collect()
}

fn scale(tensors: &HashMap<String, Tensor>, classes: usize) -> Result<(Scale, Plan), DetectError> {
    let dims = |name: &str| tensors.get(name).map(Tensor::dims);
    let mut closest: Option<(usize, DetectError)> = None;
    for named in NamedScale::ALL {
        let plan = Plan::new(Scale::Named(named), classes);
        let mut wrong: Vec<_> =
            wanted(&plan).into_iter().filter(|(name, wanted)| dims(name) != Some(wanted.as_slice())).collect();
        wrong.sort();
        let count = wrong.len();
        let Some((name, wanted)) = wrong.into_iter().next() else {
            return Ok((Scale::Named(named), plan));
        };
        if closest.as_ref().is_none_or(|(least, _)| count < *least) {
            let scale = named.name();
            let found = dims(&name).map(<[usize]>::to_vec);
            let error = match found {
                Some(found) => DetectError::Shape { scale, name, wanted, found },
                None => DetectError::Missing { scale, name, wanted },
            };
            closest = Some((count, error));
        }
    }
    let custom = custom(tensors, classes)
        .filter(|(_, plan)| wanted(plan).iter().all(|(name, wanted)| dims(name) == Some(wanted.as_slice())));
    match (custom, closest) {
        (Some(custom), _) => Ok(custom),
        (None, Some((_, error))) => Err(error),
        (None, None) => Err(DetectError::Names("none".to_owned())),
    }
}

/// A scale of one's own, from the channels of the backbone and the lengths of its chains.
fn custom(tensors: &HashMap<String, Tensor>, classes: usize) -> Option<(Scale, Plan)> {
    let channels = |layer: usize| tensors.get(&format!("model.{layer}.conv.weight"))?.dims().first().copied();
    let channels = [channels(0)?, channels(1)?, channels(3)?, channels(5)?, channels(7)?];
    if channels.iter().any(|&channels| channels > WIDEST) {
        return None;
    }
    let links = |layer: usize| {
        let link = |link: &usize| tensors.contains_key(&format!("model.{layer}.m.{link}.cv1.conv.weight"));
        (0..MOST_LINKS).take_while(link).count()
    };
    let (short, long) = (links(2), links(4));
    let [.., fourth, fifth] = channels.map(|channels| channels as f64);
    let (width, ratio) = (fourth / 512.0, fifth / fourth);
    // Rounding hides the true depth: the first of a fine scale that gives these chains will do.
    (1..=DEPTHS).find_map(|step| {
        let scale = Scale::Custom { depth: step as f64 / DEPTH_STEPS, width, ratio };
        let plan = Plan::new(scale, classes);
        (plan.channels == channels && plan.short == short && plan.long == long).then_some((scale, plan))
    })
}

const MOST_LINKS: usize = 60;
const DEPTH_STEPS: f64 = 60.0;
const DEPTHS: u32 = 600;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;

    fn tensors(scale: Scale, classes: usize) -> HashMap<String, Tensor> {
        testkit::tensors(scale, classes, 3).into_iter().collect()
    }

    fn refused(change: impl FnOnce(&mut HashMap<String, Tensor>)) -> String {
        let mut tensors = tensors(testkit::SCALE, 2);
        change(&mut tensors);
        detect(tensors, None).unwrap_err().to_string()
    }

    fn zeros(shape: &[usize]) -> Tensor {
        Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn scale_and_classes_follow_from_the_shapes() {
        for (named, classes) in [(NamedScale::N, 80), (NamedScale::S, 2), (NamedScale::M, 1)] {
            let (scale, plan, _) = detect(tensors(Scale::Named(named), classes), Some(&STRIDES)).unwrap();
            assert_eq!((scale, plan.classes), (Scale::Named(named), classes));
        }
        for custom in [
            testkit::SCALE,
            Scale::Custom { depth: 0.5, width: 0.0625, ratio: 2.0 },
            Scale::Custom { depth: 0.33, width: 0.125, ratio: 1.5 },
        ] {
            let (scale, plan, found) = detect(tensors(custom, 3), None).unwrap();
            assert!(matches!(scale, Scale::Custom { .. }));
            assert_eq!(plan, Plan::new(custom, 3));
            assert_eq!(found.len(), wanted(&plan).len());
        }
    }

    #[test]
    fn bins_that_were_left_out_are_counted() {
        let mut left_out = tensors(testkit::SCALE, 2);
        left_out.remove(DFL);
        let (_, _, found) = detect(left_out, None).unwrap();
        let bins = found[DFL].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!((bins[0], bins[15], bins.len()), (0.0, 15.0, BINS));
    }

    #[test]
    fn other_networks_are_named() {
        for (name, word) in [
            ("model.22.proto.cv1.conv.weight", "segmentation"),
            ("model.9.linear.weight", "classification"),
            ("model.22.cv4.0.0.conv.weight", "poses"),
            ("model.22.cv2.3.2.weight", "four levels"),
            ("model.23.cv3.0.0.0.conv.weight", "YOLO11"),
            ("model.23.one2one_cv2.0.2.weight", "YOLOv10"),
            ("model.24.m.0.weight", "YOLOv5"),
            ("model.4.cv2.0.cv1.conv.weight", "YOLOv9"),
        ] {
            let error = refused(|t| drop(t.insert(name.into(), zeros(&[1]))));
            assert!(error.contains(word), "{name}: {error}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_was_wanted() {
        let name = "model.4.m.0.cv1.conv.weight";
        let error = refused(|t| drop(t.remove("model.22.cv3.0.2.weight")));
        assert!(error.contains("model.0.conv.weight"), "{error}");
        let error = refused(|t| drop(t.insert(name.into(), zeros(&[1, 2]))));
        assert!(error.contains("closest to scale n"), "{error}");
        let error = refused(|t| drop(t.insert("model.3.more".into(), zeros(&[1]))));
        assert!(error.contains("model.3.more"), "{error}");
        for bad in [f32::NAN, f32::INFINITY] {
            let error = refused(|t| {
                let tensor = t.get_mut("model.0.conv.bias").unwrap();
                let mut numbers = tensor.to_vec1::<f32>().unwrap();
                numbers[1] = bad;
                *tensor = Tensor::new(numbers, &Device::Cpu).unwrap();
            });
            assert!(error.contains("no number"), "{error}");
        }
        let strides = detect(tensors(testkit::SCALE, 2), Some(&[8.0, 16.0, 32.0, 64.0])).unwrap_err();
        assert!(matches!(strides, DetectError::Strides(_)));
        let huge = refused(|t| drop(t.insert("model.5.conv.weight".into(), zeros(&[1 << 20]))));
        assert!(huge.contains("model."), "{huge}");
    }
}
