//! Cameras: GStreamer's RTSP server plays clips, and peers that are no cameras answer what they like.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers: what fails here fails the test"
)]

mod hostile;
mod onvif;
mod oxvif;
mod peer;
mod playing;
mod scripted;
mod secured;

use std::time::Duration;

use kadr_runner::source::{Access, Deadlines, Frame, RtspSource, Source, SourceError};
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

    fn open(&self, access: &Access) -> Result<RtspSource, SourceError> {
        RtspSource::open(access, self.runtime.handle().clone(), self.stop.clone())
    }

    /// The words of a refusal.
    fn refusal(&self, access: &Access) -> String {
        match self.open(access) {
            Ok(_) => panic!("a refusal is wanted"),
            Err(error) => error.to_string(),
        }
    }
}

fn access(url: &str) -> Access {
    Access::new(url.parse().unwrap())
}

fn impatient(url: &str) -> Access {
    let [answer, first_frame, idle] = [Duration::from_millis(300); 3];
    Access { deadlines: Deadlines { answer, first_frame, idle, ..Deadlines::default() }, ..access(url) }
}

fn frames(source: &mut RtspSource, count: usize) -> Vec<Frame> {
    (0..count).map(|_| source.next_frame().unwrap().unwrap()).collect()
}
