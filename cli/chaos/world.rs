//! Everything that runs: NATS nodes, services, and the proxies between them. What is started here is watched over: what
//! ends by itself is noted and started again, as a supervisor would.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;

use kadr_shared::testkit::free_ports;

use crate::{
    cluster::{self, Node},
    plan::Size,
    process::{Keeper, Kind, Life, Slot},
    proxy::{Mode, Proxy},
    sources::Sources,
};

/// Slots of a runner.
pub const CAPACITY: usize = 12;
/// Between two looks at whether something has ended, and the pause before it is started again.
const LOOK: Duration = Duration::from_millis(100);
const RESTART: Duration = Duration::from_secs(1);

pub struct Service {
    pub slot: Slot,
    /// To each node.
    pub links: Vec<Proxy>,
    /// The file that says how far its clock is off.
    clock: PathBuf,
    /// Of an api: where it listens.
    pub address: Option<String>,
    /// Something is being done to it.
    pub busy: AtomicBool,
}

impl Service {
    pub fn set(&self, mode: Mode) {
        for link in &self.links {
            link.set(mode);
        }
    }

    pub fn jump(&self, offset_ms: i64) -> Result<()> {
        // Renamed into place: a reader never sees half a number.
        let draft = self.clock.with_extension("draft");
        std::fs::write(&draft, offset_ms.to_string())?;
        Ok(std::fs::rename(draft, &self.clock)?)
    }
}

/// A process that ended though nobody had killed it.
#[derive(Debug, Clone)]
pub struct Fallen {
    pub name: String,
    pub life: Life,
    pub status: String,
    /// The end of what it had written.
    pub said: String,
}

/// The services end first, then the nodes, then what the keeper finds.
pub struct World {
    pub services: Vec<Arc<Service>>,
    pub nodes: Vec<Arc<Node>>,
    fallen: Mutex<Vec<Fallen>>,
    pub keeper: Keeper,
}

impl World {
    /// Makes all of it, and starts nothing.
    pub async fn new(folder: &Path, kadr: &Path, size: &Size, sources: &Sources) -> Result<Self> {
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs)?;
        let keeper = Keeper::start(folder)?;
        let nodes = cluster::nodes(folder, &logs, size.nodes)?;
        let mut services = Vec::new();
        for kind in [Kind::Orchestrator, Kind::Runner, Kind::Inference, Kind::Api] {
            let ports = free_ports(size.count(kind));
            for (number, port) in ports.into_iter().enumerate() {
                let name = format!("{}-{number}", kind.name());
                let mut links = Vec::new();
                for node in &nodes {
                    links.push(Proxy::start(node.port).await?);
                }
                let urls: Vec<_> = links.iter().map(|link| format!("nats://127.0.0.1:{}", link.port)).collect();
                let clock = folder.join(format!("{name}.clock"));
                let mut arguments = vec![kind.name().to_owned(), "--nats".to_owned(), urls.join(",")];
                arguments.extend(["--data".to_owned(), folder.join(&name).display().to_string()]);
                let listen = format!("127.0.0.1:{port}");
                match kind {
                    Kind::Api => arguments.extend(["--listen".to_owned(), listen.clone()]),
                    Kind::Runner => arguments.extend(["--capacity".to_owned(), CAPACITY.to_string()]),
                    Kind::Inference => arguments.extend(["--workers".to_owned(), "1".to_owned()]),
                    Kind::Orchestrator | Kind::Nats => {}
                }
                let (kadr, models, own, at) =
                    (kadr.to_owned(), sources.models.clone(), clock.clone(), folder.to_owned());
                let make = move || {
                    let mut command = Command::new(&kadr);
                    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("KADR_")) {
                        command.env_remove(name);
                    }
                    command.env("KADR_LOG", "info,async_nats=warn,poem=warn").env("NO_COLOR", "1");
                    command.env("KADR_MODELS", &models).env("KADR_CLOCK_OFFSET_FILE", &own);
                    command.current_dir(&at).args(&arguments);
                    command
                };
                let address = (kind == Kind::Api).then(|| format!("http://{listen}"));
                let slot = Slot::new(&name, kind, &logs, make);
                let service = Service { slot, links, clock, address, busy: AtomicBool::new(false) };
                service.jump(0)?;
                services.push(Arc::new(service));
            }
        }
        Ok(Self { services, nodes, fallen: Mutex::default(), keeper })
    }

    pub fn of(&self, kind: Kind) -> Vec<Arc<Service>> {
        self.services.iter().filter(|service| service.slot.kind == kind).cloned().collect()
    }

    pub fn apis(&self) -> Vec<String> {
        self.services.iter().filter_map(|service| service.address.clone()).collect()
    }

    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.nodes.iter().map(|node| &node.slot).chain(self.services.iter().map(|service| &service.slot))
    }

    /// The real addresses of all nodes, for the harness itself.
    pub fn nats(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url()).collect()
    }

    pub fn start_nodes(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.slot.start(&self.keeper))
    }

    pub fn start_services(&self) -> Result<()> {
        self.services.iter().try_for_each(|service| service.slot.start(&self.keeper))
    }

    /// Whether one of a kind lives that can get at NATS.
    pub fn one_can_work(&self, kind: Kind) -> bool {
        self.services.iter().any(|service| service.slot.kind == kind && self.can_work(service))
    }

    fn can_work(&self, service: &Service) -> bool {
        if !service.slot.awake() {
            return false;
        }
        let ways = || service.links.iter().zip(&self.nodes);
        // Connected to a frozen node only, it can't know better yet; not connected, it takes whatever is there.
        let connected = ways().any(|(link, _)| link.connections() > 0);
        ways().any(|(link, node)| (!connected || link.connections() > 0) && link.mode().passes() && node.up())
    }

    /// Notes what ends by itself and starts it again. Never returns.
    pub async fn watch_over(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            for slot in self.slots() {
                let Some((life, status)) = slot.ended_by_itself() else { continue };
                let log = slot.log_of(slot.lives().len().saturating_sub(1));
                let said: Vec<_> = log.lines().rev().take(8).collect();
                let said = said.into_iter().rev().collect::<Vec<_>>().join("\n");
                let fallen = Fallen { name: slot.name.clone(), life, status, said };
                self.fallen.lock().unwrap_or_else(PoisonError::into_inner).push(fallen);
                tokio::time::sleep(RESTART).await;
                if let Err(error) = slot.start(&self.keeper) {
                    eprintln!("chaos: {error:#}");
                }
            }
        }
    }

    pub fn fallen(&self) -> Vec<Fallen> {
        self.fallen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends everything that is done to anybody: nothing is frozen, cut or off, and all run.
    pub fn calm(&self) -> Result<()> {
        for service in &self.services {
            service.set(Mode::Open);
            service.jump(0)?;
            service.busy.store(false, Ordering::Relaxed);
        }
        for slot in self.slots() {
            slot.thaw();
            slot.start(&self.keeper)?;
        }
        Ok(())
    }

    /// Kills everything, services first.
    pub fn end(&self) {
        self.services.iter().map(|service| &service.slot).chain(self.nodes.iter().map(|node| &node.slot)).for_each(
            |slot| {
                slot.kill();
            },
        );
    }
}
