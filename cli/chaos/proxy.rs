//! A TCP proxy between one service and one NATS node, that can cut, delay and hold up what passes.
//!
//! It knows nothing of NATS. What is cut is closed and refused; what is stalled stays open and nothing passes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Open,
    Cut,
    Stall,
    Delay(Duration),
}

impl Mode {
    /// Whether anything comes through, if only late.
    pub const fn passes(self) -> bool {
        matches!(self, Self::Open | Self::Delay(_))
    }
}

/// What is read at once, and how many such pieces may be on their way in one direction.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 64;
const CONNECT: Duration = Duration::from_secs(2);

pub struct Proxy {
    pub port: u16,
    mode: watch::Sender<Mode>,
    open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 for a server on another.
    pub async fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("can't listen on 127.0.0.1")?;
        let port = listener.local_addr()?.port();
        let (mode, seen) = watch::channel(Mode::Open);
        let open = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(listener, target, seen, open.clone()));
        Ok(Self { port, mode, open, task })
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: u16, mode: watch::Receiver<Mode>, open: Arc<AtomicUsize>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((client, _)) = accepted else { continue };
        if *mode.borrow() == Mode::Cut {
            continue;
        }
        let (mode, open) = (mode.clone(), open.clone());
        connections.spawn(async move {
            open.fetch_add(1, Ordering::Relaxed);
            // Its end is seen by both sides; there is nobody else to tell.
            let _ = join(client, target, mode).await;
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn join(client: TcpStream, target: u16, mode: watch::Receiver<Mode>) -> io::Result<()> {
    let server = timeout(CONNECT, TcpStream::connect(("127.0.0.1", target))).await??;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut cut = mode.clone();
    tokio::select! {
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => Ok(()),
        done = pump(from_client, to_server, mode.clone()) => done,
        done = pump(from_server, to_client, mode) => done,
    }
}

/// Passes on in order, each piece as late as the delay was when it came.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: watch::Receiver<Mode>) -> io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let mut seen = mode.clone();
    let read = async move {
        let mut buffer = vec![0; PIECE];
        loop {
            let mode = passing(&mut seen).await;
            let length = from.read(&mut buffer).await?;
            let Some(piece) = buffer.get(..length).filter(|piece| !piece.is_empty()) else { return Ok(()) };
            let delay = if let Mode::Delay(delay) = mode { delay } else { Duration::ZERO };
            if sender.send((Instant::now() + delay, piece.to_vec())).await.is_err() {
                return Ok(());
            }
        }
    };
    let mut seen = mode;
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            passing(&mut seen).await;
            to.write_all(&piece).await?;
        }
        Ok(())
    };
    // Reading ends first; what was read is still written.
    let (read, written): (io::Result<()>, io::Result<()>) = tokio::join!(read, write);
    read.and(written)
}

/// Waits while nothing passes.
async fn passing(mode: &mut watch::Receiver<Mode>) -> Mode {
    let found = mode.wait_for(|mode| mode.passes()).await.map(|mode| *mode);
    match found {
        Ok(mode) => mode,
        // The proxy is gone, and this task with it.
        Err(_) => std::future::pending().await,
    }
}
