use std::io::Cursor;

use candle_core::{DType, Device};
use kadr_shared::catalog::Catalog;
use proptest::prelude::*;

use super::{
    samples::{self, Numbers, Odd, Pickler, Tensors},
    *,
};
use crate::{
    model::{Parameters, Reference},
    testkit,
    weights::{Store, parameters},
};

const LABELS: [&str; 3] = ["person", "it's \"odd\"", "машина"];

fn inspected(bytes: &[u8]) -> Result<Network, ImportError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    inspect(&path)
}

/// An error with all that led to it.
fn refused(bytes: &[u8]) -> String {
    let error = inspected(bytes).unwrap_err();
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    let mut text = String::new();
    while let Some(error) = source {
        text += &format!("{error}: ");
        source = error.source();
    }
    text
}

fn answer(plan: &Plan, parameters: &Parameters) -> [Tensor; 2] {
    let picture = Picture::made_up().unwrap();
    let picture = Tensor::from_vec(picture.planes, (1, 3, 192, 320), &Device::Cpu).unwrap();
    let found = Reference::load(plan, parameters, &Device::Cpu).unwrap().forward(&picture).unwrap();
    [found.boxes, found.scores]
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
}

fn onnx(tensors: &Tensors, numbers: Numbers) -> Vec<u8> {
    let initialisers: Vec<_> = tensors.iter().map(|(name, t)| samples::initialiser(name, t, numbers)).collect();
    samples::onnx(&initialisers, "{0: 'person', 1: 'it\\'s \"odd\"', 2: 'машина'}", &["Conv", "Sigmoid"])
}

fn safetensors(tensors: &Tensors) -> Vec<u8> {
    ::safetensors::serialize(tensors, None).unwrap()
}

#[test]
fn every_format_of_one_network_gives_the_same_candidates() {
    let tensors = testkit::tiny_tensors(7);
    let apart = samples::unfolded(&tensors);
    let half: Tensors = tensors.iter().map(|(n, t)| (n.clone(), t.to_dtype(DType::F16).unwrap())).collect();
    let mut left_out = tensors.clone();
    left_out.remove("model.22.dfl.conv.weight");
    let twice = apart.iter().map(|(name, t)| (format!("model.{name}"), t.clone())).collect();
    let files = [
        (Format::Checkpoint, 1, samples::checkpoint(&apart, &LABELS, &Odd::default())),
        (Format::Checkpoint, 1, samples::checkpoint(&tensors, &LABELS, &Odd { transposed: true, ..Odd::default() })),
        (Format::Checkpoint, 100, samples::checkpoint(&tensors, &LABELS, &Odd { half: true, ..Odd::default() })),
        (Format::Onnx, 1, onnx(&tensors, Numbers::Raw)),
        (Format::Onnx, 1, onnx(&left_out, Numbers::Packed)),
        (Format::Onnx, 100, onnx(&tensors, Numbers::Half)),
        (Format::Safetensors, 1, safetensors(&tensors)),
        (Format::Safetensors, 1, safetensors(&apart)),
        (Format::Safetensors, 1, safetensors(&twice)),
        (Format::Safetensors, 100, safetensors(&half)),
    ];
    let plan = Plan::new(testkit::SCALE, 3);
    let wanted = answer(&plan, &tensors.clone().into_iter().collect());
    let folder = tempfile::tempdir().unwrap();
    for (number, (format, coarse, bytes)) in files.into_iter().enumerate() {
        let network = inspected(&bytes).unwrap();
        assert_eq!((network.format, network.classes, &network.plan), (format, 3, &plan), "{number}");
        match format {
            Format::Safetensors => assert_eq!(network.labels, None),
            _ => assert_eq!(network.labels.as_deref().unwrap(), LABELS),
        }
        let agreement = verify(&network, &Picture::made_up().unwrap()).unwrap();
        assert!(!agreement.detections.is_empty(), "{number}");

        // As it is found by those who serve it.
        let name: kadr_shared::id::ModelName = format!("m{number}").parse().unwrap();
        let labels: Vec<String> = LABELS.map(String::from).into();
        install(&network, name.clone(), labels.clone(), "CC0-1.0".into(), folder.path()).unwrap();
        let catalog = Catalog::find(&[folder.path()]).unwrap();
        let model = catalog.model(&name).unwrap();
        assert_eq!(model.labels, labels);
        let weights = Store::new([folder.path()]).locate(model).unwrap();
        let found = answer(&Plan::new(model.scale, 3), &parameters(&weights).unwrap());
        let offs = [worst(&found[0], &wanted[0]), worst(&found[1], &wanted[1])];
        let limit = coarse as f32;
        assert!(offs[0] < 1e-2 * limit && offs[1] < 1e-4 * limit, "file {number} ({format}): {offs:?}");
    }
    assert!(Catalog::find(&[folder.path()]).unwrap().model(&"yolov8n".parse().unwrap()).is_ok());
}

#[test]
fn a_name_is_given_once_and_a_file_is_not_overwritten() {
    let network = inspected(&safetensors(&testkit::tiny_tensors(7))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, labels: &[&str]| {
        let labels = labels.iter().map(|&l| l.to_owned()).collect();
        install(&network, name.parse().unwrap(), labels, "MIT".into(), folder.path())
    };
    let mine = folder.path().join("b.safetensors");
    std::fs::write(&mine, "mine").unwrap();
    write("a", &["x", "y", "z"]).unwrap();
    let manifest = std::fs::read_to_string(folder.path().join("manifest.toml")).unwrap();
    assert!(matches!(write("a", &["x", "y", "z"]), Err(InstallError::There { .. })));
    assert!(matches!(write("b", &["x", "y", "z"]), Err(InstallError::There { .. })));
    assert!(matches!(write("c", &["x", "y"]), Err(InstallError::Labels(_))));
    std::fs::remove_file(folder.path().join("a.safetensors")).unwrap();
    assert!(matches!(write("a", &["x", "y", "z"]), Err(InstallError::Entry { .. })));
    let held = std::fs::File::open(folder.path()).unwrap();
    held.try_lock().unwrap();
    assert!(matches!(write("d", &["x", "y", "z"]), Err(InstallError::Busy { .. })));
    assert_eq!(std::fs::read_to_string(mine).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(folder.path().join("manifest.toml")).unwrap(), manifest);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside");
}

#[test]
fn what_a_checkpoint_wants_executed_is_not() {
    let odd = Odd { call: Some(("os", "system")), ..Odd::default() };
    let network = inspected(&samples::checkpoint(&testkit::tiny_tensors(7), &LABELS, &odd)).unwrap();
    assert_eq!(network.classes, 3);
    assert!(!Path::new("/tmp/kadr-was-here").exists());
    // Where a tensor is wanted, only torch's own way of making one is understood.
    let module = Pickler::new()
        .raw(b"}(")
        .text("model.0.conv.weight")
        .global("os", "system")
        .text("ls")
        .raw(b"\x85Ru.")
        .0
        .clone();
    let error = refused(&samples::zip(&[("a/data.pkl", module)]));
    assert!(error.contains("model.0.conv.weight") && error.contains("not pickled as torch"), "{error}");
}

#[test]
fn other_checkpoints_are_refused_by_what_they_are() {
    let tensors = testkit::tiny_tensors(7);
    let odd = |odd: Odd<'_>| refused(&samples::checkpoint(&samples::unfolded(&tensors), &LABELS, &odd));
    let error = odd(Odd { class: "SegmentationModel", ..Odd::default() });
    assert!(error.contains("SegmentationModel"), "{error}");
    let error = odd(Odd { activation: "ReLU", ..Odd::default() });
    assert!(error.contains("ReLU") && error.contains("SiLU"), "{error}");
    let error = odd(Odd { eps: 1e-5, ..Odd::default() });
    assert!(error.contains("bn") && error.contains("0.00001"), "{error}");
    let zip = |name: &str, content: &[u8]| refused(&samples::zip(&[(name, content.to_vec())]));
    assert!(zip("word/document.xml", b"<x/>").contains("no checkpoint of torch"));
    assert!(zip("a/data.pkl", b"\x80\x02N.").contains("holds no model"));
    assert!(zip("a/data.pkl", b"\x80\x02}.").contains("holds no model"));
    let script = samples::zip(&[("a/data.pkl", b"\x80\x02}.".to_vec()), ("a/constants.pkl", Vec::new())]);
    assert!(refused(&script).contains("TorchScript"));
    let big = samples::zip(&[("a/data.pkl", b"\x80\x02}.".to_vec()), ("a/byteorder", b"big".to_vec())]);
    assert!(refused(&big).contains("big-endian"));
    assert!(refused(b"\x80\x02\x8a\nl\xfc").contains("1.6"));
    for unknown in [b"".as_slice(), b"P", b"GIF89a", b"<html>", &[0; 64]] {
        assert!(refused(unknown).contains("none of the files"), "{unknown:?}");
    }
    assert!(matches!(inspect(Path::new("/nowhere/at/all")), Err(ImportError::Read { .. })));
    assert!(inspect(&std::env::temp_dir()).is_err());
}

/// A state dict of one tensor that says this of itself, over a storage of 8 numbers.
fn one_tensor(offset: usize, shape: &[usize], strides: &[usize], count: usize) -> Vec<u8> {
    let mut pickle = Pickler::new();
    pickle.raw(b"}(").text("model.0.conv.weight").global("torch._utils", "_rebuild_tensor_v2").raw(b"((");
    pickle.text("storage").global("torch", "FloatStorage").text("0").text("cpu").int(count).raw(b"tQ").int(offset);
    for sizes in [shape, strides] {
        pickle.raw(b"(");
        for &size in sizes {
            pickle.int(size);
        }
        pickle.raw(b"t");
    }
    pickle.raw(b"\x89NtRu.");
    samples::zip(&[("a/data.pkl", pickle.0), ("a/data/0", vec![0; 32])])
}

#[test]
fn a_tensor_must_lie_in_its_storage() {
    let huge = i32::MAX as usize;
    // In order: it is read, but is no network.
    assert!(refused(&one_tensor(0, &[2, 4], &[4, 1], 8)).contains("no names such as"));
    for (bytes, word) in [
        (one_tensor(1, &[2, 4], &[4, 1], 8), "beyond its storage"),
        (one_tensor(0, &[2, 4], &[5, 1], 8), "beyond its storage"),
        (one_tensor(huge, &[1], &[1], 8), "beyond its storage"),
        (one_tensor(0, &[0], &[1], 8), "beyond its storage"),
        (one_tensor(0, &[8], &[1], 9), "beyond its storage"),
        (one_tensor(0, &[8], &[1], huge), "million"),
        (one_tensor(0, &[huge], &[1], 8), "million"),
        (one_tensor(0, &[huge; 8], &[huge; 8], 8), "million"),
        // A thousand million numbers out of one.
        (one_tensor(0, &[1_000_000_000], &[0], 8), "million"),
        (one_tensor(0, &[1; 9], &[1; 9], 8), "not pickled as torch"),
        (one_tensor(0, &[2], &[1, 1], 8), "not pickled as torch"),
    ] {
        let error = refused(&bytes);
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_walk_through_circles_and_crowds_ends() {
    // A module that is its own child.
    let circle = Pickler::new()
        .global("a", "b")
        .raw(b")\x81q\x00}(")
        .text("_modules")
        .raw(b"}")
        .text("x")
        .raw(b"h\x00sub.")
        .0
        .clone();
    assert!(refused(&samples::zip(&[("a/data.pkl", circle)])).contains("deep"));
    // Modules that each hold the one before ten times.
    let mut crowd = Pickler::new();
    crowd.global("a", "b").raw(b")\x81}").text("_modules").raw(b"}sbq\x00");
    for _ in 0..20 {
        crowd.global("a", "b").raw(b")\x81}").text("_modules").raw(b"}(");
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
            crowd.text(name).raw(b"h\x00");
        }
        crowd.raw(b"usbq\x00");
    }
    crowd.raw(b".");
    assert!(refused(&samples::zip(&[("a/data.pkl", crowd.0)])).contains("more than"));
    let long = Pickler::new().raw(b"}").text(&"x".repeat(1000)).raw(b"Ns.").0.clone();
    assert!(refused(&samples::zip(&[("a/data.pkl", long)])).contains("no proper name"));
}

#[test]
fn files_cut_short_anywhere_are_refused() {
    let tensors = testkit::tiny_tensors(7);
    for whole in
        [samples::checkpoint(&tensors, &LABELS, &Odd::default()), onnx(&tensors, Numbers::Raw), safetensors(&tensors)]
    {
        // All beginnings of small files are tried beside their readers; here every part of a whole network's is hit.
        for part in 0..64 {
            // The notes at the end of an ONNX may be missing.
            let length = (whole.len() - 200) * part / 63;
            assert!(inspected(&whole[..length]).is_err(), "{length} of {}", whole.len());
        }
    }
}

#[test]
fn damaged_safetensors_are_refused() {
    let header = |text: &str| [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes(), &[0; 16]].concat();
    for (bytes, word) in [
        ([u64::MAX.to_le_bytes().as_slice(), b"{}"].concat(), "its header has"),
        ((4u64 << 20).to_le_bytes().into_iter().chain(*b"{}").collect(), "damaged"),
        (header(r#"{"model.0.a":{"dtype":"F32","shape":[4000000000,4000000000],"data_offsets":[0,16]}}"#), "damaged"),
        (header(r#"{"model.0.a":{"dtype":"F32","shape":[4],"data_offsets":[0,17]}}"#), "damaged"),
        (header(r#"{"model.0.a":{"dtype":"I32","shape":[4],"data_offsets":[0,16]}}"#), "I32"),
        (header(r#"{"model.0.a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#), "no names such as"),
    ] {
        let error = refused(&bytes);
        assert!(error.contains(word), "{error}");
    }
}

proptest! {
    #[test]
    fn changed_checkpoints_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let tensors: Tensors = [("model.0.conv.weight".to_owned(), Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap())].into();
        let mut bytes = samples::checkpoint(&tensors, &["a"], &Odd::default());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = checkpoint::read(Cursor::new(bytes));
    }

    /// The pickle is what hostile files are made of: its checksum is right again.
    #[test]
    fn changed_pickles_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let whole = one_tensor(0, &[2, 4], &[4, 1], 8);
        let mut pickle = zip::Zip::open(Cursor::new(whole)).unwrap().read("a/data.pkl", 1 << 20).unwrap();
        for (at, byte) in changes {
            let at = at.index(pickle.len());
            pickle[at] = byte;
        }
        let _ = checkpoint::read(Cursor::new(samples::zip(&[("a/data.pkl", pickle), ("a/data/0", vec![0; 32])])));
    }
}
