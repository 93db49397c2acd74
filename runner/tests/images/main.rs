//! Cameras that send images one by one over HTTP: a server written here, ffmpeg as one that nobody here wrote, and peers that
//! are no cameras.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers: what fails here fails the test"
)]

mod hostile;
mod passwords;
mod peer;
mod playing;

use std::time::Duration;

use kadr_runner::source::{Access, Deadlines, Frame, ImageStream, Source, SourceError};
use kadr_shared::telemetry::chain;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// What a source needs around it.
struct Ground {
    runtime: Runtime,
    stop: CancellationToken,
}

impl Ground {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, stop: CancellationToken::new() }
    }

    fn open(&self, access: &Access) -> Result<ImageStream, SourceError> {
        ImageStream::http(access, self.runtime.handle().clone(), self.stop.clone())
    }

    /// The words of a refusal.
    fn refusal(&self, access: &Access) -> String {
        match self.open(access) {
            Ok(_) => panic!("a refusal is wanted"),
            Err(error) => chain(&error),
        }
    }
}

fn access(url: &str) -> Access {
    Access::new(url.parse().unwrap())
}

fn impatient(url: &str) -> Access {
    let [answer, first_frame, idle] = [Duration::from_millis(400); 3];
    Access { deadlines: Deadlines { answer, first_frame, idle, ..Deadlines::default() }, ..access(url) }
}

/// What ends it, whatever comes before.
fn end(source: &mut ImageStream) -> String {
    loop {
        if let Err(error) = source.next_frame() {
            return error.to_string();
        }
    }
}

fn frames(source: &mut ImageStream, count: usize) -> Vec<Frame> {
    (0..count).map(|_| source.next_frame().unwrap().unwrap()).collect()
}
