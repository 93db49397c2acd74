//! Cameras found by ONVIF: from the command line, and by the API where it runs.

use kadr_shared::testkit::{DeviceLike, TestDevice};
use serde_json::Value;

use crate::support::{home::Home, up::Up};

const SECRET: &str = "hunter2-and-more";

#[tokio::test]
async fn a_camera_is_found_with_its_streams_by_whoever_knows_its_password() {
    let home = Home::new();
    std::fs::write(home.path("camera.txt"), format!("{SECRET}\n")).unwrap();
    let device = TestDevice::start(DeviceLike {
        user: Some(("me".into(), SECRET.into())),
        ahead_ms: -86_400_000,
        stream: "rtsp://127.0.0.1:1/cam".into(),
        new: false,
        guarded: false,
    })
    .await;
    let host = device.url().replacen("onvif://", "", 1);

    let known = format!("discover --host {host} --wait 1 --username me --password-file camera.txt");
    let found = home.kadr(&format!("{known} --json")).await.json();
    let [camera] = found["devices"].as_array().unwrap().as_slice() else { panic!("{found}") };
    assert_eq!(camera["url"], device.url());
    let main = serde_json::json!({
        "token": "main", "name": "mainStream", "codec": "H264", "size": "1920x1080", "fps": 25.0
    });
    assert_eq!((&camera["profiles"][0], &camera["error"]), (&main, &Value::Null));
    let table = home.kadr(&known).await.success();
    assert!(table.contains(&device.url()) && table.contains("sub") && table.contains("640x360"), "{table}");
    let unknown = home.kadr(&format!("discover --host {host} --wait 1")).await.success();
    assert!(unknown.contains("asks for a user name and a password"), "{unknown}");

    let _ = rustls::crypto::ring::default_provider().install_default();
    let up = Up::start(&home).await;
    let address = format!("{}/v1/discover?wait=1&host={host}", up.api);
    let ask = reqwest::Client::new().get(&address).header("Camera-Username", "me").header("Camera-Password", SECRET);
    let shown: Value = ask.send().await.unwrap().json().await.unwrap();
    assert_eq!(shown, found, "the API shows the same");
    let bad = reqwest::get(format!("{}/v1/discover?host=me%3Ahunter2@cam", up.api)).await.unwrap();
    assert_eq!(bad.status(), 400);
    assert!(!bad.text().await.unwrap().contains("hunter2"));
    let ended = up.process.stop().await.success();
    assert!(!ended.contains(SECRET));
}
