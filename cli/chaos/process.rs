//! Processes of the harness: each in a group of its own, started again and again under one name, with its log and the
//! story of its lives. Here a process is started, signalled and watched; why, is decided elsewhere.
//!
//! They end with the harness whatever becomes of it: a keeper, a shell that reads from a pipe, kills what is left when
//! the pipe breaks.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};

use crate::now;

/// What a process is, as plans and reports name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Nats,
    Orchestrator,
    Runner,
    Inference,
    Api,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Orchestrator => "orchestrator",
            Self::Runner => "runner",
            Self::Inference => "inference",
            Self::Api => "api",
        }
    }
}

/// How a life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By the harness.
    Killed,
    /// By itself, with what the system says of it.
    Itself(String),
}

/// One process from its start to its end. Times are milliseconds since 1970 by this machine's clock.
#[derive(Debug, Clone)]
pub struct Life {
    pub from: i64,
    pub until: Option<i64>,
    pub end: Option<End>,
    /// Spans in which it was suspended.
    pub frozen: Vec<(i64, Option<i64>)>,
    /// Where its part of the log begins.
    pub log_from: u64,
}

impl Life {
    /// Whether it could do anything at a moment.
    pub fn awake_at(&self, at: i64) -> bool {
        self.from <= at
            && self.until.is_none_or(|until| at < until)
            && !self.frozen.iter().any(|(from, until)| *from <= at && until.is_none_or(|until| at < until))
    }
}

/// A named place for a process.
pub struct Slot {
    pub name: String,
    pub kind: Kind,
    pub log: PathBuf,
    make: Box<dyn Fn() -> Command + Send + Sync>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    child: Option<Child>,
    /// It was asked to end.
    asked: bool,
    lives: Vec<Life>,
}

impl Slot {
    pub fn new(name: &str, kind: Kind, logs: &Path, make: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        let log = logs.join(format!("{name}.log"));
        Self { name: name.to_owned(), kind, log, make: Box::new(make), inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, unless it runs.
    pub fn start(&self, keeper: &Keeper) -> Result<()> {
        let mut inner = self.lock();
        if inner.child.is_some() {
            return Ok(());
        }
        let log = open(&self.log)?;
        let log_from = log.metadata().map(|m| m.len()).unwrap_or(0);
        let mut command = (self.make)();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("can't start {}", self.name))?;
        keeper.add(child.id())?;
        let from = now();
        inner.lives.push(Life { from, until: None, end: None, frozen: Vec::new(), log_from });
        inner.child = Some(child);
        Ok(())
    }

    /// SIGKILL, and its end; false: it did not run.
    pub fn kill(&self) -> bool {
        let mut inner = self.lock();
        let Some(mut child) = inner.child.take() else { return false };
        let at = now();
        // It may have ended by itself in this moment: then there is nothing left to kill.
        let _ = child.kill();
        let _ = child.wait();
        inner.ended(at, End::Killed);
        true
    }

    /// SIGTERM; false: it does not run. What follows is [`Slot::ended`]'s to tell.
    pub fn ask_to_end(&self) -> bool {
        let mut inner = self.lock();
        let Some(child) = &inner.child else { return false };
        signal(child.id(), "TERM");
        inner.asked = true;
        true
    }

    /// How it ended after it was asked to; none: it has not yet.
    pub fn ended(&self) -> Option<ExitStatus> {
        let mut inner = self.lock();
        let status = inner.child.as_mut()?.try_wait().ok()??;
        inner.child = None;
        inner.ended(now(), End::Killed);
        Some(status)
    }

    /// Suspends it; false: it does not run.
    pub fn freeze(&self) -> bool {
        let mut inner = self.lock();
        let Some(child) = &inner.child else { return false };
        signal(child.id(), "STOP");
        if let Some(life) = inner.lives.last_mut() {
            life.frozen.push((now(), None));
        }
        true
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        let mut inner = self.lock();
        let Some(child) = &inner.child else { return };
        signal(child.id(), "CONT");
        let at = now();
        if let Some((_, until)) = inner.lives.last_mut().and_then(|life| life.frozen.last_mut()) {
            until.get_or_insert(at);
        }
    }

    /// Takes note if it has ended by itself.
    pub fn ended_by_itself(&self) -> Option<(Life, String)> {
        let mut inner = self.lock();
        if inner.asked {
            return None;
        }
        let status = inner.child.as_mut()?.try_wait().ok()??;
        inner.child = None;
        let text = status.to_string();
        inner.ended(now(), End::Itself(text.clone()));
        inner.lives.last().cloned().map(|life| (life, text))
    }

    pub fn pid(&self) -> Option<u32> {
        self.lock().child.as_ref().map(Child::id)
    }

    pub fn awake(&self) -> bool {
        self.lock().lives.last().is_some_and(|life| life.awake_at(now()))
    }

    pub fn lives(&self) -> Vec<Life> {
        self.lock().lives.clone()
    }

    /// What a life has written.
    pub fn log_of(&self, number: usize) -> String {
        let lives = self.lives();
        let text = std::fs::read(&self.log).unwrap_or_default();
        let at = |life: Option<&Life>| life.map_or(text.len(), |l| usize::try_from(l.log_from).unwrap_or(usize::MAX));
        let part = text.get(at(lives.get(number)).min(text.len())..at(lives.get(number + 1)).min(text.len()));
        String::from_utf8_lossy(part.unwrap_or_default()).into_owned()
    }
}

impl Inner {
    fn ended(&mut self, at: i64, end: End) {
        self.asked = false;
        if let Some(life) = self.lives.last_mut() {
            life.until = Some(at);
            life.end = Some(end);
            if let Some((_, until)) = life.frozen.last_mut() {
                until.get_or_insert(at);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.kill();
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("can't write {}", path.display()))
}

/// A signal by its name. The shell's own `kill` is everywhere.
fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null()).status();
    if !sent.is_ok_and(|status| status.success()) {
        eprintln!("chaos: SIG{name} could not be sent to process {pid}");
    }
}

/// Kills what is left when the harness is no more. A number of a process may be used again by then: what does not name
/// the harness's folder among its arguments is left alone.
const KEEPER: &str = r#"trap '' HUP INT TERM
cat >/dev/null
while read -r pid; do
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$1"; then kill -KILL "$pid" 2>/dev/null; fi
done <"$1/pids"
sleep 0.2
grep -F " $1/" /proc/mounts | while read -r _ at _; do umount "$at"; done"#;

pub struct Keeper {
    pids: Mutex<File>,
    shell: Child,
    line: Option<ChildStdin>,
}

impl Keeper {
    pub fn start(folder: &Path) -> Result<Self> {
        let pids = open(&folder.join("pids"))?;
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "chaos-keeper"]).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut shell = command.spawn().context("can't start a shell")?;
        let line = shell.stdin.take();
        Ok(Self { pids: Mutex::new(pids), shell, line })
    }

    fn add(&self, pid: u32) -> Result<()> {
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(pids, "{pid}").context("can't write down a process's number")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.line.take());
        let _ = self.shell.wait();
    }
}
