//! NATS away for a while, wholly or in part, or without room: everything goes on by itself, and nothing is lost or done
//! twice.

use std::path::Path;

use kadr_shared::{nats::Nats, server::Server, streams, subjects, testkit::eventually};
use tempfile::TempDir;

use crate::support::{
    cluster::Cluster,
    process::shell,
    store::{happened, stored},
    world::{ID, World},
};

const FRAMES: usize = 120;

/// A server that can be ended and started again where it was.
async fn server(folder: &Path, port: u16) -> Server {
    Server::start(folder, port).await.unwrap()
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

/// That a run went on through an outage in which nobody failed: the runner may have handed it on, to itself.
fn nobody_failed(ends: &[String]) {
    assert!(ends.iter().all(|end| end == "runner_left"), "{ends:?}");
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again_is_all_that_a_run_needs() {
    let folder = TempDir::with_prefix("kadr-nats-").unwrap();
    let mut first = server(folder.path(), 0).await;
    let url = first.url().to_owned();
    let nats = Nats::connect(&url, "test").await.unwrap();
    streams::ensure(&nats).await.unwrap();
    let world = World::on(&url, nats, FRAMES).await;
    let _services = world.running().await;

    shell(&format!("kill -KILL {}", first.pid()));
    first.ended().await;
    let second = server(folder.path(), port_of(&url)).await;
    nobody_failed(&world.completed(ID).await);
    // A scenario more, from the beginning: everything is there again.
    world.create_and_start("yard").await;
    world.completed("yard").await;
    second.stop().await;
}

#[tokio::test]
async fn an_outage_longer_than_the_lease_hands_the_scenario_over_and_counts_no_failure() {
    let folder = TempDir::with_prefix("kadr-nats-").unwrap();
    let first = server(folder.path(), 0).await;
    let url = first.url().to_owned();
    let nats = Nats::connect(&url, "test").await.unwrap();
    streams::ensure(&nats).await.unwrap();
    let world = World::on(&url, nats, FRAMES).await;
    let services = world.running().await;

    first.stop().await;
    services.runner.line_after("could not renew the runner's key").await;
    let second = server(folder.path(), port_of(&url)).await;
    let types = world.completed(ID).await;
    assert!(!types.iter().any(|kind| kind == "attempt_failed"), "{types:?}");
    assert!(types.iter().any(|kind| kind == "runner_left"), "{types:?}");
    assert_ne!(world.runner_of(ID, 1).await, world.runner_of(ID, 2).await);
    second.stop().await;
}

#[tokio::test]
async fn a_cluster_that_loses_a_node_loses_nothing_else() {
    let (mut cluster, nats) = Cluster::start().await;
    let world = World::on(&cluster.urls.join(","), nats, FRAMES).await;
    let _services = world.running().await;

    // Whoever holds the frames and the keys is not known: the one that leads the log is as good as any.
    let log = world.nats.jetstream.get_stream(subjects::EVENTS).await.unwrap();
    let leader = log.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone()).unwrap();
    let before = stored(&world.nats, ID).await;
    cluster.kill(&leader);
    stored_again(&world, before).await;
    cluster.restart(&leader).await;
    let last = happened(&world.nats, ID, "deactivated").await;
    assert_eq!(last["data"]["reason"], "completed", "{last}");
    world.completed(ID).await;
}

/// Waits for results that are stored without the lost node, more than can have been on their way. The run may well be
/// over by the time at which that can be told again.
async fn stored_again(world: &World, before: usize) {
    eventually("results are stored again", || async { count(world).await.filter(|&count| count > before + 10) }).await;
}

/// Stored results, if that can be told now.
async fn count(world: &World) -> Option<usize> {
    use futures::TryStreamExt;
    let stream = world.nats.jetstream.get_stream(subjects::DETECTIONS).await.ok()?;
    let subject = subjects::detections(&ID.parse().unwrap());
    let counts: Vec<(String, usize)> = stream.info_with_subjects(&subject).await.ok()?.try_collect().await.ok()?;
    Some(counts.iter().map(|(_, count)| count).sum())
}

#[tokio::test]
async fn results_without_room_wait_are_told_of_and_are_stored_once_there_is_room() {
    use kadr_shared::testkit::PATIENCE;

    let world = World::start(FRAMES).await;
    let _services = world.running().await;

    let wanted = room(&world, None).await;
    let trouble = eventually("the trouble is told", || async {
        world.beats().await.into_values().flat_map(|beat| beat.scenarios).find_map(|scenario| scenario.trouble)
    })
    .await;
    assert!(trouble.starts_with("can't store results: ") && trouble.contains("maximum bytes"), "{trouble}");
    let full = stored(&world.nats, ID).await;
    assert!(full < FRAMES, "there was room for all");
    room(&world, Some(wanted)).await;
    tokio::time::timeout(PATIENCE, world.completed(ID)).await.unwrap();
}

/// Takes the detections' room away, or gives it back; the limit that was there before.
async fn room(world: &World, limit: Option<i64>) -> i64 {
    use async_nats::jetstream::stream::DiscardPolicy;

    let stream = world.nats.jetstream.get_stream(subjects::DETECTIONS).await.unwrap();
    let info = stream.cached_info();
    let before = info.config.max_bytes;
    let (max_bytes, discard) = match limit {
        Some(limit) => (limit, DiscardPolicy::Old),
        // As much as there is: the next result is refused.
        None => (i64::try_from(info.state.bytes).unwrap(), DiscardPolicy::New),
    };
    let config = async_nats::jetstream::stream::Config { max_bytes, discard, ..info.config.clone() };
    world.nats.jetstream.update_stream(config).await.unwrap();
    before
}
