//! Frames without an answer: those that are lost are sent again, those that wait are not, and nobody is called missing who
//! is only busy.

use futures::TryStreamExt;
use kadr_shared::{
    domain::{Fact, InterruptionKind},
    id::{RunId, ScenarioId},
    subjects,
    testkit::eventually,
};

use crate::world::{MODEL, World, clip, gate};

const RUN: RunId = RunId::from_u128(7);

/// Frames in the queue.
async fn queued(world: &World) -> usize {
    let stream = world.nats.jetstream.get_stream(subjects::FRAMES).await.unwrap();
    let counts = stream.info_with_subjects(subjects::FRAMES_ALL).await.unwrap();
    let counts: Vec<(String, usize)> = counts.try_collect().await.unwrap();
    counts.iter().map(|(_, count)| count).sum()
}

async fn all_queued(world: &World, count: usize) {
    let what = format!("{count} frames are queued");
    eventually(&what, || async { (queued(world).await >= count).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_wait_are_left_and_frames_that_are_lost_are_sent_again() {
    let mut world = World::start().await;
    let source = clip(world.folder.path(), 12);
    let _runner = world.runner(1);
    let start = world.start_scenario(&gate(), RUN, 1, &source).await;
    let name = world.claimed(start).await;
    let fence = world.assign(&gate(), RUN, name).await;
    all_queued(&world, 4).await;
    let (_, told) = world.fact().await;
    let Fact::Interrupted { kind: InterruptionKind::Inference, error, .. } = told.fact else { panic!("{told:?}") };
    assert_eq!(error, "no inference for tiny");
    // By now they were looked after.
    assert_eq!(queued(&world).await, 4, "what waits is not sent twice");

    world.nats.jetstream.get_stream(subjects::FRAMES).await.unwrap().purge().await.unwrap();
    all_queued(&world, 4).await;
    world.nats.jetstream.delete_stream(subjects::FRAMES).await.unwrap();
    kadr_shared::streams::ensure(&world.nats).await.unwrap();
    all_queued(&world, 4).await;
    let inference = world.inference().await;
    assert_eq!(world.fact().await.1.fact, Fact::Resumed { fence });
    assert_eq!(world.fact().await.1.fact, Fact::Streaming { fence });
    assert_eq!(world.fact().await.1.fact, Fact::Ended { fence, frames: 12, of: Some(12), error: None });
    assert_eq!(inference.frames_of(fence).len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_model_that_nobody_shows_a_sign_of_life_for_is_without_inference() {
    let mut world = World::start().await;
    let source = clip(world.folder.path(), 12);
    let nats = world.nats.clone();
    let signs = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(200));
        loop {
            ticks.tick().await;
            nats.client.publish(subjects::workers(&MODEL.parse().unwrap()), "".into()).await.unwrap();
        }
    });
    let _runner = world.runner(2);
    let yard: ScenarioId = "yard".parse().unwrap();
    for (id, model) in [(gate(), MODEL), (yard.clone(), "other")] {
        let start = world.start_with(&id, RUN, 1, &source, model).await;
        let name = world.claimed(start).await;
        world.assign(&id, RUN, name).await;
        all_queued(&world, if id == yard { 8 } else { 4 }).await;
    }
    // The first one to be told of has waited for less long than the other.
    let (told, _) = world.fact().await;
    assert_eq!(told, yard);
    signs.abort();
    let (told, _) = world.fact().await;
    assert_eq!(told, gate(), "the others have fallen silent");
}
