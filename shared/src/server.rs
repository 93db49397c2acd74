//! A nats-server of one's own: started from `nats/single.conf`, its data in a folder, stopped with its owner.
//!
//! It ends with its owner even if that one is killed: a shell in between ends it when the pipe to it breaks.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    process::{Child, ChildStdin, Command},
    time::{Instant, timeout},
};
use tracing::warn;

use crate::nats::{OLDEST_SERVER, new_enough};

/// The configuration that the binary carries.
const CONFIG: &str = include_str!("../../nats/single.conf");

const READY_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at whether the server has written its ports file.
const LOOK: Duration = Duration::from_millis(20);

/// `"$@"` is the server. It runs until it ends by itself or standard input does, whichever is first.
/// A hang-up comes to all of an orphaned group if one of it is suspended: the keeper must outlive it.
const KEEPER: &str = r#"trap '' HUP
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
{ cat <&3 >/dev/null; kill "$server" 2>/dev/null; } &
keeper=$!
exec 3<&-
wait "$server"
code=$?
kill "$keeper" 2>/dev/null
exit "$code""#;

/// Why there is no server of our own.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("there is no nats-server on PATH: run `make setup`, install nats-server {}.{} or newer, or name a running one by --nats", OLDEST_SERVER.0, OLDEST_SERVER.1)]
    Missing,
    #[error("{path} is {found}; kadr needs nats-server {}.{} or newer: run `make setup`, or install a newer one", OLDEST_SERVER.0, OLDEST_SERVER.1)]
    TooOld { path: PathBuf, found: String },
    #[error("can't use the folder {path} for the NATS server's data")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("can't start {path}")]
    Start { path: PathBuf, source: std::io::Error },
    #[error("the NATS server ended at once: {reason} (its log: {log})")]
    Ended { reason: String, log: PathBuf },
    #[error("the NATS server was not ready within {} s (its log: {log})", READY_TIMEOUT.as_secs())]
    NotReady { log: PathBuf },
    #[error(
        "another NATS server uses the data folder {folder} (process {pid}): stop that one first, or give another --data"
    )]
    Busy { folder: PathBuf, pid: u32 },
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    keeper: Child,
    /// The keeper ends the server when this is closed. Held apart: waiting for a child closes its own.
    line: Option<ChildStdin>,
    url: String,
    pid: u32,
}

#[derive(Deserialize)]
struct PortsFile {
    nats: Vec<String>,
}

impl Server {
    /// Starts one on 127.0.0.1 with its data in `folder`; `port` 0 takes a free one.
    pub async fn start(folder: &Path, port: u16) -> Result<Self, ServerError> {
        let binary = find().await?;
        let in_folder = |source| ServerError::Folder { path: folder.to_owned(), source };
        tokio::fs::create_dir_all(folder).await.map_err(in_folder)?;
        let folder = tokio::fs::canonicalize(folder).await.map_err(in_folder)?;
        let pid_file = folder.join("nats-server.pid");
        if let Some(pid) = living(&pid_file, &folder).await {
            return Err(ServerError::Busy { folder, pid });
        }
        let config = folder.join("nats-server.conf");
        let log = folder.join("nats-server.log");
        tokio::fs::write(&config, CONFIG).await.map_err(in_folder)?;
        // What an earlier server left would be taken for this one's.
        for stale in ports_files(&folder).await.into_iter().chain([log.clone()]) {
            match tokio::fs::remove_file(stale).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(in_folder(e)),
                _ => {}
            }
        }
        let port = if port == 0 { "-1".to_owned() } else { port.to_string() };
        let mut command = Command::new("sh");
        command
            .args(["-c", KEEPER, "kadr-nats"])
            .arg(&binary)
            .arg("-c")
            .arg(&config)
            .args(["-a", "127.0.0.1", "-p", &port, "-sd"])
            .arg(folder.join("jetstream"))
            .arg("--ports_file_dir")
            .arg(&folder)
            .arg("-P")
            .arg(&pid_file)
            .arg("-l")
            .arg(&log)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal goes to the whole group; the server is to outlive the services.
            .process_group(0);
        let mut keeper = command.spawn().map_err(|source| ServerError::Start { path: binary, source })?;
        let mut line = keeper.stdin.take();
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if let Some(url) = ready(&folder).await {
                let pid = read_pid(&pid_file).await.unwrap_or(0);
                return Ok(Self { keeper, line, url, pid });
            }
            if let Ok(Some(_)) = keeper.try_wait() {
                return Err(ServerError::Ended { reason: reason_in(&log).await, log });
            }
            if Instant::now() >= deadline {
                stop(&mut keeper, &mut line).await;
                return Err(ServerError::NotReady { log });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Where it listens: `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's own process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends when the server has ended by itself.
    pub async fn ended(&mut self) {
        if let Err(error) = self.keeper.wait().await {
            warn!(%error, "can't wait for the NATS server");
        }
    }

    /// Stops it in order and waits for that.
    pub async fn stop(mut self) {
        stop(&mut self.keeper, &mut self.line).await;
    }
}

async fn stop(keeper: &mut Child, line: &mut Option<ChildStdin>) {
    drop(line.take());
    if timeout(STOP_TIMEOUT, keeper.wait()).await.is_err() {
        warn!("the NATS server did not stop in time");
        if let Err(error) = keeper.kill().await {
            warn!(%error, "can't kill the NATS server's keeper");
        }
    }
}

/// The first nats-server on PATH that is new enough.
async fn find() -> Result<PathBuf, ServerError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut too_old = None;
    for candidate in std::env::split_paths(&path).map(|folder| folder.join("nats-server")) {
        if !candidate.is_file() {
            continue;
        }
        let output = Command::new(&candidate).arg("--version").stdin(Stdio::null()).output();
        let Ok(Ok(output)) = timeout(READY_TIMEOUT, output).await else { continue };
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let version = text.rsplit([' ', 'v']).next().unwrap_or_default();
        if new_enough(version) {
            return Ok(candidate);
        }
        too_old.get_or_insert(ServerError::TooOld { path: candidate, found: text });
    }
    Err(too_old.unwrap_or(ServerError::Missing))
}

async fn ports_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(mut entries) = tokio::fs::read_dir(folder).await {
        while let Ok(Some(entry)) = entries.next_entry().await {
            if entry.path().extension().is_some_and(|e| e == "ports") {
                found.push(entry.path());
            }
        }
    }
    found
}

async fn ready(folder: &Path) -> Option<String> {
    let file = ports_files(folder).await.into_iter().next()?;
    // Being written, it may be incomplete: the next look tells.
    let ports: PortsFile = serde_json::from_slice(&tokio::fs::read(file).await.ok()?).ok()?;
    ports.nats.into_iter().next()
}

async fn read_pid(file: &Path) -> Option<u32> {
    tokio::fs::read_to_string(file).await.ok()?.trim().parse().ok()
}

/// The server named by a pid file, if it lives and works on this folder (pids are used again).
async fn living(pid_file: &Path, folder: &Path) -> Option<u32> {
    let pid = read_pid(pid_file).await?;
    let arguments = tokio::fs::read(format!("/proc/{pid}/cmdline")).await.ok()?;
    let folder = folder.join("jetstream");
    arguments.split(|&b| b == 0).any(|a| a == folder.as_os_str().as_encoded_bytes()).then_some(pid)
}

/// What the server's log gives as the reason of its end.
async fn reason_in(log: &Path) -> String {
    let text = tokio::fs::read_to_string(log).await.unwrap_or_default();
    let fatal = text.lines().rev().find(|l| l.contains("[FTL]")).or_else(|| text.lines().next_back());
    match fatal.and_then(|line| line.split_once("] ")) {
        Some((_, rest)) => rest.split_once("] ").map_or(rest, |(_, last)| last).to_owned(),
        None => "it said nothing".to_owned(),
    }
}
