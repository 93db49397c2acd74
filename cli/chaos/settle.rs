//! Coming to rest: waiting until everything is up, stopping what runs, the last runs with nothing broken, and what the
//! apis show when all is inactive.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use fastrand::Rng;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    load::Load,
    plan::{Ask, FILES},
    rest::Rest,
    sources::Sources,
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

/// Waits until every process runs, the streams are whole and the apis are ready.
pub async fn up(world: &World, rest: &Rest, watch: &Watch) -> Result<()> {
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
pub async fn finish(load: &Arc<Load>, seed: u64) -> Result<Vec<String>> {
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
pub async fn shown(rest: &Rest, sources: &Sources, scenarios: usize, end: u64) -> Vec<BTreeMap<String, Value>> {
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
