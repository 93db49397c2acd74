//! Who gets a start, and that none is lost.

use std::collections::BTreeMap;

use kadr_shared::{
    domain::{Cause, CommandKind, EventData, Fact, Refusal},
    id::{RunId, ScenarioId},
    subjects::{self, STARTS_CONSUMER as CONSUMER},
    testkit::eventually,
};

use crate::world::{World, gate};

const RUN: RunId = RunId::from_u128(7);

fn nowhere() -> &'static std::path::Path {
    std::path::Path::new("/nowhere.mp4")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_runner_gets_the_next_starts() {
    let mut world = World::start().await;
    let _first = world.runner(8);
    world.runners(1).await;
    let mut held = BTreeMap::<_, usize>::new();
    // Nobody answers the claims: the slots stay taken.
    for number in 0..6 {
        let id: ScenarioId = format!("s{number}").parse().unwrap();
        let start = world.start_scenario(&id, RUN, 1, nowhere()).await;
        *held.entry(world.claimed(start).await).or_default() += 1;
    }
    assert_eq!(held.values().copied().collect::<Vec<_>>(), [6]);
    let _second = world.runner(8);
    world.runners(2).await;
    for number in 6..10 {
        // The numbers that others go by are those of the last sign of life.
        eventually("the signs of life are up to date", || async {
            let busy: usize = world.runners(2).await.iter().map(|beat| beat.capacity - beat.free).sum();
            (busy == number).then_some(())
        })
        .await;
        let id: ScenarioId = format!("s{number}").parse().unwrap();
        let start = world.start_scenario(&id, RUN, 1, nowhere()).await;
        *held.entry(world.claimed(start).await).or_default() += 1;
    }
    let mut counts: Vec<_> = held.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [4, 6], "the new one got all four");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_asked_for_again_frees_who_waited_for_the_first() {
    let mut world = World::start().await;
    let _runner = world.runner(1);
    let first = world.start_scenario(&gate(), RUN, 1, nowhere()).await;
    world.claimed(first).await;
    // One slot, and it waits for an answer: asked for again, it is free.
    let second = world.start_scenario(&gate(), RUN, 1, nowhere()).await;
    let runner = world.claimed(second).await;
    let fence = world.assign(&gate(), RUN, runner).await;
    let (_, failed) = world.fact().await;
    assert!(matches!(failed.fact, Fact::Failed { fence: of, retry: false, .. } if of == fence), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_consumer_that_is_gone_is_made_again_and_old_starts_are_void() {
    let mut world = World::start().await;
    // Scenarios that have long ended, one that waits, and one whose only later event is a refusal.
    for number in 0..20 {
        let id: ScenarioId = format!("old{number}").parse().unwrap();
        world.start_scenario(&id, RUN, 1, nowhere()).await;
        world.append(&id, EventData::StopRequested { run: RUN }).await;
    }
    let yard: ScenarioId = "yard".parse().unwrap();
    world.start_scenario(&yard, RunId::from_u128(1), 1, nowhere()).await;
    world.append(&yard, EventData::StopRequested { run: RunId::from_u128(1) }).await;
    let waiting = world.start_scenario(&yard, RUN, 1, nowhere()).await;
    let refused = EventData::CommandRefused { command: CommandKind::Start, reason: Refusal::AlreadyRunning };
    world.append(&yard, refused).await;

    let _runner = world.runner(4);
    world.claimed(waiting).await;
    let stream = world.nats.jetstream.get_stream(subjects::EVENTS).await.unwrap();
    eventually("every start is settled", || async {
        let info = stream.consumer_info(CONSUMER).await.ok()?;
        (info.num_ack_pending == 0 && info.num_pending == 0).then_some(())
    })
    .await;
    stream.delete_consumer(CONSUMER).await.unwrap();
    let start = world.start_scenario(&gate(), RUN, 1, nowhere()).await;
    world.claimed(start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_of_a_newer_version_is_left_to_others_and_the_next_is_taken() {
    let mut world = World::start().await;
    let body = EventData::StartRequested {
        run: RUN,
        attempt: 1,
        settings: Box::new(serde_json::from_str(r#"{"source": {"url": "/a.mp4"}}"#).unwrap()),
    };
    let mut body = body.body(Cause { input: None, id: "test".into() }, "test".into()).unwrap();
    body.version += 1;
    let payload = serde_json::to_vec(&body).unwrap();
    let yard: ScenarioId = "yard".parse().unwrap();
    world
        .nats
        .jetstream
        .publish(subjects::event(&yard, "start_requested"), payload.into())
        .await
        .unwrap()
        .await
        .unwrap();
    let _runner = world.runner(1);
    let start = world.start_scenario(&gate(), RUN, 1, nowhere()).await;
    world.claimed(start).await;
    let stream = world.nats.jetstream.get_stream(subjects::EVENTS).await.unwrap();
    eventually("the one is kept, the other settled", || async {
        (stream.consumer_info(CONSUMER).await.ok()?.num_ack_pending == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_consumer_of_an_older_version_gets_this_ones_settings() {
    use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
    let mut world = World::start().await;
    let stream = world.nats.jetstream.get_stream(subjects::EVENTS).await.unwrap();
    let config = pull::Config {
        durable_name: Some(CONSUMER.into()),
        filter_subject: subjects::STARTS.into(),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    };
    let _: PullConsumer = stream.create_consumer(config).await.unwrap();
    let _runner = world.runner(1);
    let start = world.start_scenario(&gate(), RUN, 1, nowhere()).await;
    world.claimed(start).await;
    let info = stream.consumer_info(CONSUMER).await.unwrap();
    assert_eq!(info.config.ack_wait, std::time::Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_stops_with_a_claim_under_way_hands_the_scenario_on() {
    let mut world = World::start().await;
    let runner = world.runner(1);
    let start = world.start_scenario(&gate(), RUN, 1, nowhere()).await;
    let name = world.claimed(start).await;
    let stopping = tokio::spawn(runner.stop());
    eventually("it says that it takes no more", || async {
        let beats = world.runners(1).await;
        (beats[0].free == 0).then_some(())
    })
    .await;
    let fence = world.assign(&gate(), RUN, name).await;
    assert_eq!(world.fact().await.1.fact, Fact::Left { fence });
    stopping.await.unwrap();
}
