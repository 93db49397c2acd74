//! A real camera, as far as a test can have one: GStreamer's RTSP server, which plays a clip (the reference data's
//! `tools/rtsp_server.py`).

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::free_ports;

/// Ends with it.
pub struct TestCamera {
    process: Child,
    port: u16,
    /// Where the camera keeps the copies that it makes of the clip: it does not clean up when it is killed.
    _scratch: TempDir,
}

impl TestCamera {
    /// Plays a clip over and over, as long as `repeat` copies of it last, to those who know the password if there is one.
    /// On `port`, or a free one. Blocks until it listens.
    ///
    /// # Panics
    /// If it can't be started: a test can't go on without.
    #[expect(clippy::expect_used, reason = "a test's set-up: it must fail loudly")]
    pub fn start(clip: &Path, repeat: u32, port: Option<u16>, password: Option<(&str, &str)>) -> Self {
        let port = port.unwrap_or_else(|| free_ports(1)[0]);
        let tools = std::env::var_os("KADR_FIXTURES").expect("KADR_FIXTURES is set when a camera is wanted");
        let scratch = TempDir::new().expect("a folder for what the camera writes");
        let mut command = Command::new("/usr/bin/python3");
        command.env("TMPDIR", scratch.path());
        command.arg(Path::new(&tools).join("tools/rtsp_server.py")).arg(clip);
        command.args(["--port", &port.to_string(), "--repeat", &repeat.to_string()]);
        if let Some((user, password)) = password {
            command.args(["--user", user, "--password", password]);
        }
        let mut process = command.stdout(Stdio::piped()).spawn().expect("python3 is installed");
        let mut line = String::new();
        let output = process.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("the camera's first line");
        let needed =
            "gir1.2-gst-rtsp-server-1.0, python3-gi and GStreamer's plugins are installed (scripts/deps.sh ci)";
        assert!(line.starts_with("rtsp://"), "{needed}");
        Self { process, port, _scratch: scratch }
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}/cam", self.port)
    }
}

impl Drop for TestCamera {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
