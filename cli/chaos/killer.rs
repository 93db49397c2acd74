//! Carries out what the plan breaks, one blow after another, and writes down when each really began and ended.
//!
//! Blows overlap, but not on one service, and never is more than one NATS node down or catching up.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;
use tokio::{
    sync::Mutex as AsyncMutex,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    now,
    plan::{Blow, Timed},
    process::{Kind, Slot},
    proxy::Mode,
    watch::Watch,
    world::{Service, World},
};

/// How long a node may take to be as the others again, and between two looks at it.
const HEALING: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(200);
/// For a process to end in order: more than any service gives itself.
const DRAIN: Duration = Duration::from_secs(25);

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct Blown {
    pub number: usize,
    pub what: &'static str,
    pub target: String,
    #[serde(skip)]
    pub kind: Option<Kind>,
    /// Which of the process's lives it hit.
    pub life: usize,
    /// It led.
    pub leader: bool,
    pub at: i64,
    pub until: i64,
    /// How long a process took to end that was asked to, and how it ended; none: it had to be killed.
    pub drained: Option<(i64, String)>,
    /// Why it was not done, if so.
    pub skipped: Option<String>,
}

pub struct Killer {
    pub world: Arc<World>,
    pub watch: Arc<Watch>,
    /// Held while a node is down.
    nats: Arc<AsyncMutex<()>>,
    done: Arc<Mutex<Vec<Blown>>>,
}

impl Killer {
    pub fn new(world: Arc<World>, watch: Arc<Watch>) -> Arc<Self> {
        Arc::new(Self { world, watch, nats: Arc::default(), done: Arc::default() })
    }

    pub fn done(&self) -> Vec<Blown> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner).clone();
        done.sort_by_key(|blown| blown.number);
        done
    }

    /// All blows, and the end of each.
    pub async fn run(self: Arc<Self>, blows: Vec<Timed>) {
        let mut under_way = JoinSet::new();
        for (number, Timed { pause, blow }) in blows.into_iter().enumerate() {
            sleep(pause).await;
            while under_way.try_join_next().is_some() {}
            let blown = Blown {
                number,
                what: blow.name(),
                target: String::new(),
                kind: crate::plan::target(&blow),
                life: 0,
                leader: false,
                at: now(),
                until: 0,
                drained: None,
                skipped: None,
            };
            let node_is_hit = matches!(
                blow,
                Blow::Kill { kind: Kind::Nats, .. }
                    | Blow::Freeze { kind: Kind::Nats, .. }
                    | Blow::Drain { kind: Kind::Nats, .. }
                    | Blow::FillDisk { .. }
            );
            // Waited for here: what comes next must not overtake it.
            let guard = if node_is_hit { Some(self.nats.clone().lock_owned().await) } else { None };
            let killer = self.clone();
            under_way.spawn(async move {
                let blown = killer.strike(blow, blown).await;
                killer.done.lock().unwrap_or_else(PoisonError::into_inner).push(blown);
                if guard.is_some() {
                    killer.healed().await;
                }
                drop(guard);
            });
        }
        while under_way.join_next().await.is_some() {}
    }

    async fn strike(&self, blow: Blow, mut blown: Blown) -> Blown {
        let result = match blow {
            Blow::Kill { kind: Kind::Nats, which, .. }
            | Blow::Freeze { kind: Kind::Nats, which, .. }
            | Blow::Drain { kind: Kind::Nats, which, .. } => self.strike_node(which, &blow, &mut blown).await,
            Blow::FillDisk { full } => self.fill_disk(full, &mut blown).await,
            Blow::Cut { kind: Kind::Nats, which, cut } => self.links_of_node(which, Mode::Cut, cut, &mut blown).await,
            Blow::Stall { kind: Kind::Nats, which, stalled } => {
                self.links_of_node(which, Mode::Stall, stalled, &mut blown).await
            }
            Blow::Delay { kind: Kind::Nats, which, delayed, by } => {
                self.links_of_node(which, Mode::Delay(by), delayed, &mut blown).await
            }
            ref of_service => self.strike_service(of_service, &mut blown).await,
        };
        if let Err(error) = result {
            blown.skipped = Some(format!("{error:#}"));
        }
        blown.until = now();
        blown
    }

    async fn strike_service(&self, blow: &Blow, blown: &mut Blown) -> Result<()> {
        let Some(kind) = blown.kind else { return Ok(()) };
        let (Blow::Kill { which, .. }
        | Blow::Freeze { which, .. }
        | Blow::Drain { which, .. }
        | Blow::Cut { which, .. }
        | Blow::Stall { which, .. }
        | Blow::Delay { which, .. }
        | Blow::Jump { which, .. }) = *blow
        else {
            return Ok(());
        };
        let service = self.take(kind, which).await;
        note(blown, &service.slot, &self.watch);
        match *blow {
            Blow::Kill { down, .. } => {
                hit(service.slot.kill(), blown);
                sleep(down).await;
                service.slot.start(&self.world.keeper)?;
            }
            Blow::Freeze { frozen, .. } => {
                hit(service.slot.freeze(), blown);
                sleep(frozen).await;
                service.slot.thaw();
            }
            Blow::Drain { down, .. } => {
                drain(&service.slot, blown).await;
                sleep(down).await;
                service.slot.start(&self.world.keeper)?;
            }
            Blow::Cut { cut, .. } => self.through(&service, Mode::Cut, cut).await,
            Blow::Stall { stalled, .. } => self.through(&service, Mode::Stall, stalled).await,
            Blow::Delay { delayed, by, .. } => self.through(&service, Mode::Delay(by), delayed).await,
            Blow::Jump { offset_ms, .. } => service.jump(offset_ms)?,
            Blow::FillDisk { .. } => {}
        }
        service.busy.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn through(&self, service: &Service, mode: Mode, time: Duration) {
        service.set(mode);
        sleep(time).await;
        service.set(Mode::Open);
    }

    /// The service that is meant, or the next one that nothing is being done to. Every other orchestrator means the
    /// leader.
    async fn take(&self, kind: Kind, which: usize) -> Arc<Service> {
        let services = self.world.of(kind);
        loop {
            let first = match self.watch.leader() {
                Some(leader) if kind == Kind::Orchestrator && which.is_multiple_of(2) => {
                    services.iter().position(|s| s.slot.pid() == Some(leader)).unwrap_or(which)
                }
                _ => which,
            };
            for service in services.iter().cycle().skip(first).take(services.len()) {
                if !service.busy.swap(true, Ordering::Relaxed) {
                    return service.clone();
                }
            }
            sleep(LOOK).await;
        }
    }

    async fn strike_node(&self, which: usize, blow: &Blow, blown: &mut Blown) -> Result<()> {
        let Some(node) = self.world.nodes.get(which) else { return Ok(()) };
        note(blown, &node.slot, &self.watch);
        match *blow {
            Blow::Kill { down, .. } => {
                hit(node.slot.kill(), blown);
                sleep(down).await;
                node.slot.start(&self.world.keeper)?;
            }
            Blow::Freeze { frozen, .. } => {
                hit(node.slot.freeze(), blown);
                sleep(frozen).await;
                node.slot.thaw();
            }
            Blow::Drain { down, .. } => {
                drain(&node.slot, blown).await;
                sleep(down).await;
                node.slot.start(&self.world.keeper)?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn links_of_node(&self, which: usize, mode: Mode, time: Duration, blown: &mut Blown) -> Result<()> {
        if let Some(node) = self.world.nodes.get(which) {
            note(blown, &node.slot, &self.watch);
        }
        let links = || self.world.services.iter().filter_map(|service| service.links.get(which));
        links().for_each(|link| link.set(mode));
        sleep(time).await;
        // A service that is cut off by a blow of its own meanwhile is connected a little early.
        links().for_each(|link| link.set(Mode::Open));
        Ok(())
    }

    /// Full, a node gives JetStream up until it is started again with room.
    async fn fill_disk(&self, full: Duration, blown: &mut Blown) -> Result<()> {
        let Some(node) = self.world.nodes.iter().find(|node| node.disk.is_some()) else {
            blown.skipped = Some("no file system may be mounted here".to_owned());
            return Ok(());
        };
        note(blown, &node.slot, &self.watch);
        let filled = node.clone();
        tokio::task::spawn_blocking(move || filled.fill()).await??;
        sleep(full).await;
        node.slot.kill();
        node.free()?;
        node.slot.start(&self.world.keeper)?;
        node.full.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until all copies of all streams are as their leaders.
    async fn healed(&self) {
        let whole = async {
            let since = Instant::now();
            while since.elapsed() < LOOK * 5 || !self.watch.all_copies_are_current() {
                sleep(LOOK).await;
            }
        };
        if timeout(HEALING, whole).await.is_err() {
            eprintln!("chaos: the cluster was not whole again within {} s", HEALING.as_secs());
        }
    }
}

/// A process that had ended by itself can't be hit.
fn hit(was_hit: bool, blown: &mut Blown) {
    if !was_hit {
        blown.skipped = Some("it did not run".to_owned());
    }
}

/// Asks a process to end and waits for that; in vain, it is killed.
async fn drain(slot: &Slot, blown: &mut Blown) {
    slot.ask_to_end();
    let since = Instant::now();
    loop {
        if let Some(status) = slot.ended() {
            blown.drained = Some((i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX), status.to_string()));
            return;
        }
        if since.elapsed() >= DRAIN || slot.pid().is_none() {
            slot.kill();
            return;
        }
        sleep(LOOK / 4).await;
    }
}

fn note(blown: &mut Blown, slot: &Slot, watch: &Watch) {
    blown.target = slot.name.clone();
    blown.life = slot.lives().len().saturating_sub(1);
    blown.leader = slot.pid().is_some() && slot.pid() == watch.leader();
    blown.at = now();
}
