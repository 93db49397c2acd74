//! A running `kadr up`, its cameras, and what its process takes.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use kadr_shared::{
    testkit::{TestCamera, free_ports},
    time::Timestamp,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// For everything that has to come up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clock ticks a second, as Linux tells processor time.
const TICKS: f64 = 100.0;

/// A frame's way into the queue, and to its worker's answer.
pub(crate) struct Wait {
    /// By the video's own clock.
    pub(crate) pts_ms: f64,
    pub(crate) taken: Timestamp,
    pub(crate) ms: f64,
}

/// Ends with it.
pub(crate) struct System {
    process: Child,
    pub(crate) api: String,
    pub(crate) rtsp: String,
    /// Its NATS server's address.
    pub(crate) nats: String,
    /// What it says further: it must find somebody there.
    _said: BufReader<ChildStdout>,
    client: reqwest::Client,
    folder: TempDir,
}

impl System {
    pub(crate) async fn start() -> Self {
        let folder = TempDir::with_prefix("kadr-bench-").unwrap();
        let ports = free_ports(2);
        let [http, rtsp] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_kadr"));
        command.args(["up", "--listen", &http, "--rtsp", &rtsp, "--data"]).arg(folder.path().join("data"));
        let (api, rtsp) = (format!("http://{http}"), format!("rtsp://{rtsp}"));
        command.env("KADR_LOG", "warn").current_dir(CHECKOUT).stdout(Stdio::piped());
        let mut process = command.spawn().expect("kadr starts");
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let nats = said
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(line.trim().strip_prefix("NATS")?.trim().to_owned()));
        let nats = nats.expect("kadr tells where its NATS server is");
        let system = Self { process, api, rtsp, nats, _said: said, client: reqwest::Client::new(), folder };
        system
            .until("kadr is ready", async |system| {
                let ready = system.client.get(format!("{}/health/ready", system.api)).send().await;
                ready.is_ok_and(|ready| ready.status().is_success())
            })
            .await;
        system
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    async fn until(&self, what: &str, met: impl AsyncFn(&Self) -> bool) {
        let begun = Instant::now();
        while !met(self).await {
            assert!(begun.elapsed() < PATIENCE, "{what}: not in {} s", PATIENCE.as_secs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Creates a scenario, starts it, and waits for its first results.
    pub(crate) async fn run(&self, id: &str, settings: Value) {
        let scenarios = format!("{}/v1/scenarios", self.api);
        let post = |address: String, body: Value| self.client.post(address).json(&body).send();
        let created = post(format!("{scenarios}?id={id}"), settings).await.unwrap();
        assert!(created.status().is_success(), "{}", created.text().await.unwrap());
        post(format!("{scenarios}/{id}/commands"), json!({"command": "start"})).await.unwrap();
        self.until("the scenario is active", async |system| system.get(id).await["state"] == "active").await;
    }

    pub(crate) async fn get(&self, id: &str) -> Value {
        let address = format!("{}/v1/scenarios/{id}", self.api);
        self.client.get(address).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn stop(&self, id: &str) {
        let address = format!("{}/v1/scenarios/{id}/commands", self.api);
        self.client.post(address).json(&json!({"command": "stop"})).send().await.unwrap();
        self.until("the scenario is inactive", async |system| system.get(id).await["state"] == "inactive").await;
    }

    /// Of each stored result how long its frame waited for it.
    pub(crate) async fn waits(&self, id: &str) -> Vec<Wait> {
        let (mut waits, mut from) = (Vec::new(), Some(0));
        while let Some(first) = from {
            let address = format!("{}/v1/scenarios/{id}/detections?limit=1000&from={first}", self.api);
            let page: Value = self.client.get(address).send().await.unwrap().json().await.unwrap();
            let results = page["results"].as_array().cloned().unwrap_or_default();
            waits.extend(results.iter().filter_map(|result| {
                let (timing, taken) = (&result["timing_ms"], result["captured_at"].as_str()?);
                Some(Wait {
                    pts_ms: result["pts_ms"].as_f64()?,
                    taken: taken.parse().ok()?,
                    ms: timing["queue"].as_f64()? + timing["inference"].as_f64()?,
                })
            }));
            from = page["next"].as_u64().filter(|next| *next > first);
        }
        waits
    }

    /// Processor time that the threads have taken so far, in seconds, by their names; all of its NATS server's under that name.
    pub(crate) fn threads(&self) -> BTreeMap<String, f64> {
        let mut threads = BTreeMap::new();
        for child in children(self.process.id()) {
            if let Some((name, seconds)) = time_of(&format!("/proc/{child}/stat")) {
                *threads.entry(name).or_default() += seconds;
            }
        }
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        for task in tasks.flatten() {
            let stat = task.path().join("stat");
            if let Some((name, seconds)) = time_of(&stat.display().to_string()) {
                *threads.entry(name).or_default() += seconds;
            }
        }
        threads
    }

    /// Memory that is in use, in MB: kadr's, and its NATS server's.
    pub(crate) fn memory(&self) -> [f64; 2] {
        [memory_of(self.process.id()), children(self.process.id()).into_iter().map(memory_of).sum()]
    }
}

/// The processes below this one: the NATS server is started by a shell that looks after it.
fn children(of: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<u32> =
        lists.flat_map(|pids| pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    pids.into_iter().flat_map(|pid| std::iter::once(pid).chain(children(pid))).collect()
}

fn memory_of(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    (line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0).round()
}

/// The name and the processor time in a file of the kernel's, in seconds.
fn time_of(stat: &str) -> Option<(String, f64)> {
    let stat = std::fs::read_to_string(stat).ok()?;
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let name = stat[open + 1..close].trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
    let fields: Vec<f64> = stat[close + 1..].split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // utime and stime are the 14th and 15th field; the third, a letter, is not among these.
    Some((name, (fields.get(10)? + fields.get(11)?) / TICKS))
}

impl Drop for System {
    fn drop(&mut self) {
        // Asked to end, so that the NATS server that it started ends, too.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// What all of it took between two looks, as a share of one core.
pub(crate) fn total(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, seconds: f64) -> f64 {
    let spent = after.values().sum::<f64>() - before.values().sum::<f64>();
    (spent / seconds * 1000.0).round() / 1000.0
}

/// What each thread took between two looks, as a share of one core; those that took nearly nothing are left out.
pub(crate) fn shares(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, seconds: f64) -> Value {
    let share = |(name, time): (&String, &f64)| {
        let share = (time - before.get(name).unwrap_or(&0.0)) / seconds;
        (share >= 0.005).then(|| (name.clone(), json!((share * 1000.0).round() / 1000.0)))
    };
    Value::Object(after.iter().filter_map(share).collect())
}

pub(crate) fn fixtures() -> PathBuf {
    std::env::var_os("KADR_FIXTURES").expect("KADR_FIXTURES names the reference data, which has the camera").into()
}

/// What [`camera`] plays, in its folder.
pub(crate) const NUMBERED: &str = "numbered.mp4";

/// A street at 1280x720 and 25 frames a second, each frame with its number as a row of black and white squares.
pub(crate) fn camera(folder: &Path) -> TestCamera {
    let clip = folder.join(NUMBERED);
    let street = fixtures().join("clips/highway.mp4");
    // Square x is bit x of the frame's number.
    let number = format!(
        "nullsrc=s={0}x{1}:r=25,geq=lum='255*mod(floor(N/pow(2,floor(X/{1}))),2)':cb=128:cr=128",
        super::glass::BITS * super::glass::SQUARE,
        super::glass::SQUARE
    );
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-i"]).arg(street).args(["-f", "lavfi", "-i", &number]);
    command.args(["-filter_complex", "[0:v]setpts=N/25/TB,fps=25[s];[s][1:v]overlay=0:0:shortest=1", "-an"]);
    command.args(["-c:v", "libx264", "-preset", "fast", "-bf", "0", "-g", "25", "-pix_fmt", "yuv420p"]);
    // As cameras code: without weighted prediction.
    command.args(["-x264-params", "weightp=0"]).arg(&clip);
    assert!(command.status().expect("ffmpeg is installed").success());
    TestCamera::start(&clip, 200, None, None)
}
