//! Files as others would write them, made in bytes: zip archives, pickles of torch, ONNX.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::zip::checksum;

pub(super) type Tensors = BTreeMap<String, Tensor>;

/// An archive of uncompressed entries.
pub(super) fn zip(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let (size, offset) = ((content.len() as u32).to_le_bytes(), (out.len() as u32).to_le_bytes());
        let common: Vec<u8> = [
            [0u8; 8].as_slice(), // flags, method, time and date
            &checksum(content).to_le_bytes(),
            &size,
            &size,
            &(name.len() as u16).to_le_bytes(),
            &[0; 2],
        ]
        .concat();
        out.extend([b"PK\x03\x04\x14\x00".as_slice(), &common, name.as_bytes(), content].concat());
        directory
            .extend([b"PK\x01\x02\x14\x00\x14\x00".as_slice(), &common, &[0; 10], &offset, name.as_bytes()].concat());
    }
    let (count, at) = ((entries.len() as u16).to_le_bytes(), (out.len() as u32).to_le_bytes());
    let size = (directory.len() as u32).to_le_bytes();
    [
        out,
        directory,
        b"PK\x05\x06\0\0\0\0".to_vec(),
        count.to_vec(),
        count.to_vec(),
        size.to_vec(),
        at.to_vec(),
        vec![0; 2],
    ]
    .concat()
}

/// Opcodes, one after another.
pub(super) struct Pickler(pub(super) Vec<u8>);

impl Pickler {
    pub(super) fn new() -> Self {
        Self(b"\x80\x02".to_vec())
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    pub(super) fn int(&mut self, int: usize) -> &mut Self {
        self.raw(b"J").raw(&(int as i32).to_le_bytes())
    }

    pub(super) fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    fn ints(&mut self, ints: &[usize]) -> &mut Self {
        self.raw(b"(");
        for int in ints {
            self.int(*int);
        }
        self.raw(b"t")
    }

    fn ordered(&mut self) -> &mut Self {
        self.global("collections", "OrderedDict").raw(b")R")
    }
}

/// How a checkpoint differs from an ordinary one.
pub(super) struct Odd<'a> {
    pub(super) class: &'a str,
    pub(super) activation: &'a str,
    pub(super) eps: f64,
    pub(super) half: bool,
    /// Weights are stored with their first two dimensions exchanged, and say so by their strides.
    pub(super) transposed: bool,
    /// What a call to be made while unpickling would be.
    pub(super) call: Option<(&'a str, &'a str)>,
}

impl Default for Odd<'_> {
    fn default() -> Self {
        Self { class: "DetectionModel", activation: "SiLU", eps: 1e-3, half: false, transposed: false, call: None }
    }
}

/// A checkpoint of Ultralytics with these tensors and labels.
pub(super) fn checkpoint(tensors: &Tensors, labels: &[&str], odd: &Odd<'_>) -> Vec<u8> {
    let mut writer = Writer { pickle: Pickler::new(), storages: Vec::new(), odd };
    writer.pickle.raw(b"}q\x00(").text("epoch").raw(b"K\x05");
    if let Some((module, name)) = odd.call {
        writer.pickle.text("extra").global(module, name).text("touch /tmp/kadr-was-here").raw(b"\x85R");
    }
    writer.pickle.text("ema").raw(b"N").text("model");
    let parts = tensors.iter().map(|(name, tensor)| (name.split('.').collect::<Vec<_>>(), tensor)).collect();
    writer.module(parts, ("ultralytics.nn.tasks", odd.class), &mut |writer| {
        writer.pickle.text("stride");
        writer.tensor(&Tensor::new(&[8f32, 16.0, 32.0], &Device::Cpu).unwrap());
        writer.pickle.text("names").raw(b"}(");
        for (number, label) in labels.iter().enumerate() {
            writer.pickle.int(number).text(label);
        }
        writer.pickle.raw(b"u");
    });
    writer.pickle.raw(b"u.");
    let Writer { pickle, storages, .. } = writer;
    let mut entries = vec![("best/data.pkl".to_owned(), pickle.0), ("best/byteorder".to_owned(), b"little".to_vec())];
    entries.extend(storages.into_iter().enumerate().map(|(key, content)| (format!("best/data/{key}"), content)));
    zip(&entries.iter().map(|(name, content)| (name.as_str(), content.clone())).collect::<Vec<_>>())
}

struct Writer<'a> {
    pickle: Pickler,
    storages: Vec<Vec<u8>>,
    odd: &'a Odd<'a>,
}

impl Writer<'_> {
    fn module(&mut self, parts: Vec<(Vec<&str>, &Tensor)>, class: (&str, &str), more: &mut dyn FnMut(&mut Self)) {
        self.pickle.global(class.0, class.1).raw(b")\x81}(");
        let mut inner: BTreeMap<&str, Vec<(Vec<&str>, &Tensor)>> = BTreeMap::new();
        let mut own = [("_parameters", Vec::new()), ("_buffers", Vec::new())];
        for (mut path, tensor) in parts {
            let first = path.remove(0);
            match path.is_empty() {
                false => inner.entry(first).or_default().push((path, tensor)),
                true => own[usize::from(first.starts_with("running"))].1.push((first, tensor)),
            }
        }
        for (kind, tensors) in own {
            self.pickle.text(kind).ordered().raw(b"(");
            for (name, tensor) in tensors {
                self.pickle.text(name);
                self.tensor(tensor);
            }
            self.pickle.raw(b"u");
        }
        self.pickle.text("_modules").ordered().raw(b"(");
        let convolves = inner.contains_key("conv");
        for (name, parts) in inner {
            self.pickle.text(name);
            let eps = self.odd.eps;
            match name {
                "bn" => self.module(parts, ("torch.nn.modules.batchnorm", "BatchNorm2d"), &mut |writer| {
                    writer.pickle.text("eps").raw(b"G").raw(&eps.to_be_bytes());
                }),
                _ => self.module(parts, ("torch.nn.modules.container", "Sequential"), &mut |_| {}),
            }
        }
        if convolves {
            self.pickle.text("act");
            self.module(Vec::new(), ("torch.nn.modules.activation", self.odd.activation), &mut |_| {});
        }
        self.pickle.raw(b"u");
        more(self);
        self.pickle.raw(b"ub");
    }

    fn tensor(&mut self, tensor: &Tensor) {
        let shape = tensor.dims();
        let mut strides: Vec<usize> = (0..shape.len()).map(|at| shape[at + 1..].iter().product()).collect();
        let mut stored = tensor.clone();
        if self.odd.transposed && shape.len() == 4 {
            stored = tensor.transpose(0, 1).unwrap().contiguous().unwrap();
            let area = shape[2] * shape[3];
            (strides[0], strides[1]) = (area, shape[0] * area);
        }
        let (class, kind) = if self.odd.half { ("HalfStorage", DType::F16) } else { ("FloatStorage", DType::F32) };
        let (key, count) = (self.storages.len().to_string(), tensor.elem_count());
        self.pickle.global("torch._utils", "_rebuild_parameter").raw(b"(");
        self.pickle.global("torch._utils", "_rebuild_tensor_v2").raw(b"((").text("storage").global("torch", class);
        self.pickle
            .text(&key)
            .text("cuda:0")
            .int(count)
            .raw(b"tQK\x00")
            .ints(shape)
            .ints(&strides)
            .raw(b"\x89")
            .ordered();
        self.pickle.raw(b"tR\x88").ordered().raw(b"tR");
        self.storages.push(bytes(&stored, kind));
    }
}

fn bytes(tensor: &Tensor, kind: DType) -> Vec<u8> {
    let stored: Tensors = [("t".to_owned(), tensor.to_dtype(kind).unwrap())].into();
    let file = ::safetensors::serialize(&stored, None).unwrap();
    ::safetensors::SafeTensors::deserialize(&file).unwrap().tensor("t").unwrap().data().to_vec()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

pub(super) fn number(field: u64, number: u64) -> Vec<u8> {
    [varint(field << 3), varint(number)].concat()
}

pub(super) fn message(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

/// How the numbers of a tensor stand in ONNX.
#[derive(Clone, Copy)]
pub(super) enum Numbers {
    Raw,
    Half,
    Packed,
    OneByOne,
}

pub(super) fn initialiser(name: &str, tensor: &Tensor, numbers: Numbers) -> Vec<u8> {
    let kind = if matches!(numbers, Numbers::Half) { DType::F16 } else { DType::F32 };
    let content = bytes(tensor, kind);
    let mut out: Vec<u8> = tensor.dims().iter().flat_map(|&size| self::number(1, size as u64)).collect();
    out.extend(self::number(2, if kind == DType::F16 { 10 } else { 1 }));
    out.extend(message(8, name.as_bytes()));
    out.extend(match numbers {
        Numbers::Raw | Numbers::Half => message(9, &content),
        Numbers::Packed => message(4, &content),
        Numbers::OneByOne => {
            content.chunks_exact(4).flat_map(|four| [vec![4 << 3 | 5], four.to_vec()].concat()).collect()
        }
    });
    out
}

/// An export of Ultralytics with these initialisers; `nodes` are the kinds of its steps.
pub(super) fn onnx(initialisers: &[Vec<u8>], names: &str, nodes: &[&str]) -> Vec<u8> {
    let mut graph: Vec<u8> = nodes.iter().flat_map(|kind| message(1, &message(4, kind.as_bytes()))).collect();
    graph.extend(initialisers.iter().flat_map(|tensor| message(5, tensor)));
    let note =
        |key: &str, value: &str| message(14, &[message(1, key.as_bytes()), message(2, value.as_bytes())].concat());
    [number(1, 7), message(2, b"pytorch"), message(7, &graph), note("stride", "32"), note("names", names)].concat()
}

/// The same network with batch norm apart, under Ultralytics' names.
pub(super) fn unfolded(tensors: &Tensors) -> Tensors {
    let mut out = tensors.clone();
    for (name, tensor) in tensors {
        let Some(path) = name.strip_suffix(".conv.weight").filter(|path| !path.ends_with("dfl")) else { continue };
        let channels = tensor.dims()[0];
        let random = |from: f32, to: f32| Tensor::rand(from, to, channels, &Device::Cpu).unwrap();
        let (gamma, mean, variance) = (random(0.5, 1.5), random(-1.0, 1.0), random(0.5, 2.0));
        let factor = (&gamma / (&variance + 1e-3).unwrap().sqrt().unwrap()).unwrap();
        let bias = out.remove(&format!("{path}.conv.bias")).unwrap();
        let weight = tensor.broadcast_div(&factor.reshape((channels, 1, 1, 1)).unwrap()).unwrap();
        out.insert(name.clone(), weight);
        let beta = (bias + (&mean * &factor).unwrap()).unwrap();
        for (part, tensor) in [("weight", gamma), ("bias", beta), ("running_mean", mean), ("running_var", variance)] {
            out.insert(format!("{path}.bn.{part}"), tensor);
        }
    }
    out
}
