//! Files at their own pace, and over and over.

use kadr_shared::{
    domain::{EventData, Fact},
    id::{RunId, RunnerId},
    testkit::eventually,
};
use serde_json::json;

use crate::world::{World, clip, gate};

const RUN: RunId = RunId::from_u128(7);

/// Waits for the claim of this start, past what earlier attempts had to say.
async fn claimed(world: &mut World, start: u64) -> RunnerId {
    loop {
        let (_, envelope) = world.fact().await;
        if envelope.fact == (Fact::Claimed { start }) {
            return envelope.runner;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_looped_file_goes_on_counting_also_in_another_runner() {
    let mut world = World::start().await;
    let source = json!({"url": clip(world.folder.path(), 10), "loop": true});
    let inference = world.inference().await;
    let mut stored = 0;
    for attempt in 1..=2 {
        let runner = world.runner(1);
        let start = world.start_source(RUN, attempt, source.clone()).await;
        let name = claimed(&mut world, start).await;
        let fence = world.assign(&gate(), RUN, name).await;
        let wanted = stored + 25;
        let results = eventually("results of several rounds", || async {
            Some(world.results(&gate()).await).filter(|results| results.len() >= wanted)
        })
        .await;
        for (number, result) in results.iter().enumerate() {
            assert_eq!(result.frame, number as u64, "no hole, nothing twice");
            assert!((result.pts_ms - number as f64 * 40.0).abs() < 0.01, "{number}: {}", result.pts_ms);
        }
        assert!(inference.frames_of(fence).iter().all(|&frame| frame >= stored as u64), "nothing is analysed again");
        let progress = eventually("numbers", || async { world.runners(1).await.first()?.scenarios.first().cloned() });
        assert_eq!(progress.await.of, None, "it has no end");
        if attempt == 1 {
            runner.kill();
            stored = world.results(&gate()).await.len();
            let failed =
                EventData::AttemptFailed { run: RUN, attempt, error: "killed".into(), failures: 1, pause_ms: 0 };
            world.append(&gate(), failed).await;
        } else {
            runner.stop().await;
        }
    }
    assert!(!world.folder.path().join("recordings").join("gate").exists(), "what has no end has no recording");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_own_pace_a_file_takes_its_own_time() {
    let mut world = World::start().await;
    let source = json!({"url": clip(world.folder.path(), 20), "pace": "own"});
    let inference = world.inference().await;
    let _runner = world.runner(1);
    let start = world.start_source(RUN, 1, source).await;
    let name = claimed(&mut world, start).await;
    let fence = world.assign(&gate(), RUN, name).await;
    assert_eq!(world.fact().await.1.fact, Fact::Streaming { fence });
    assert_eq!(world.fact().await.1.fact, Fact::Ended { fence, frames: 20, of: Some(20), error: None });
    assert_eq!(inference.frames_of(fence).len(), 20, "every frame is analysed");
    let results = world.results(&gate()).await;
    let taken = results[19].captured_at.since(results[9].captured_at).as_millis();
    // 360 ms, less what the first of them came late by. At full pace they come within some milliseconds.
    assert!(taken >= 150, "{taken} ms");
}
