//! Three nats-servers from `nats/cluster.conf`, started as its header says.

use std::{fs, path::Path, process::Command};

use kadr_shared::{
    nats::Nats,
    streams,
    testkit::{eventually, free_ports},
};
use tempfile::TempDir;

use super::process::{Process, running};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../nats/cluster.conf");
const NODES: usize = 3;

/// The nodes end before their folders go.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Process>,
    pub(crate) urls: Vec<String>,
    /// For the connections between nodes.
    ports: Vec<u16>,
    folder: TempDir,
}

impl Cluster {
    /// Waits until it can make streams of three copies.
    pub(crate) async fn start() -> (Self, Nats) {
        let folder = TempDir::with_prefix("kadr-cluster-").unwrap();
        // Routes must be known before.
        let ports = free_ports(NODES);
        let nodes: Vec<_> = (0..NODES).map(|node| start_node(folder.path(), node, &ports, "-1")).collect();
        let mut urls = Vec::new();
        for node in 0..NODES {
            urls.push(url(&folder.path().join(format!("n{node}"))).await);
        }
        let nats = Nats::connect(&urls.join(","), "test").await.unwrap();
        eventually("the cluster makes streams", || async { streams::ensure(&nats).await.ok() }).await;
        (Self { nodes, urls, ports, folder }, nats)
    }

    /// SIGKILL to the node of this name, as the server gives it.
    pub(crate) fn kill(&self, name: &str) {
        self.nodes[number(name)].signal("KILL");
    }

    /// Starts a node again that has ended, where it was.
    pub(crate) async fn restart(&mut self, name: &str) {
        let node = number(name);
        let pid = self.nodes[node].pid();
        eventually("the node has ended", || async { (!running(pid)).then_some(()) }).await;
        let port = self.urls[node].rsplit(':').next().unwrap().to_owned();
        self.nodes[node] = start_node(self.folder.path(), node, &self.ports, &port);
    }
}

fn number(name: &str) -> usize {
    name.strip_prefix('n').unwrap().parse().unwrap()
}

/// `port` for clients; `-1`: a free one.
fn start_node(folder: &Path, node: usize, ports: &[u16], port: &str) -> Process {
    let own = folder.join(format!("n{node}"));
    fs::create_dir_all(&own).unwrap();
    let routes: Vec<_> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let mut command = Command::new("nats-server");
    command.args(["-c", CONFIG, "--name", &format!("n{node}"), "-a", "127.0.0.1", "-p", port, "-sd"]).arg(&own);
    command.args(["--cluster", &format!("nats://127.0.0.1:{}", ports[node]), "--routes", &routes.join(",")]);
    Process::start(command.arg("--ports_file_dir").arg(&own))
}

/// The address in a node's ports file, once it is there.
async fn url(folder: &Path) -> String {
    eventually("a node's ports file", || async {
        let entries = fs::read_dir(folder).unwrap().filter_map(Result::ok).map(|entry| entry.path());
        let file = entries.into_iter().find(|path| path.extension().is_some_and(|e| e == "ports"))?;
        let ports: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        ports["nats"][0].as_str().map(str::to_owned)
    })
    .await
}
