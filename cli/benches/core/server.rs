//! A nats-server as users run it on one machine, with the sync setting that is asked for.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use kadr_shared::{nats::Nats, streams, testkit::eventually};
use tempfile::TempDir;

const CONFIG: &str = include_str!("../../../nats/single.conf");

pub(crate) struct Server {
    process: Child,
    pub(crate) url: String,
    _folder: TempDir,
}

impl Server {
    /// `always`: each append is on the disk when it is acknowledged; else the server's default.
    pub(crate) async fn start(always: bool) -> (Self, Nats) {
        let folder = TempDir::with_prefix("kadr-bench-").unwrap();
        assert!(CONFIG.contains("  sync_interval: always"), "the line that is taken out");
        let config = if always { CONFIG.to_owned() } else { CONFIG.replace("  sync_interval: always", "") };
        let file = folder.path().join("nats.conf");
        std::fs::write(&file, config.replace("20GB", "60GB")).unwrap();
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(&file).args(["-a", "127.0.0.1", "-p", "-1", "-sd"]).arg(folder.path().join("js"));
        command.arg("--ports_file_dir").arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("nats-server is on PATH (`make nats`)");
        let url = eventually("the server's ports file", || async { url(folder.path()) }).await;
        let nats = Nats::connect(&url, "bench").await.unwrap();
        streams::ensure(&nats).await.unwrap();
        (Self { process, url, _folder: folder }, nats)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn url(folder: &Path) -> Option<String> {
    let mut entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let file = entries.find(|entry| entry.path().extension().is_some_and(|e| e == "ports"))?;
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
    ports["nats"][0].as_str().map(str::to_owned)
}
