use proptest::prelude::*;

use super::{
    super::samples::{Numbers, initialiser, message, number, onnx},
    *,
};

fn tensor() -> Tensor {
    Tensor::new(&[[0f32, 0.5, -1.0], [2.0, 3.0, 65504.0]], &Device::Cpu).unwrap()
}

fn with(initialisers: &[Vec<u8>]) -> Vec<u8> {
    onnx(initialisers, "{0: 'a', 1: 'b'}", &["Conv", "Sigmoid", "Mul"])
}

fn sample() -> Vec<u8> {
    with(&[initialiser("model.0.conv.weight", &tensor(), Numbers::Raw)])
}

fn refused(initialiser: Vec<u8>) -> String {
    read(&with(&[initialiser])).unwrap_err().to_string()
}

/// An initialiser that declares this and holds four bytes.
fn declared(shape: &[u64], kind: u64) -> Vec<u8> {
    let mut out: Vec<u8> = shape.iter().flat_map(|&size| number(1, size)).collect();
    out.extend([number(2, kind), message(8, b"model.0.a.weight"), message(9, &[0; 4])].concat());
    out
}

#[test]
fn numbers_are_read_however_they_are_written() {
    for numbers in [Numbers::Raw, Numbers::Half, Numbers::Packed, Numbers::OneByOne] {
        let found = read(&with(&[initialiser("model.0.a", &tensor(), numbers)])).unwrap();
        let wanted = tensor().to_vec2::<f32>().unwrap();
        assert_eq!(found.tensors["model.0.a"].to_vec2::<f32>().unwrap(), wanted);
        assert_eq!(found.labels.unwrap(), ["a", "b"]);
        assert_eq!(found.strides.unwrap(), [32.0]);
    }
}

#[test]
fn sizes_may_be_packed_and_other_constants_are_passed_over() {
    let packed = [message(1, &[2, 3]), number(2, 1), message(8, b"model.1.a"), message(9, &[0; 24])].concat();
    let other = [message(8, b"onnx::Split_1"), number(2, 7), message(9, &[0; 8])].concat();
    let split = [message(8, b"model.2.split"), number(2, 7), message(9, &[0; 16])].concat();
    let found = read(&with(&[packed, other, split])).unwrap();
    assert_eq!(found.tensors.len(), 1);
    assert_eq!(found.tensors["model.1.a"].dims(), [2, 3]);
}

#[test]
fn every_beginning_of_a_file_is_refused_or_misses_only_notes() {
    let whole = sample();
    let graph_ends = whole.windows(6).position(|w| w == b"stride").unwrap() - 6;
    for length in 0..whole.len() {
        let found = read(&whole[..length]);
        assert!(found.is_err() || length >= graph_ends, "{length} of {}", whole.len());
    }
}

#[test]
fn declared_sizes_reserve_nothing() {
    assert!(refused(declared(&[1 << 40, 1 << 40], 1)).contains("million"));
    assert!(refused(declared(&[u64::MAX], 1)).contains("million"));
    assert!(refused(declared(&[50 << 20], 1)).contains("4 bytes"));
    assert!(refused(declared(&[0], 1)).contains("[0]"));
    assert!(refused(declared(&[1; 9], 1)).contains("shape"));
    let small = |layer: usize| {
        [number(1, 1), number(2, 1), message(8, format!("model.{layer}").as_bytes()), message(9, &[0; 4])].concat()
    };
    let many: Vec<_> = (0..10_001).map(small).collect();
    assert!(read(&with(&many)).unwrap_err().to_string().contains("10000 tensors"));
    let sizes = [message(1, &[1; 1 << 16]), declared(&[], 1)].concat();
    assert!(refused(sizes).contains("shape"));
    let long = [vec![8, 7, 7 << 3 | 2], vec![0xff; 9], vec![1]].concat();
    assert!(matches!(read(&long), Err(OnnxError::Cut(_))));
}

#[test]
fn what_is_not_a_float_export_in_one_file_is_told() {
    assert!(refused(declared(&[4], 3)).contains("type 3"));
    assert!(refused([declared(&[1], 1), number(14, 1)].concat()).contains("another file"));
    assert!(matches!(read(&with(&[])), Err(OnnxError::Unnamed)));
    assert!(matches!(read(&number(1, 7)), Err(OnnxError::NoGraph)));
    let one = initialiser("model.0.a", &tensor(), Numbers::Raw);
    assert!(matches!(read(&with(&[one.clone(), one.clone()])), Err(OnnxError::Twice(_))));
    let nodes = |kind: &str| read(&onnx(std::slice::from_ref(&one), "", &[kind])).unwrap_err().to_string();
    assert!(nodes("LeakyRelu").contains("LeakyRelu"));
    assert!(nodes("QuantizeLinear").contains("quantised"));
    assert!(nodes("QLinearConv").contains("quantised"));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
        let _ = read(&message(7, &bytes));
        let _ = read(&message(7, &message(5, &bytes)));
    }

    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = sample();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read(&bytes);
    }
}
