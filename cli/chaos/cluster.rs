//! The NATS nodes: from the repository's own configurations, each on ports that stay its own over restarts.
//!
//! The last node's folder lies on a small file system of its own where this is allowed, so that it can be filled.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result};

use kadr_shared::testkit::free_ports;

use crate::process::{Kind, Slot};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Far more than the streams of a run of some minutes; little enough to be filled at once, in memory.
const DISK: &str = "2g";

pub struct Node {
    pub slot: Slot,
    pub port: u16,
    /// A folder that is a file system of its own.
    pub disk: Option<PathBuf>,
    /// Its disk is full.
    pub full: AtomicBool,
}

impl Node {
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Whether it can do its part.
    pub fn up(&self) -> bool {
        self.slot.awake() && !self.full.load(Ordering::Relaxed)
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) -> Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        self.full.store(true, Ordering::Relaxed);
        let mut junk = std::fs::File::create(disk.join("junk"))?;
        // First in large pieces, then in small ones.
        for size in [1 << 20, 4096, 1] {
            let zeros = vec![0; size];
            while junk.write_all(&zeros).is_ok() {}
        }
        Ok(())
    }

    pub fn free(&self) -> Result<()> {
        if let Some(disk) = &self.disk {
            std::fs::remove_file(disk.join("junk"))?;
        }
        Ok(())
    }
}

/// The nodes, not started yet.
pub fn nodes(folder: &Path, logs: &Path, count: usize) -> Result<Vec<Arc<Node>>> {
    let ports = free_ports(2 * count);
    let (clients, routes) = ports.split_at(count);
    let all: Vec<_> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let all = all.join(",");
    let mut nodes = Vec::new();
    for (number, (&port, route)) in clients.iter().zip(routes).enumerate() {
        let name = format!("nats-{number}");
        let own = folder.join(&name);
        std::fs::create_dir_all(&own)?;
        let disk = (number + 1 == count && mount(&own)).then(|| own.clone());
        let (routes, cluster) = (all.clone(), format!("nats://127.0.0.1:{route}"));
        let config = if count > 1 { "nats/cluster.conf" } else { "nats/single.conf" };
        let make = move || {
            let mut command = Command::new("nats-server");
            command.arg("-c").arg(Path::new(REPOSITORY).join(config));
            command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(&own);
            if count > 1 {
                // A service that learnt the nodes' own addresses would go round its proxies.
                command.args(["--name", &format!("n{number}"), "--cluster", &cluster, "--routes", &routes]);
                command.arg("--no_advertise=true");
            }
            command
        };
        let slot = Slot::new(&name, Kind::Nats, logs, make);
        nodes.push(Arc::new(Node { slot, port, disk, full: AtomicBool::new(false) }));
    }
    Ok(nodes)
}

/// False: it is not allowed here (the keeper unmounts it at the end).
fn mount(at: &Path) -> bool {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "kadr-chaos"]).arg(at);
    command.output().is_ok_and(|output| output.status.success())
}

/// Which server this is, for the report.
pub fn version() -> Result<String> {
    let output = Command::new("nats-server").arg("--version").output().context("there is no nats-server on PATH")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
