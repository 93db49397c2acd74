//! What a user would write instead: decoding, drawing and encoding by OpenCV, the network by ONNX Runtime or OpenVINO.
//!
//! A tool of the reference data does it and takes its own time; another one writes kadr's weights as ONNX, for the input size
//! that kadr chooses. The Python environment is made by `scripts/peers.sh`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kadr_inference::fast::Precision;
use kadr_shared::catalog::Naming;
use serde_json::Value;

use crate::{CHECKOUT, MODEL, Task, figures::Run};

pub(crate) struct Peers<'a> {
    task: &'a Task,
    python: PathBuf,
    tool: PathBuf,
    onnx: PathBuf,
    folder: PathBuf,
}

impl<'a> Peers<'a> {
    /// The error says why there are none.
    pub(crate) fn prepare(task: &'a Task, folder: &Path) -> Result<Self, String> {
        let fixtures = task.fixtures.as_ref().ok_or("KADR_FIXTURES, the reference data, is not set")?;
        let python = Path::new(CHECKOUT).join(".kadr/peers/bin/python");
        let [tool, exporter] = ["bench_pipeline.py", "export_onnx.py"].map(|tool| fixtures.join("tools").join(tool));
        for needed in [&python, &tool, &exporter] {
            if !needed.exists() {
                return Err(format!("{} is not there", needed.display()));
            }
        }
        if task.weights.file.naming != Naming::Ultralytics {
            return Err(format!("{} does not name its tensors as the exporter does", task.weights.path.display()));
        }
        let peers = Self { task, python, tool, onnx: folder.join("network.onnx"), folder: folder.to_owned() };
        let modules = peers.command(Path::new("-c")).arg("import cv2, onnx, onnxruntime, openvino").output();
        if !modules.is_ok_and(|modules| modules.status.success()) {
            return Err(format!("{} lacks modules: run scripts/peers.sh", peers.python.display()));
        }
        let mut export = peers.command(&exporter);
        export.args([&task.weights.path, &peers.onnx]);
        export.args([task.input.height().to_string(), task.input.width().to_string()]);
        assert!(export.status().expect("Python starts").success(), "{MODEL} can't be exported: {export:?}");
        Ok(peers)
    }

    /// All of them, one after the other.
    pub(crate) fn run(&self) -> Vec<(String, Precision, Run)> {
        let mut command = self.command(&self.tool);
        command.arg(&self.onnx).arg(&self.task.clip).arg(self.task.threads.to_string());
        let output = command.stderr(Stdio::inherit()).output().expect("Python starts");
        assert!(output.status.success(), "{command:?}: {}", output.status);
        let run = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            let run = Run {
                frames: line["frames"].as_u64().unwrap(),
                seconds: line["seconds"].as_f64().unwrap(),
                whole: None,
            };
            // Its first frame is left out.
            assert_eq!(run.frames + 1, self.task.frames, "every frame is analysed");
            (line["peer"].as_str().unwrap().to_owned(), Precision::F32, run)
        };
        String::from_utf8(output.stdout).expect("text").lines().map(run).collect()
    }

    /// The videos that the tool leaves behind go with the folder; beside itself it leaves nothing.
    fn command(&self, script: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(script).env("TMPDIR", &self.folder).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}
