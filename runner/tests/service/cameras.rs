//! Cameras that nobody analyses, and a run that goes on with another attempt: what is dropped is counted, and nothing is stored
//! twice.

use std::path::Path;

use kadr_shared::{
    domain::{Fact, InterruptionKind},
    id::RunId,
    nodes::CameraProgress,
    subjects::FrameClass,
    testkit::{TestCamera, eventually},
};

use crate::world::{World, clip, gate};

const RUN: RunId = RunId::from_u128(7);

/// Waits until the runner says this of its only camera.
async fn camera(world: &World, what: &str, wanted: impl Fn(&CameraProgress) -> bool) -> CameraProgress {
    eventually(what, || async {
        let beats = world.runners(1).await;
        let camera = beats.first()?.scenarios.first()?.camera.clone()?;
        wanted(&camera).then_some(camera)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
async fn frames_that_nobody_analyses_are_given_up_and_counted_and_newer_ones_go_on() {
    let mut world = World::start().await;
    let clip = clip(world.folder.path(), 100);
    let playing = TestCamera::start(&clip, 50, None, None);
    let runner = world.runner(1);
    let start = world.start_scenario(&gate(), RUN, 1, Path::new(&playing.url())).await;
    let name = world.claimed(start).await;
    let fence = world.assign(&gate(), RUN, name).await;

    let (_, told) = world.fact().await;
    let Fact::Interrupted { kind: InterruptionKind::Inference, .. } = told.fact else { panic!("{told:?}") };
    camera(&world, "frames that are given up", |camera| camera.late >= 4 && camera.busy > 0).await;
    let inference = world.inference_of(FrameClass::Live).await;
    let facts = [world.fact().await.1.fact, world.fact().await.1.fact];
    assert_eq!(facts, [Fact::Resumed { fence }, Fact::Streaming { fence }]);
    let results = eventually("results", || async { Some(world.results(&gate()).await).filter(|r| r.len() > 20) }).await;
    assert!(results.is_sorted_by(|a, b| a.frame < b.frame && a.pts_ms < b.pts_ms));
    assert!(results[0].frame > 0, "the first ones were given up");
    assert!(!inference.frames_of(fence).is_empty());
    runner.stop().await;

    // Another attempt goes on behind what is stored, in numbers and in time.
    let stored = world.results(&gate()).await;
    let last = stored.last().unwrap();
    let _runner = world.runner(1);
    let start = world.start_scenario(&gate(), RUN, 2, Path::new(&playing.url())).await;
    let name = loop {
        let (_, told) = world.fact().await;
        if told.fact == (Fact::Claimed { start }) {
            break told.runner;
        }
    };
    world.assign(&gate(), RUN, name).await;
    let more = eventually("more results", || async {
        Some(world.results(&gate()).await).filter(|results| results.len() > stored.len() + 10)
    })
    .await;
    assert_eq!(more[..stored.len()], stored[..]);
    let next = &more[stored.len()];
    assert!(next.frame > last.frame && next.pts_ms > last.pts_ms, "{last:?}, {next:?}");
    assert!(more.is_sorted_by(|a, b| a.frame < b.frame && a.pts_ms < b.pts_ms));
}
