//! For tests only (feature `testkit`): real nats-servers, a real PostgreSQL, real cameras, and waiting for conditions.

mod camera;
#[cfg(feature = "onvif")]
mod device;
mod postgres;

use std::{future::Future, time::Duration};

use tempfile::TempDir;

use crate::{id::RunId, nats::Nats, server::Server, streams};

pub use camera::TestCamera;
#[cfg(feature = "onvif")]
pub use device::{DeviceLike, TestDevice};
pub use postgres::TestPostgres;

/// What a test waits for must be so within this time. Generous: machines are shared, a whole run may be waited for, and
/// only a test that fails takes so long.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a condition that nothing announces.
const LOOK: Duration = Duration::from_millis(25);

/// A real nats-server with its data in a folder of its own; both end with it.
pub struct TestServer {
    server: Server,
    // Declared after the server: dropped after it.
    folder: TempDir,
}

impl TestServer {
    /// Starts one on a free port from `nats/single.conf`.
    ///
    /// # Panics
    /// If it can't be started: a test can't go on without.
    #[expect(clippy::expect_used, reason = "a test's set-up: it must fail loudly")]
    pub async fn start() -> Self {
        let folder = TempDir::with_prefix("kadr-nats-").expect("a temporary folder");
        let server = Server::start(folder.path(), 0).await.expect("a nats-server 2.14 or newer on PATH (`make setup`)");
        Self { server, folder }
    }

    pub fn url(&self) -> &str {
        self.server.url()
    }

    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A connection, with all streams made.
    ///
    /// # Panics
    /// If the server does not answer.
    #[expect(clippy::expect_used, reason = "a test's set-up: it must fail loudly")]
    pub async fn nats(&self) -> Nats {
        let nats = Nats::connect(self.url(), "test").await.expect("the test's server answers");
        streams::ensure(&nats).await.expect("streams can be made");
        nats
    }
}

/// Ports that nobody has now, all held until all are found. They lie below those that the system gives to whoever asks for
/// any (on Linux from 32768): nobody takes one before its server does, or while that one is being started again.
///
/// # Panics
/// If there are none.
#[expect(clippy::expect_used, reason = "a test's set-up: it must fail loudly")]
pub fn free_ports(count: usize) -> Vec<u16> {
    use std::net::{Ipv4Addr, TcpListener};
    const RANGE: std::ops::Range<u32> = 12_000..32_000;
    // Tests of one machine begin at different places.
    let begin = RunId::generate().to_string().bytes().fold(0_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    let size = RANGE.end - RANGE.start;
    let candidates = (0..size).filter_map(|n| u16::try_from(RANGE.start + (begin % size + n) % size).ok());
    let held = candidates.filter_map(|port| Some((TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?, port)));
    let held: Vec<_> = held.take(count).collect();
    (held.len() == count).then_some(()).expect("free ports");
    held.into_iter().map(|(_, port)| port).collect()
}

/// Waits until `look` gives something.
///
/// # Panics
/// If it does not within [`PATIENCE`]; `what` says what was waited for.
#[expect(clippy::panic, reason = "a test that waited in vain has failed")]
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        if tokio::time::Instant::now() >= deadline {
            panic!("waited {} s in vain: {what}", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}
