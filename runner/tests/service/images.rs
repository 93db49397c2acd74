//! Images that somebody sends, by NATS or by the API: each is a frame, whatever its size, and its sender hears its number.

use std::{path::Path, process::Command, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::stream::{Config, DiscardPolicy},
};
use futures::StreamExt;
use kadr_shared::{
    domain::Fact,
    id::RunId,
    message::image::{CAPTURED_AT, ImageReply},
    subjects::{self, FrameClass},
    testkit::{PATIENCE, eventually},
};
use serde_json::json;

use crate::world::{World, gate};

const RUN: RunId = RunId::from_u128(7);

fn image(folder: &Path, name: &str, size: &str) -> Vec<u8> {
    let path = folder.join(name);
    let mut command = Command::new("ffmpeg");
    command.args([
        "-nostdin",
        "-v",
        "error",
        "-y",
        "-f",
        "lavfi",
        "-i",
        &format!("testsrc2=s={size}"),
        "-frames:v",
        "1",
    ]);
    assert!(command.arg(&path).status().expect("ffmpeg is installed").success());
    std::fs::read(path).unwrap()
}

/// Starts the scenario with this source.
async fn start(world: &mut World, source: serde_json::Value) -> u64 {
    let start = world.start_source(RUN, 1, source).await;
    let name = world.claimed(start).await;
    world.assign(&gate(), RUN, name).await
}

/// Sends an image as the API does; what its sender hears.
async fn send(world: &World, image: &[u8]) -> ImageReply {
    let answer = eventually("somebody listens", || async {
        world.nats.client.request(subjects::pushed(&gate()), image.to_vec().into()).await.ok()
    })
    .await;
    serde_json::from_slice(&answer.payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_others_publish_are_analysed_with_their_times() {
    let mut world = World::start().await;
    let (jpeg, png) = (image(world.folder.path(), "a.jpg", "64x48"), image(world.folder.path(), "b.png", "100x200"));
    let _inference = world.inference_of(FrameClass::Live).await;
    let _runner = world.runner(1);
    let fence = start(&mut world, json!({"url": "nats:shop.door.images"})).await;
    let mut headers = HeaderMap::new();
    headers.insert(CAPTURED_AT, "2026-01-31T12:00:00.250Z");
    // Until it listens nobody hears them.
    eventually("a first result", || async {
        let body = jpeg.clone().into();
        world.nats.client.publish_with_headers("shop.door.images", headers.clone(), body).await.unwrap();
        (!world.results(&gate()).await.is_empty()).then_some(())
    })
    .await;
    assert_eq!(world.fact().await.1.fact, Fact::Streaming { fence });
    world.nats.client.publish("shop.door.images", "no image".into()).await.unwrap();
    eventually("the other image", || async {
        world.nats.client.publish("shop.door.images", png.clone().into()).await.unwrap();
        world.results(&gate()).await.iter().any(|result| result.width == 100).then_some(())
    })
    .await;
    let results = world.results(&gate()).await;
    let first = &results[0];
    assert_eq!((first.width, first.height), (64, 48));
    assert_eq!(first.captured_at.to_string(), "2026-01-31T12:00:00.250Z");
    assert!(results.is_sorted_by(|a, b| a.frame < b.frame && a.pts_ms <= b.pts_ms));
    let camera = eventually("the one that is no image is counted", || async {
        let camera = world.runners(1).await.first()?.scenarios.first()?.camera.clone()?;
        (camera.unreadable == 1).then_some(camera)
    })
    .await;
    assert!(camera.connected_at.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_an_image_hears_its_number() {
    let mut world = World::start().await;
    let jpeg = image(world.folder.path(), "a.jpg", "64x48");
    let _inference = world.inference_of(FrameClass::Live).await;
    let runner = world.runner(1);
    start(&mut world, json!({"url": "push:"})).await;
    for frame in 0..3 {
        assert_eq!(send(&world, &jpeg).await, ImageReply::Taken { frame });
        let stored = || async { world.results(&gate()).await.iter().any(|result| result.frame == frame).then_some(()) };
        eventually("its result", stored).await;
    }
    let ImageReply::Unreadable { error } = send(&world, b"\xff\xd8\xff\xe0 and no more").await else { panic!() };
    assert!(error.contains("damaged"), "{error}");
    assert_eq!(send(&world, &jpeg).await, ImageReply::Taken { frame: 4 }, "what could not be read has its number, too");
    runner.stop().await;
    let request = world.nats.client.request(subjects::pushed(&gate()), jpeg.into());
    assert!(tokio::time::timeout(Duration::from_secs(5), request).await.unwrap().is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_on_goes_on_to_see_while_results_can_not_be_stored() {
    let mut world = World::start().await;
    let jpeg = image(world.folder.path(), "a.jpg", "64x48");
    let _inference = world.inference_of(FrameClass::Live).await;
    let _runner = world.runner(1);
    start(&mut world, json!({"url": "push:"})).await;
    send(&world, &jpeg).await;
    let stored = || async { world.results(&gate()).await.len() };
    eventually("a result", || async { (stored().await == 1).then_some(()) }).await;
    // There is room for no more.
    let detections = world.nats.jetstream.get_stream(subjects::DETECTIONS).await.unwrap();
    let full = Config { max_messages: 1, discard: DiscardPolicy::New, ..detections.cached_info().config.clone() };
    world.nats.jetstream.update_stream(full).await.unwrap();
    let mut video = world.nats.client.subscribe(subjects::video(&gate())).await.unwrap();
    let word = serde_json::to_vec(&json!({"video": true, "key": true})).unwrap();
    let looking = async {
        let mut pictures = 0;
        while pictures < 5 {
            // Words and images are lost until it has somebody to look on.
            world.nats.client.publish(subjects::watching(&gate()), word.clone().into()).await.unwrap();
            send(&world, &jpeg).await;
            while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(50), video.next()).await {
                pictures += 1;
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("video goes on");
    assert_eq!(stored().await, 1);
}
