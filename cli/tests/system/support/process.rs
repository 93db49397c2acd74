//! Processes that end with the test, whatever becomes of it.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use kadr_shared::testkit::eventually;
use tokio::time::Instant;

/// The longest that a command may take on a machine that others use too.
pub(crate) const LONGEST: Duration = Duration::from_secs(150);
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A started process with what it has written so far.
pub(crate) struct Process {
    child: Child,
    stdout: Written,
    stderr: Written,
}

/// How a process ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// One output, read by a thread as it comes.
struct Written {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Written {
    fn read(from: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = text.clone();
        let reader = std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                sink.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// To its end: whoever has inherited it must have ended, too.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.so_far()
    }
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Written::read(child.stdout.take().unwrap());
        let stderr = Written::read(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// The rest of the first line, of either output, that has this text in it.
    pub(crate) async fn line_after(&self, text: &str) -> String {
        let look = || async {
            let written = self.stdout() + &self.stderr();
            // A line that is being written has no end yet.
            let whole = written.rfind('\n').map_or("", |end| &written[..end]);
            let found = whole.lines().find_map(|line| line.split_once(text).map(|(_, rest)| rest.trim().to_owned()));
            if found.is_none() && !running(self.pid()) {
                panic!("it ended before it wrote {text:?}: {written}");
            }
            found
        };
        eventually(&format!("a line with {text:?}"), look).await
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        shell(&format!("kill -{name} {}", self.pid()));
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(mut self) {
        self.end_now();
    }

    /// Asks it to end, and waits.
    pub(crate) async fn stop(self) -> Ended {
        self.signal("TERM");
        self.ended().await
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Ended {
        let deadline = Instant::now() + LONGEST;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= deadline {
                panic!("it did not end within {} s: {}{}", LONGEST.as_secs(), self.stdout(), self.stderr());
            }
            tokio::time::sleep(LOOK).await;
        };
        Ended { status, stdout: self.stdout.all(), stderr: self.stderr.all() }
    }

    fn end_now(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end_now();
        // A test that has failed is to say what its processes said.
        if std::thread::panicking() {
            eprintln!("process {} wrote: {}", self.child.id(), self.stderr());
        }
    }
}

impl Ended {
    /// That it ended well; its standard output.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert!(self.status.success(), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self.stdout
    }

    /// Its standard output as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let stdout = self.success();
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// That it ended with this code and a message for people that has all of `words` in it.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
        for odd in ["panicked", "RUST_BACKTRACE", "Some(", "Error {"] {
            assert!(!self.stderr.contains(odd), "{odd:?} is nothing for people: {}", self.stderr);
        }
        self
    }
}

/// Runs a line of the shell, which must succeed.
pub(crate) fn shell(line: &str) {
    let status = Command::new("sh").args(["-c", line]).status().unwrap();
    assert!(status.success(), "{line}");
}

/// Whether a process is there and is not only waiting to be collected.
pub(crate) fn running(pid: u32) -> bool {
    // The state stands behind the name, which is in brackets and may hold anything.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Processes that have this text among their arguments.
pub(crate) fn with_argument(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        running(*pid) && String::from_utf8_lossy(&arguments).contains(text)
    })
    .collect()
}
