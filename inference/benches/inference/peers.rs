//! The peers, in a Python process that is driven turn by turn: so they and kadr share the machine's good and bad moments.
//!
//! ONNX files are made of kadr's own weights by a tool of the reference data; OpenVINO's int8 model lies there, for yolov8n
//! alone. The environment is made by `scripts/peers.sh`.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{figures, network::Network, picture::Picture};

const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/inference/peers.py");

/// What is needed to run any.
pub(crate) struct Peers {
    python: PathBuf,
    fixtures: PathBuf,
}

/// The peers that can compute a network for a picture.
pub(crate) struct Prepared<'a> {
    python: &'a Path,
    pub(crate) peers: Vec<Peer>,
}

pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) precision: &'static str,
    /// What each request for it holds.
    request: Value,
}

impl Peers {
    /// `None`, and a line that says why, if they can't be measured here.
    pub(crate) fn find() -> Option<Self> {
        let found = Self::at(Path::new(CHECKOUT));
        found.map_err(|why| figures::print(json!({ "peers": "left out", "why": why }))).ok()
    }

    fn at(checkout: &Path) -> Result<Self, String> {
        let fixtures = std::env::var_os("KADR_FIXTURES").ok_or("KADR_FIXTURES, the reference data, is not set")?;
        let python = checkout.join(".kadr/peers/bin/python");
        let peers = Self { python, fixtures: fixtures.into() };
        for needed in [&peers.python, &peers.exporter()] {
            if !needed.exists() {
                return Err(format!("{} is not there", needed.display()));
            }
        }
        Ok(peers)
    }

    fn exporter(&self) -> PathBuf {
        self.fixtures.join("tools/export_onnx.py")
    }

    pub(crate) fn prepare(&self, network: &Network, picture: &Picture, folder: &Path) -> Prepared<'_> {
        let (name, input) = (network.name, picture.input);
        let weights = folder.join(format!("{name}.safetensors"));
        network.write(&weights);
        let onnx = folder.join(format!("{name}-{input}.onnx"));
        let mut export = Command::new(&self.python);
        export.arg(self.exporter()).args([&weights, &onnx]);
        export.args([input.height().to_string(), input.width().to_string()]);
        assert!(export.status().expect("Python runs").success(), "{export:?}");
        let int8 = self.fixtures.join(format!("models/openvino-int8/{name}.xml"));

        let peer = |name, precision, model: &Path| {
            let request = json!({
                "peer": name, "precision": precision, "model": model, "picture": picture.file,
                "width": input.width(), "height": input.height(),
            });
            Peer { name, precision, request }
        };
        let mut peers =
            vec![peer("onnxruntime", "f32", &onnx), peer("openvino", "f32", &onnx), peer("openvino", "bf16", &onnx)];
        peers.extend(int8.exists().then(|| peer("openvino", "int8", &int8)));
        Prepared { python: &self.python, peers }
    }
}

impl Prepared<'_> {
    /// A process with nothing loaded.
    pub(crate) fn start(&self) -> Process {
        let mut command = Command::new(self.python);
        let mut child = command.arg(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python runs");
        let (requests, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Process { child, requests, answers }
    }
}

pub(crate) struct Process {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    /// Milliseconds of each pass; `None`, and a line that says why, if this peer can't do it.
    pub(crate) fn times(&mut self, peer: &Peer, threads: usize, passes: usize) -> Option<Vec<f64>> {
        let answer = self.ask(peer, json!({ "threads": threads, "passes": passes }))?;
        Some(answer["times_ms"].as_array()?.iter().filter_map(Value::as_f64).collect())
    }

    /// Of all workers together, each pass after pass until the time is up.
    pub(crate) fn frames_a_second(&mut self, peer: &Peer, workers: usize, time: Duration) -> Option<f64> {
        let answer = self.ask(peer, json!({ "workers": workers, "seconds": time.as_secs_f64() }))?;
        Some(answer["passes"].as_f64()? / answer["seconds"].as_f64()?)
    }

    /// The numbers that come out.
    pub(crate) fn output(&mut self, peer: &Peer, file: &Path) -> Option<Vec<f32>> {
        self.ask(peer, json!({ "output": file }))?;
        let bytes = std::fs::read(file).expect("what the peers' process wrote");
        Some(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect())
    }

    fn ask(&mut self, peer: &Peer, more: Value) -> Option<Value> {
        let mut request = peer.request.clone();
        request.as_object_mut()?.extend(more.as_object()?.clone());
        writeln!(self.requests, "{request}").expect("the peers' process takes requests");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the peers' process answers");
        let answer: Value = serde_json::from_str(&line).expect("the peers' process answers in JSON");
        if let Some(why) = answer.get("error") {
            figures::print(json!({ "peer": peer.name, "precision": peer.precision, "error": why }));
            return None;
        }
        Some(answer)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
