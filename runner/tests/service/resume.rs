//! A file goes on in another runner from the stored results, wherever the first one was killed.

use kadr_shared::{
    domain::{EventData, Fact},
    id::RunId,
    subjects,
    testkit::eventually,
};

use crate::world::{World, clip, gate};

const FRAMES: u64 = 24;
const RUN: RunId = RunId::from_u128(7);

/// Runs until `kill_at` results are stored, kills the runner, goes on in another one; gives the second fence, and how many
/// results were stored before it.
async fn killed_at(world: &mut World, kill_at: usize, between: impl AsyncFn(&World)) -> (u64, u64) {
    let source = clip(world.folder.path(), FRAMES);
    let mut fences = Vec::new();
    let mut stored = 0;
    for attempt in 1..=2 {
        let runner = world.runner(1);
        let start = world.start_scenario(&gate(), RUN, attempt, &source).await;
        let name = loop {
            // Facts of the killed one may still be on their way.
            let (_, envelope) = world.fact().await;
            if envelope.fact == (Fact::Claimed { start }) {
                break envelope.runner;
            }
        };
        fences.push(world.assign(&gate(), RUN, name).await);
        if attempt == 1 {
            eventually("results are stored", || async {
                (world.results(&gate()).await.len() >= kill_at).then_some(())
            })
            .await;
            runner.kill();
            stored = world.results(&gate()).await.last().map_or(0, |last| last.frame + 1);
            between(world).await;
            world
                .append(
                    &gate(),
                    EventData::AttemptFailed { run: RUN, attempt, error: "killed".into(), failures: 1, pause_ms: 0 },
                )
                .await;
            continue;
        }
        let fence = fences[1];
        loop {
            let (_, envelope) = world.fact().await;
            if envelope.fact == (Fact::Ended { fence, frames: FRAMES, of: Some(FRAMES), error: None }) {
                break;
            }
            assert!(!matches!(envelope.fact, Fact::Failed { fence: of, .. } if of == fence), "{envelope:?}");
        }
        runner.stop().await;
    }
    (fences[1], stored)
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_it_was_killed_each_frame_is_stored_once_and_only_the_rest_is_sent() {
    // From the first frame to the moment between the last one and the word of the end.
    for kill_at in [0, 1, 2, 5, 12, FRAMES as usize - 1, FRAMES as usize] {
        let mut world = World::start().await;
        let inference = world.inference().await;
        let (fence, stored) = killed_at(&mut world, kill_at, async |_| {}).await;
        let results = world.results(&gate()).await;
        let numbers: Vec<_> = results.iter().map(|result| result.frame).collect();
        assert_eq!(numbers, (0..FRAMES).collect::<Vec<_>>(), "killed at {kill_at}");
        assert!(results.iter().all(|result| result.detections[0].bbox[0] == result.frame as f32));
        let sent = inference.frames_of(fence);
        // What the killed one had sent off may be stored after the look, never before it.
        assert!(sent.iter().all(|frame| *frame >= stored), "{sent:?} of which {stored} were stored");
        assert!(sent.len() as u64 <= FRAMES - stored, "none is sent twice: {sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_were_evicted_meanwhile_are_not_made_again() {
    let mut world = World::start().await;
    let inference = world.inference().await;
    let (fence, stored) = killed_at(&mut world, 8, async |world| {
        let stream = world.nats.jetstream.get_stream(subjects::DETECTIONS).await.unwrap();
        stream.purge().filter(subjects::detections(&gate())).keep(3).await.unwrap();
    })
    .await;
    let numbers: Vec<_> = world.results(&gate()).await.iter().map(|result| result.frame).collect();
    assert!(numbers[0] >= stored - 3, "{numbers:?}: the first ones are gone for good");
    assert_eq!(numbers, (numbers[0]..FRAMES).collect::<Vec<_>>(), "numbers go on");
    assert!(inference.frames_of(fence).iter().all(|frame| *frame >= stored));
}
