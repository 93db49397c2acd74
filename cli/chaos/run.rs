//! One run from its beginning to its verdict: start everything, carry the plan out, let it come to rest, read, check.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use reqwest::StatusCode;
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
    plan::{Ask, FILES, Plan, Size, WARM_UP},
    report,
    rest::Rest,
    sources::Sources,
    spans::Span,
    streams,
    watch::Watch,
    world::World,
};

const LOOK: Duration = Duration::from_millis(200);
/// For everything to be up, at the beginning and after the last blow.
const UP: Duration = Duration::from_secs(90);
/// For the last clips to complete, and for all scenarios to be inactive.
const COMPLETE: Duration = Duration::from_secs(180);
const REST: Duration = Duration::from_secs(120);
/// For the projections to have read the log to its end.
const PROJECTED: Duration = Duration::from_secs(30);

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
    let killer = Killer::new(world.clone(), watch.clone());
    let _haunting = Task(tokio::spawn(Ghost::new(client.clone(), seed).run()));
    let loading = tokio::spawn(load.clone().run(plan.commands));
    sleep(WARM_UP).await;
    killer.clone().run(plan.blows).await;
    world.calm()?;
    println!("chaos: the last blow fell after {} s", begun.elapsed().as_secs());
    loading.await.context("the load broke")?;
    up(&world, &rest, &watch).await?;
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
    let deadline = Instant::now() + UP;
    while Instant::now() < deadline {
        let asked = client.request("$JS.API.INFO", "".into()).await;
        if asked.is_ok_and(|answer| {
            serde_json::from_slice::<Value>(&answer.payload).is_ok_and(|a| a.get("error").is_none())
        }) {
            return Ok(client);
        }
        sleep(LOOK).await;
    }
    bail!("the NATS nodes have not found each other within {} s", UP.as_secs())
}

/// Waits until every process runs, the streams are whole and the apis are ready.
async fn up(world: &World, rest: &Rest, watch: &Watch) -> Result<()> {
    let deadline = Instant::now() + UP;
    loop {
        let awake = world.slots().all(|slot| slot.awake()) && watch.leader().is_some();
        if awake && watch.all_copies_are_current() && ready(rest).await {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let asleep: Vec<_> = world.slots().filter(|slot| !slot.awake()).map(|slot| slot.name.as_str()).collect();
            bail!(
                "not everything is up within {} s: not awake: {asleep:?}, leader: {:?}, copies are current: {}",
                UP.as_secs(),
                watch.leader(),
                watch.all_copies_are_current()
            );
        }
        sleep(LOOK).await;
    }
}

async fn ready(rest: &Rest) -> bool {
    for api in 0..rest.apis.len() {
        if rest.get(api, "/health/ready").await.is_none_or(|(status, _)| status != StatusCode::OK) {
            return false;
        }
    }
    true
}

/// Stops what runs, starts each clip once more with nothing broken, and waits until all is inactive. Gives the scenarios
/// of those clips.
async fn finish(load: &Arc<Load>, seed: u64) -> Result<Vec<String>> {
    let mut random = Rng::with_seed(seed);
    let clips: Vec<_> = (0..FILES).map(|clip| load.sources.name(clip)).collect();
    let deadline = Instant::now() + REST;
    stop_all(load, &mut random, "stop", |id| !clips.iter().any(|clip| clip == id), deadline).await?;
    settle(load, &clips, Instant::now() + COMPLETE).await?;
    for (number, clip) in clips.iter().enumerate() {
        let settings = load.sources.settings(number, 0);
        for (ask, key) in [(Ask::Create, "create"), (Ask::Start, "start")] {
            load.ask(&mut random, clip, ask, &settings, &format!("chaos-{seed}-last-{key}-{number}")).await;
        }
    }
    settle(load, &clips, Instant::now() + COMPLETE).await?;
    stop_all(load, &mut random, "end", |_| true, Instant::now() + REST).await?;
    Ok(clips)
}

/// What does not rest, as the first api that answers has it.
async fn restless(load: &Load) -> Option<Vec<String>> {
    for api in 0..load.rest.apis.len() {
        if let Some(all) = load.rest.list(api).await {
            let running = all.iter().filter(|one| one.get("state").and_then(Value::as_str) != Some("inactive"));
            return Some(running.filter_map(|one| Some(one.get("id")?.as_str()?.to_owned())).collect());
        }
    }
    None
}

/// Stops scenarios until none of them runs.
async fn stop_all(
    load: &Arc<Load>,
    random: &mut Rng,
    what: &str,
    which: impl Fn(&str) -> bool,
    deadline: Instant,
) -> Result<()> {
    for round in 0.. {
        let running: Vec<_> = restless(load).await.unwrap_or_default().into_iter().filter(|id| which(id)).collect();
        if running.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("these did not come to rest within {} s: {running:?}", REST.as_secs());
        }
        for id in &running {
            let key = format!("chaos-{what}-{round}-{id}");
            load.ask(random, id, Ask::Stop, &Value::Null, &key).await;
        }
        sleep(LOOK * 5).await;
    }
    Ok(())
}

/// Waits until these are inactive; late ones are told by the checks.
async fn settle(load: &Load, which: &[String], deadline: Instant) -> Result<()> {
    while Instant::now() < deadline {
        if restless(load).await.is_some_and(|running| !running.iter().any(|id| which.contains(id))) {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    println!("chaos: the clips did not end by themselves in time");
    Ok(())
}

/// What each api shows of each scenario once it has read the log to its end, or when its time is up.
async fn shown(rest: &Rest, sources: &Sources, scenarios: usize, end: u64) -> Vec<BTreeMap<String, Value>> {
    let mut all = Vec::new();
    for api in 0..rest.apis.len() {
        let deadline = Instant::now() + PROJECTED;
        while Instant::now() < deadline {
            let health = rest.get(api, "/health/ready").await;
            if health.is_some_and(|(_, health)| health.pointer("/projection/seq").and_then(Value::as_u64) >= Some(end))
            {
                break;
            }
            sleep(LOOK).await;
        }
        let mut shown = BTreeMap::new();
        for scenario in 0..scenarios {
            let id = sources.name(scenario);
            let found = match rest.get(api, &format!("/v1/scenarios/{id}")).await {
                Some((StatusCode::OK, body)) => body,
                Some((StatusCode::NOT_FOUND, _)) => Value::Null,
                other => Value::String(format!("{other:?}")),
            };
            shown.insert(id, found);
        }
        all.push(shown);
    }
    all
}
