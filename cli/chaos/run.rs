//! One run from its beginning to its verdict: start everything, carry the plan out, let it come to rest, read, check.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    Args,
    checks::{self, Evidence, Process},
    cluster,
    ghost::Ghost,
    killer::Killer,
    load::Load,
    now,
    plan::{Plan, Size, WARM_UP},
    probe, report,
    rest::Rest,
    settle::{finish, shown, up},
    sources::Sources,
    spans::Span,
    streams,
    watch::Watch,
    world::World,
};

const LOOK: Duration = Duration::from_millis(200);
/// For the nodes to find each other.
const TOGETHER: Duration = Duration::from_secs(90);

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether all held.
pub async fn run(args: Args) -> Result<bool> {
    let begun = Instant::now();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let size = Size {
        nodes: args.nodes,
        orchestrators: 3,
        runners: 4,
        inference: 2,
        apis: 2,
        states: args.states,
        kills: args.kills,
        least: Duration::from_secs_f64(args.minutes.max(0.0) * 60.0),
    };
    let plan = Plan::new(seed, &size, &args.only);
    if args.plan {
        plan.commands.iter().for_each(|command| println!("{command:?}"));
        plan.blows.iter().for_each(|blow| println!("{blow:?}"));
        return Ok(true);
    }
    let kadr = args.kadr.canonicalize().with_context(|| format!("there is no {}", args.kadr.display()))?;
    let folder = folder(&args.out, seed)?;
    let kadr = pinned(&kadr, &folder)?;
    println!(
        "chaos: SEED={seed} KILLS={} NODES={}: {} commands in {} s, {} blows, in {}",
        args.kills,
        args.nodes,
        plan.commands.len(),
        plan.load.as_secs(),
        plan.blows.len(),
        folder.display()
    );
    if !has(&kadr, b"KADR_CLOCK_OFFSET_FILE") {
        println!("chaos: this kadr knows no KADR_CLOCK_OFFSET_FILE: jumps of clocks change nothing");
    }

    let sources = Sources::make(&folder)?;
    let world = Arc::new(World::new(&folder, &kadr, &size, &sources).await?);
    if world.nodes.iter().all(|node| node.disk.is_none()) {
        println!("chaos: no file system may be mounted here: no disk is filled");
    }
    println!("chaos: {}", cluster::version()?);
    world.start_nodes()?;
    let watch = Watch::start(world.clone()).await?;
    let client = connect(&world).await?;
    world.start_services()?;
    let watched = world.clone();
    let overseer = Task(tokio::spawn(async move { watched.watch_over().await }));
    let looking = watch.clone();
    let _looking = Task(tokio::spawn(looking.run()));
    let rest = Rest::new(world.apis())?;
    up(&world, &rest, &watch).await?;
    // Before everything was up nothing was promised, and nothing is asked for.
    let load = Arc::new(Load::new(rest.clone(), sources, &world.nats(), seed).await?);
    if !load.reconfigures() {
        println!("chaos: this kadr's api takes no PUT: scenarios are reconfigured by the inbox");
    }
    println!("chaos: all is up after {} s", begun.elapsed().as_secs());

    let since = now();
    let probing = Task(tokio::spawn(probe::run(watch.clone())));
    let killer = Killer::new(world.clone(), watch.clone());
    let _haunting = Task(tokio::spawn(Ghost::new(client.clone(), seed).run()));
    let loading = tokio::spawn(load.clone().run(plan.commands));
    sleep(WARM_UP).await;
    killer.clone().run(plan.blows).await;
    world.calm()?;
    println!("chaos: the last blow fell after {} s", begun.elapsed().as_secs());
    loading.await.context("the load broke")?;
    up(&world, &rest, &watch).await?;
    // What is in the log at the end must not change while it is compared.
    drop(probing);
    let last = finish(&load, seed).await?;
    println!("chaos: at rest after {} s", begun.elapsed().as_secs());

    let context = async_nats::jetstream::new(client);
    let (inbox, events, detections) = (
        streams::read(&context, streams::INBOX).await?,
        streams::read(&context, streams::EVENTS).await?,
        streams::read(&context, streams::DETECTIONS).await?,
    );
    let shown = shown(&rest, &load.sources, size.scenarios(), events.last().map_or(0, |event| event.seq)).await;
    let processes = world.slots().map(|slot| {
        let lives = slot.lives();
        let logs = (0..lives.len()).map(|life| slot.log_of(life)).collect();
        Process { name: slot.name.clone(), kind: slot.kind, lives, logs }
    });
    let evidence = Evidence {
        inbox,
        events,
        detections,
        answers: load.answers(),
        stored: load.stored(),
        reads: load.reads(),
        shown,
        last,
        blows: killer.done(),
        spans: spans(&watch, since),
        processes: processes.collect(),
        held: watch.held(),
        fallen: world.fallen(),
    };
    let mut findings = checks::all(&evidence);
    report::count(&evidence, &mut findings);
    report::keep(&folder, &evidence, &findings)?;
    let held = report::tell(&args, seed, &folder, &findings, begun.elapsed().as_secs())?;
    drop(overseer);
    world.end();
    if held {
        forget(&folder);
    }
    Ok(held)
}

/// Of a run that held, only what it found and what was said is kept: its streams lie there as lines.
fn forget(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() && !path.ends_with("logs") {
            // A file system that is still mounted is emptied, and taken away by the keeper.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// When nothing was promised, from the load's beginning on.
fn spans(watch: &Watch, since: i64) -> Vec<Span> {
    let mut spans = watch.spans();
    spans.retain(|span| span.from >= since);
    spans.sort_by_key(|span| span.from);
    spans
}

/// A new folder for this run.
fn folder(out: &Path, seed: u64) -> Result<PathBuf> {
    std::fs::create_dir_all(out).with_context(|| format!("can't make {}", out.display()))?;
    let out = out.canonicalize()?;
    for number in 0..10_000 {
        let folder = out.join(format!("seed-{seed}.{number}"));
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => {
                result.with_context(|| format!("can't make {}", folder.display()))?;
                return Ok(folder);
            }
        }
    }
    bail!("{} is full of runs: delete some", out.display())
}

/// The binary under a name of this run's: a build meanwhile must not put another one into its place.
fn pinned(kadr: &Path, folder: &Path) -> Result<PathBuf> {
    let own = folder.join("kadr");
    if std::fs::hard_link(kadr, &own).is_err() {
        std::fs::copy(kadr, &own).with_context(|| format!("can't copy {}", kadr.display()))?;
    }
    Ok(own)
}

/// Whether a file has these bytes in it.
fn has(file: &Path, bytes: &[u8]) -> bool {
    std::fs::read(file).is_ok_and(|text| text.windows(bytes.len()).any(|window| window == bytes))
}

/// A connection to the nodes themselves, once they make a cluster.
async fn connect(world: &World) -> Result<async_nats::Client> {
    let options = async_nats::ConnectOptions::new()
        .name("chaos")
        .retry_on_initial_connect()
        .request_timeout(Some(Duration::from_secs(5)))
        .reconnect_delay_callback(|_| Duration::from_millis(200));
    let client = options.connect(world.nats()).await?;
    let deadline = Instant::now() + TOGETHER;
    while Instant::now() < deadline {
        let asked = client.request("$JS.API.INFO", "".into()).await;
        if asked.is_ok_and(|answer| {
            serde_json::from_slice::<Value>(&answer.payload).is_ok_and(|a| a.get("error").is_none())
        }) {
            return Ok(client);
        }
        sleep(LOOK).await;
    }
    bail!("the NATS nodes have not found each other within {} s", TOGETHER.as_secs())
}
