//! Candle's names, and batch norm that stands apart, brought to the internal form: Ultralytics' names, batch norm folded.

use std::collections::HashMap;

use candle_core::{Result, Tensor};

/// What Ultralytics trains with, and candle's YOLOv8 was built with.
const BATCH_NORM_EPS: f64 = 1e-3;

/// Candle's name of a block and Ultralytics' number of it.
const BLOCKS: [(&str, usize); 17] = [
    ("net.b1.0", 0),
    ("net.b1.1", 1),
    ("net.b2.0", 2),
    ("net.b2.1", 3),
    ("net.b2.2", 4),
    ("net.b3.0", 5),
    ("net.b3.1", 6),
    ("net.b4.0", 7),
    ("net.b4.1", 8),
    ("net.b5.0", 9),
    ("fpn.n1", 12),
    ("fpn.n2", 15),
    ("fpn.n3", 16),
    ("fpn.n4", 18),
    ("fpn.n5", 19),
    ("fpn.n6", 21),
    ("head", 22),
];

/// `net.b2.0.bottleneck.0.cv1.conv.weight` → `model.2.m.0.cv1.conv.weight`; `None`: no such block.
pub(super) fn internal(name: &str) -> Option<String> {
    BLOCKS.iter().find_map(|(block, layer)| {
        let rest = name.strip_prefix(block)?.strip_prefix('.')?;
        let rest = rest.strip_prefix("bottleneck.").map_or_else(|| rest.to_owned(), |chain| format!("m.{chain}"));
        Some(format!("model.{layer}.{rest}"))
    })
}

/// Moves each batch norm (`{path}.bn.*`) into the convolution before it (`{path}.conv.*`): what a convolution's output
/// was multiplied by, its weights are; what was added becomes its bias. Tensors are f32 and have internal names. Where
/// there are no norms, nothing changes.
///
/// A norm of which a part is missing is left alone: the network will then miss the convolution's bias, by name.
pub(super) fn folded(mut tensors: HashMap<String, Tensor>) -> Result<HashMap<String, Tensor>> {
    let paths: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix(".bn.running_var").map(str::to_owned)).collect();
    for path in paths {
        let weight_name = format!("{path}.conv.weight");
        let part = |name: &str| tensors.get(&format!("{path}.bn.{name}"));
        let (Some(weight), Some(gamma), Some(beta), Some(mean), Some(variance)) =
            (tensors.get(&weight_name), part("weight"), part("bias"), part("running_mean"), part("running_var"))
        else {
            continue;
        };
        let factor = (gamma / (variance + BATCH_NORM_EPS)?.sqrt()?)?;
        let weight = weight.broadcast_mul(&factor.reshape(((), 1, 1, 1))?)?;
        // Published convolutions have no bias of their own before a norm; one that has loses nothing.
        let mean = match tensors.get(&format!("{path}.conv.bias")) {
            Some(bias) => (mean - bias)?,
            None => mean.clone(),
        };
        let bias = (beta - (mean * factor)?)?;
        tensors.insert(weight_name, weight);
        tensors.insert(format!("{path}.conv.bias"), bias);
    }
    tensors.retain(|name, _| !name.contains(".bn."));
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::ModuleT;

    use super::*;

    #[test]
    fn candles_names_become_ultralytics() {
        for (candle, wanted) in [
            ("net.b1.0.conv.weight", "model.0.conv.weight"),
            ("net.b2.2.bottleneck.1.cv2.bn.bias", "model.4.m.1.cv2.bn.bias"),
            ("net.b5.0.cv1.conv.weight", "model.9.cv1.conv.weight"),
            ("fpn.n6.cv2.conv.weight", "model.21.cv2.conv.weight"),
            ("head.cv3.2.2.bias", "model.22.cv3.2.2.bias"),
            ("head.dfl.conv.weight", "model.22.dfl.conv.weight"),
        ] {
            assert_eq!(internal(candle).as_deref(), Some(wanted));
        }
        assert_eq!(internal("net.b1.01.conv.weight"), None);
        assert_eq!(internal("optimizer.step"), None);
    }

    #[test]
    fn a_folded_norm_does_what_the_norm_did() {
        let random = |shape: &[usize]| Tensor::rand(0.5f32, 1.5, shape, &Device::Cpu).unwrap();
        let (weight, x) = (random(&[3, 2, 1, 1]), random(&[1, 2, 4, 4]));
        let (gamma, beta, mean, variance) = (random(&[3]), random(&[3]), random(&[3]), random(&[3]));
        let own = random(&[3]);
        let named = [
            ("a.conv.weight", &weight),
            ("a.bn.weight", &gamma),
            ("a.bn.bias", &beta),
            ("a.bn.running_mean", &mean),
            ("a.bn.running_var", &variance),
        ];
        let along = |t: &Tensor| t.reshape((1, 3, 1, 1)).unwrap();
        let norm =
            candle_nn::BatchNorm::new(3, mean.clone(), variance.clone(), gamma.clone(), beta.clone(), BATCH_NORM_EPS);
        let norm = norm.unwrap();
        for bias in [None, Some(own)] {
            let mut tensors: HashMap<String, Tensor> = named.map(|(n, t)| (n.to_owned(), t.clone())).into();
            let mut wanted = x.conv2d(&weight, 0, 1, 1, 1).unwrap();
            if let Some(bias) = bias {
                wanted = wanted.broadcast_add(&along(&bias)).unwrap();
                tensors.insert("a.conv.bias".into(), bias);
            }
            let folded = folded(tensors).unwrap();
            assert_eq!(folded.len(), 2);
            let found = x.conv2d(&folded["a.conv.weight"], 0, 1, 1, 1).unwrap();
            let found = found.broadcast_add(&along(&folded["a.conv.bias"])).unwrap();
            let wanted = norm.forward_t(&wanted, false).unwrap();
            let worst = (found - wanted).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst < 1e-5, "{worst} off");
        }
    }
}
