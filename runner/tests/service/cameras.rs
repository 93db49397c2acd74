//! Cameras that nobody analyses, and a run that goes on with another attempt: what is dropped is counted, and nothing is stored
//! twice.

use std::path::Path;

use kadr_shared::{
    domain::{Fact, InterruptionKind},
    id::RunId,
    nodes::{CameraProgress, Progress},
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

/// A clip of so many pictures of this size and rate.
fn filmed(folder: &Path, size: &str, rate: u32, frames: u32) -> std::path::PathBuf {
    let path = folder.join(format!("{size}.mp4"));
    let mut command = std::process::Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", &format!("testsrc2=s={size}:r={rate}")]);
    command.args(["-frames:v", &frames.to_string(), "-c:v", "libx264", "-bf", "0", "-g", "10", "-pix_fmt", "yuv420p"]);
    assert!(command.arg(&path).status().expect("ffmpeg is installed").success());
    path
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
async fn a_camera_is_replaced_by_one_of_another_size() {
    let mut world = World::start().await;
    let [small, large] = ["64x64", "320x240"].map(|size| filmed(world.folder.path(), size, 25, 100));
    let playing = TestCamera::start(&small, 50, None, None);
    let _inference = world.inference_of(FrameClass::Live).await;
    let _runner = world.runner(1);
    let start = world.start_scenario(&gate(), RUN, 1, Path::new(&playing.url())).await;
    let name = world.claimed(start).await;
    let fence = world.assign(&gate(), RUN, name).await;
    assert_eq!(world.fact().await.1.fact, Fact::Streaming { fence });
    let port = playing.port();
    drop(playing);
    let (_, told) = world.fact().await;
    assert!(matches!(told.fact, Fact::Interrupted { kind: InterruptionKind::Source, .. }), "{told:?}");
    let _other = TestCamera::start(&large, 50, Some(port), None);
    assert_eq!(world.fact().await.1.fact, Fact::Resumed { fence });
    let results = eventually("results of the larger one", || async {
        let results = world.results(&gate()).await;
        (results.iter().filter(|result| result.width == 320).count() > 10).then_some(results)
    })
    .await;
    let sizes: Vec<_> = results.iter().map(|result| (result.width, result.height)).collect();
    let change = sizes.iter().position(|size| *size == (320, 240)).unwrap();
    assert!(change > 0 && sizes[..change].iter().all(|size| *size == (64, 64)), "{sizes:?}");
    assert!(sizes[change..].iter().all(|size| *size == (320, 240)), "{sizes:?}");
    assert!(results.is_sorted_by(|a, b| a.frame < b.frame && a.pts_ms < b.pts_ms));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
async fn one_of_eight_that_hangs_costs_the_others_nothing() {
    let mut world = World::start().await;
    let clip = filmed(world.folder.path(), "64x64", 10, 100);
    let playing = TestCamera::start(&clip, 50, None, None);
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = format!("rtsp://{}/cam", silent.local_addr().unwrap());
    let _inference = world.inference_of(FrameClass::Live).await;
    let _runner = world.runner(8);
    for number in 0..8u128 {
        let scenario = format!("camera-{number}").parse().unwrap();
        let address = if number == 3 { &hung } else { &playing.url() };
        let run = RunId::from_u128(number + 1);
        let start = world.start_scenario(&scenario, run, 1, Path::new(address)).await;
        let claimed = loop {
            let (_, told) = world.fact().await;
            if told.fact == (Fact::Claimed { start }) {
                break told.runner;
            }
        };
        world.assign(&scenario, run, claimed).await;
    }
    let hung = RunId::from_u128(4);
    let progress = eventually("seven that are analysed, and one that hangs", || async {
        let progress = world.runners(1).await.first()?.scenarios.clone();
        let told = |p: &Progress| p.trouble.as_ref().is_some_and(|trouble| trouble.contains("answer"));
        // Ten frames a second come.
        let good = |p: &Progress| p.analysed_fps.is_some_and(|fps| fps > 8.0) && p.frames > 60;
        let as_wanted = |p: &Progress| if p.run == hung { told(p) } else { good(p) };
        (progress.len() == 8 && progress.iter().all(as_wanted)).then_some(progress)
    })
    .await;
    for one in progress.iter().filter(|one| one.run != hung) {
        assert!(one.dropped * 5 < one.frames && one.trouble.is_none(), "{one:?}");
    }
}
