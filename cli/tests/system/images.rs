//! Streams of images in a running system: sent to the API, published on NATS, and from a camera over HTTP.

use std::process::{Child, Command, Stdio};

use kadr_shared::{
    nats::Nats,
    testkit::{eventually, free_ports},
};
use serde_json::json;

use crate::support::{
    clips::clip,
    home::{Home, MODEL},
    http,
    store::{at_least, happened, recorded, stored},
    up::Up,
};

#[tokio::test]
async fn images_that_are_sent_are_analysed_whatever_their_size() {
    let home = Home::new();
    for (file, size) in [("a.jpg", "320x240"), ("b.png", "160x240")] {
        clip(&home, file, &format!("s={size}:r=1:d=1"), "-frames:v 1 -update 1");
    }
    let up = Up::start(&home).await;
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    for (id, source) in [("sent", "push:"), ("published", "nats:shop.door")] {
        up.kadr(&home, &format!("scenario create {id} --source {source} --model {MODEL}")).await.success();
    }
    let frames = format!("{}/v1/scenarios/sent/frames", up.api);
    let read = |file| std::fs::read(home.path(file)).unwrap();
    http::send(&frames, "image/jpeg", read("a.jpg")).await.problem(409, "not_running");
    for id in ["sent", "published"] {
        up.kadr(&home, &format!("scenario start {id}")).await.success();
    }
    // Until a runner has it.
    let first = eventually("an image is taken", || async {
        let answer = http::send(&frames, "image/jpeg", read("a.jpg")).await;
        (answer.status == 202).then_some(answer.body)
    })
    .await;
    assert_eq!(first, json!({"frame": 0}));
    at_least(&nats, "sent", 1).await;
    assert_eq!(http::send(&frames, "image/png", read("b.png")).await.body, json!({"frame": 1}));
    at_least(&nats, "sent", 2).await;
    let results = recorded(&nats, "sent").await;
    let seen: Vec<_> = results.iter().map(|result| (result["frame"].clone(), result["width"].clone())).collect();
    assert_eq!(seen, [(json!(0), json!(320)), (json!(1), json!(160))]);

    eventually("published images are analysed", || async {
        nats.client.publish("shop.door", read("a.jpg").into()).await.unwrap();
        (stored(&nats, "published").await > 2).then_some(())
    })
    .await;
    up.kadr(&home, "scenario stop sent").await.success();
    happened(&nats, "sent", "deactivated").await;
    http::send(&frames, "image/jpeg", read("a.jpg")).await.problem(409, "not_running");
    up.process.stop().await.success();
}

/// ffmpeg as a camera; it ends with the test.
struct Camera(Child);

impl Camera {
    fn start(url: &str) -> Self {
        let mut command = Command::new("ffmpeg");
        command.args("-nostdin -v quiet -re -f lavfi -i testsrc2=s=320x240:r=25 -c:v mjpeg -f mpjpeg".split(' '));
        command.args(["-content_type", "multipart/x-mixed-replace;boundary=ffmpeg", "-listen", "1", url]);
        Self(command.stdout(Stdio::null()).spawn().expect("ffmpeg is installed"))
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_camera_that_sends_images_goes_away_and_comes_back() {
    let home = Home::new();
    let url = format!("http://127.0.0.1:{}/cam", free_ports(1)[0]);
    let camera = Camera::start(&url);
    let up = Up::start(&home).await;
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    up.kadr(&home, &format!("scenario create door --source {url} --model {MODEL}")).await.success();
    up.kadr(&home, "scenario start door").await.success();
    at_least(&nats, "door", 10).await;
    drop(camera);
    let told = happened(&nats, "door", "source_interrupted").await;
    assert_eq!(told["data"]["kind"], "source", "{told}");
    let before = stored(&nats, "door").await;
    let _camera = Camera::start(&url);
    happened(&nats, "door", "source_resumed").await;
    at_least(&nats, "door", before + 10).await;
    // Health is told every second.
    let door = format!("{}/v1/scenarios/door", up.api);
    eventually("a camera that is back", || async {
        let health = http::get(&door).await.body["health"].take();
        (health["camera"]["connected_since"].is_string() && health["source_fps"].is_number()).then_some(())
    })
    .await;
    up.kadr(&home, "scenario stop door").await.success();
    happened(&nats, "door", "deactivated").await;
    let results = recorded(&nats, "door").await;
    let numbers: Vec<_> = results.iter().map(|result| result["frame"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let times: Vec<_> = results.iter().map(|result| result["pts_ms"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    up.process.stop().await.success();
}
