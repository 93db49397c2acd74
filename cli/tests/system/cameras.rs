//! A real camera in a running system: it is analysed, goes away, comes back, and its password is never seen.

use kadr_shared::{
    nats::Nats,
    subjects,
    testkit::{TestCamera, eventually},
};
use serde_json::{Value, json};

use crate::support::{
    clips::clip,
    home::{Home, MODEL},
    http,
    store::{at_least, everything_stored, happened, log_of, recorded, stored},
    up::Up,
};

const SECRET: &str = "hunter2-and-more";

/// Waits until a scenario's health is so.
async fn health(up: &Up, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let address = format!("{}/v1/scenarios/{id}", up.api);
    eventually(what, || async {
        let scenario = http::get(&address).await.body;
        wanted(&scenario["health"]).then_some(scenario)
    })
    .await
}

#[tokio::test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
async fn a_camera_goes_away_and_comes_back_and_its_password_is_never_shown() {
    let home = Home::new();
    clip(&home, "clip.mp4", "s=320x240:r=25:d=4", "-c:v libx264 -bf 0 -g 25 -pix_fmt yuv420p");
    let start = |port| TestCamera::start(&home.path("clip.mp4"), 30, port, Some(("me", SECRET)));
    let camera = start(None);
    let up = Up::start(&home).await;
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    let scenarios = format!("{}/v1/scenarios", up.api);

    let source = json!({"url": camera.url(), "username": "me", "password": SECRET});
    let settings = json!({"source": source, "model": MODEL});
    let created = http::post(&format!("{scenarios}?id=gate"), Some("make"), &settings).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.body["settings"]["source"], json!({"url": camera.url(), "username": "me"}));
    // A repeat is the same command; with another password it is another one.
    assert_eq!(http::post(&format!("{scenarios}?id=gate"), Some("make"), &settings).await.status, 201);
    let mut other = settings.clone();
    other["source"]["password"] = "guess".into();
    http::post(&format!("{scenarios}?id=gate"), Some("make"), &other).await.problem(409, "idempotency_conflict");

    up.kadr(&home, "scenario start gate").await.success();
    let scenario = health(&up, "gate", "a camera that plays", |h| {
        h["status"] == "ok" && h["source_fps"].as_f64().is_some_and(|fps| fps > 0.0)
    })
    .await;
    assert!(scenario["health"]["camera"]["connected_since"].is_string(), "{scenario}");
    assert_eq!(scenario["progress"]["of"], Value::Null);
    at_least(&nats, "gate", 10).await;

    let port = camera.port();
    drop(camera);
    let told = happened(&nats, "gate", "source_interrupted").await;
    assert_eq!(told["data"]["kind"], "source", "{told}");
    let gone = health(&up, "gate", "a camera that is gone", |h| {
        h["status"] == "reconnecting" && h["error"].as_str().is_some_and(|e| e.contains("nothing accepts"))
    })
    .await;
    assert_eq!((&gone["state"], &gone["health"]["camera"]["connected_since"]), (&json!("active"), &Value::Null));

    let before = stored(&nats, "gate").await;
    let _camera = start(Some(port));
    happened(&nats, "gate", "source_resumed").await;
    at_least(&nats, "gate", before + 10).await;
    let back = health(&up, "gate", "a camera that is back", |h| h["status"] == "ok" && h["error"].is_null()).await;
    assert!(back["health"]["camera"]["reconnects"].as_u64().is_some_and(|n| n >= 1), "{back}");

    up.kadr(&home, "scenario stop gate").await.success();
    happened(&nats, "gate", "deactivated").await;
    let results = recorded(&nats, "gate").await;
    let numbers: Vec<_> = results.iter().map(|result| result["frame"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let times: Vec<_> = results.iter().map(|result| result["pts_ms"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");

    let log = serde_json::to_string(&log_of(&nats, "gate").await).unwrap();
    assert!(!log.contains(SECRET) && !everything_stored(&nats).await.contains(SECRET));
    up.kadr(&home, "scenario delete gate").await.success();
    let secrets = nats.jetstream.get_stream(subjects::SECRETS_STREAM).await.unwrap();
    assert_eq!(secrets.cached_info().state.messages, 0, "it goes with its scenario");
    let ended = up.process.stop().await.success();
    assert!(!ended.contains(SECRET));
}

#[tokio::test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
async fn a_camera_that_is_not_there_is_told_and_stopped() {
    let home = Home::new();
    let up = Up::start(&home).await;
    up.kadr(&home, &format!("scenario create gate --source rtsp://127.0.0.1:1/cam --model {MODEL}")).await.success();
    up.kadr(&home, "scenario start gate").await.success();
    let scenario = health(&up, "gate", "a camera that is not there", |h| h["status"] == "reconnecting").await;
    let error = scenario["health"]["error"].as_str().unwrap();
    assert!(error.contains("nothing accepts connections at 127.0.0.1:1"), "{error}");
    assert_eq!(scenario["state"], "in_startup_processing");
    up.kadr(&home, "scenario stop gate").await.success();
    health(&up, "gate", "a stop", |h| h["status"] == "idle").await;
    up.process.stop().await.success();
}
