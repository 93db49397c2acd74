//! The annotated stream by RTSP, in players that nobody here wrote, and in kadr itself.

use std::process::Command;

use kadr_shared::{
    nats::Nats,
    testkit::{TestCamera, eventually},
};

use crate::support::{
    clips::clip,
    home::{Home, MODEL},
    http,
    process::{Ended, Process},
    store::at_least,
    up::Up,
};

/// Runs a player to its end; its arguments are separated by spaces.
async fn player(line: &str) -> Ended {
    let mut words = line.split_whitespace();
    Process::start(Command::new(words.next().unwrap()).args(words)).ended().await
}

#[tokio::test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
async fn a_cameras_annotated_stream_plays_in_ffmpeg_gstreamer_and_kadr() {
    let home = Home::new();
    clip(&home, "clip.mp4", "s=320x240:r=25:d=4", "-c:v libx264 -bf 0 -g 25 -pix_fmt yuv420p");
    let camera = TestCamera::start(&home.path("clip.mp4"), 90, None, None);
    let up = Up::start(&home).await;
    let url = up.rtsp("gate").await;
    let nats = Nats::connect(&up.nats, "test").await.unwrap();

    let missing = player(&format!("ffmpeg -nostdin -v error -rtsp_transport tcp -i {url} -f null -")).await;
    assert!(missing.stderr.contains("404 there is no scenario of this id"), "{missing:?}");
    let create = async |id: &str, source: &str| {
        up.kadr(&home, &format!("scenario create {id} --source {source} --model {MODEL} --no-video")).await.success();
        up.kadr(&home, &format!("scenario start {id}")).await.success();
    };
    create("gate", &camera.url()).await;
    at_least(&nats, "gate", 5).await;

    // The second one asks for UDP first.
    for transport in ["-rtsp_transport tcp", ""] {
        let options = "-frames:v 30 -f framecrc -";
        let played = player(&format!("ffmpeg -nostdin -v warning {transport} -i {url} {options}")).await.success();
        assert_eq!(played.lines().filter(|line| !line.starts_with('#')).count(), 30, "{played}");
        assert!(played.contains("#dimensions 0: 320x240"), "{played}");
    }
    for protocols in ["protocols=tcp", ""] {
        let source = format!("rtspsrc location={url} {protocols} latency=0");
        let decode = "rtph264depay ! h264parse ! openh264dec ! fakesink num-buffers=30";
        player(&format!("gst-launch-1.0 -q {source} ! {decode}")).await.success();
    }

    create("again", &url.to_string()).await;
    at_least(&nats, "again", 10).await;
    // When its frames were taken is told by the first one's reports.
    let scenario = format!("{}/v1/scenarios/again", up.api);
    let health = eventually("kadr's own stream, analysed", || async {
        let health = http::get(&scenario).await.body["health"].take();
        (health["status"] == "ok").then_some(health)
    })
    .await;
    assert!(health["error"].is_null(), "{health}");

    let playing = Process::start(
        Command::new("ffmpeg")
            .args(format!("-nostdin -v error -rtsp_transport tcp -i {url} -f framecrc -").split_whitespace()),
    );
    // It plays.
    playing.line_after("#dimensions 0:").await;
    for id in ["again", "gate"] {
        up.kadr(&home, &format!("scenario stop {id}")).await.success();
    }
    // It ends with its scenario.
    playing.ended().await;
    up.process.stop().await.success();
}
