//! A real PostgreSQL of a test's own, on a socket in a temporary folder.

use std::{
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Stdio,
};

use tempfile::TempDir;
use tokio::process::{Child, ChildStdin, Command};

use super::eventually;

/// Where Debian keeps the server's programs, which it does not put on PATH.
const DEBIAN: &str = "/usr/lib/postgresql";
const USER: &str = "kadr";
const PASSWORD: &str = "a secret: with @ and /";
const PASSWORD_IN_URL: &str = "a%20secret%3A%20with%20%40%20and%20%2F";

/// `"$@"` is the server. It ends at once when standard input does: with the test, however that ends.
const KEEPER: &str = r#"trap '' HUP
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
echo "$server"
{ cat <&3 >/dev/null; kill -CONT "$server"; kill -QUIT "$server"; } 2>/dev/null &
exec 3<&-
wait "$server""#;

/// A server with its data in a folder of its own; both end with it.
pub struct TestPostgres {
    /// The keeper, and the line to it: closed, the server ends.
    running: Option<(Child, ChildStdin, u32)>,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    folder: TempDir,
}

impl TestPostgres {
    /// Makes and starts one. It wants a password, and loses data only if the machine does.
    ///
    /// # Panics
    /// If it can't be started: a test can't go on without.
    #[expect(clippy::expect_used, clippy::panic, reason = "a test's set-up: it must fail loudly")]
    pub async fn start() -> Self {
        let Some(programs) = programs() else {
            panic!(
                "these tests need PostgreSQL's server (initdb and postgres, on PATH or below {DEBIAN}): \
                 `make test` installs it where it is root on Debian, else install the package postgresql"
            );
        };
        let folder = TempDir::with_prefix("kadr-pg-").expect("a temporary folder");
        let user = user_for_root();
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).expect("the folder can be given away");
        }
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).expect("the folder is writable");
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o644)).expect("a mode can be set");
        let mut server = Self { running: None, programs, user, folder };
        let mut initdb = server.command("initdb");
        initdb.args(["--no-sync", "--no-locale", "--encoding=UTF8", "--auth=scram-sha-256", "-U", USER, "--pwfile"]);
        let made = initdb.arg(&password).arg("-D").arg(server.data()).output().await.expect("initdb runs");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        server.begin().await;
        server
    }

    /// Starts it again after [`stop`](Self::stop).
    ///
    /// # Panics
    /// If it does not get ready.
    #[expect(clippy::expect_used, reason = "a test's set-up: it must fail loudly")]
    pub async fn begin(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("the folder is writable");
        let mut command = self.command("sh");
        command.args(["-c", KEEPER, "kadr-pg"]).arg(self.programs.join("postgres")).arg("-D").arg(self.data());
        for setting in ["fsync=off", "full_page_writes=off", "listen_addresses=", "max_connections=40"] {
            command.args(["-c", setting]);
        }
        command.arg("-c").arg(format!("unix_socket_directories={}", self.folder.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).process_group(0);
        let mut keeper = command.spawn().expect("a shell runs");
        let line = keeper.stdin.take().expect("it is piped");
        let mut told = tokio::io::BufReader::new(keeper.stdout.take().expect("it is piped"));
        let mut pid = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut told, &mut pid).await.expect("the keeper tells its server");
        let pid = pid.trim().parse().expect("a number");
        self.running = Some((keeper, line, pid));
        let status = self.data().join("postmaster.pid");
        let log = self.folder.path().join("log");
        eventually("PostgreSQL is ready", || async {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let ready = text.lines().any(|line| line.trim() == "ready") && text.starts_with(&format!("{pid}\n"));
            let ended = !Path::new(&format!("/proc/{pid}")).exists();
            assert!(!ended, "PostgreSQL ended: {}", std::fs::read_to_string(&log).unwrap_or_default());
            ready.then_some(())
        })
        .await;
    }

    /// Ends it at once, as if it had been killed. Its data stays.
    pub async fn stop(&mut self) {
        if let Some((mut keeper, line, _)) = self.running.take() {
            drop(line);
            let _ = keeper.wait().await;
        }
    }

    /// Sends a signal to the server and all its sessions: `STOP` and `CONT`.
    ///
    /// # Panics
    /// If the signal can't be sent.
    #[expect(clippy::expect_used, reason = "a test's set-up: it must fail loudly")]
    pub fn signal(&self, name: &str) {
        let Some((_, _, pid)) = &self.running else { return };
        // Sessions are processes of their own, children of the server.
        let all: Vec<String> = std::iter::once(*pid).chain(children(*pid)).map(|pid| pid.to_string()).collect();
        let kill = format!("kill -{name} {}", all.join(" "));
        let sent = std::process::Command::new("sh").args(["-c", &kill]).status().expect("a shell runs");
        assert!(sent.success(), "{kill}");
    }

    /// The address of a database on it, for the setting `database`; the one that is there is `postgres`.
    pub fn url(&self, database: &str) -> String {
        self.url_with(PASSWORD_IN_URL, database)
    }

    /// The same with another password.
    pub fn url_with(&self, password: &str, database: &str) -> String {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://{USER}:{password}@{socket}/{database}")
    }

    /// What must never be shown.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let own = self.programs.join(program);
        let mut command = Command::new(if own.is_file() { own } else { program.into() });
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for TestPostgres {
    /// The folder goes next: the server is to be gone by then.
    fn drop(&mut self) {
        let Some((mut keeper, line, _)) = self.running.take() else { return };
        drop(line);
        for _ in 0..500 {
            if !matches!(keeper.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// The processes that this one has begun.
fn children(of: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // `pid (name) state parent …`; the name may hold anything.
    let parent = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    pids.filter(|pid| parent(pid) == Some(of)).collect()
}

/// The folder of the server's programs: the one on PATH, or Debian's newest.
fn programs() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir(DEBIAN).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut debian: Vec<_> = debian.collect();
    debian.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    let debian = debian.into_iter().rev().map(|version| version.join("bin"));
    std::env::split_paths(&on_path)
        .chain(debian)
        .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        // What is on PATH may be a link: the server looks for its other files beside the real one.
        .and_then(|folder| folder.join("initdb").canonicalize().ok()?.parent().map(Path::to_owned))
}

/// PostgreSQL refuses to run as root: there it runs as the user that its package made, or as nobody.
fn user_for_root() -> Option<(u32, u32)> {
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").ok()?);
    if uid != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let fields: Vec<&str> = users.lines().find(|line| line.split(':').next() == Some(name))?.split(':').collect();
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody"))
}
