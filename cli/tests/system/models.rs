//! `kadr models`: what is there, and fetching what is not, from a loopback server with a test's manifest.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::home::Home;

/// Answers every request with the same bytes; counts them. Its thread ends with the test's process.
fn serve(bytes: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/weights", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = BufReader::new(stream.try_clone().unwrap()).lines();
            let _: Vec<_> = head.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
            // A client that has seen enough may be gone.
            let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(&bytes));
        }
    });
    (address, requests)
}

/// The manifest names this address; the weights are not there.
fn published(home: &Home, address: &str) -> Vec<u8> {
    let weights = home.models().join("tiny.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::remove_file(weights).unwrap();
    home.change_manifest("[[model.files]]\n", &format!("[[model.files]]\nurl = \"{address}\"\n"));
    bytes
}

#[tokio::test]
async fn models_are_listed_with_their_weights() {
    let home = Home::new();
    let path = home.models().join("tiny.safetensors").display().to_string();
    let listed = home.kadr("models list").await.success();
    assert!(listed.contains("tiny") && listed.contains("CC0-1.0") && listed.contains(&path), "{listed}");
    let listed = home.kadr("models list --json").await.json();
    let model = &listed.as_array().unwrap()[0];
    assert_eq!((&model["name"], &model["path"], &model["licence"]), (&"tiny".into(), &path.into(), &"CC0-1.0".into()));
    assert_eq!(model["labels"], serde_json::json!(["person", "car", "bus"]));

    fs::write(home.models().join("tiny.safetensors"), "cut").unwrap();
    let listed = home.kadr("models list").await.success();
    assert!(listed.contains("not usable") && listed.contains("3 bytes"), "{listed}");
    fs::remove_file(home.models().join("tiny.safetensors")).unwrap();
    let listed = home.kadr("models list").await.success();
    assert!(listed.contains("not here"), "{listed}");
}

#[tokio::test]
async fn without_a_manifest_of_ones_own_the_built_in_models_are_listed() {
    let home = Home::without_model();
    let listed = home.kadr("models list --json").await.json();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|model| model["name"].clone()).collect();
    assert_eq!(names, ["yolov8n", "yolov8s", "yolov8m", "yolov8l", "yolov8x"]);
}

#[tokio::test]
async fn weights_are_fetched_verified_and_not_fetched_again() {
    let home = Home::new();
    let weights = home.models().join("tiny.safetensors");
    let (address, requests) = serve(fs::read(&weights).unwrap());
    let bytes = published(&home, &address);
    let fetched = home.kadr("models fetch tiny --if-missing").await.success();
    assert!(fetched.contains("tiny.safetensors") && fetched.contains("CC0-1.0"), "{fetched}");
    assert_eq!(fs::read(&weights).unwrap(), bytes);
    assert_eq!(home.names_in("models"), ["manifest.toml", "tiny.safetensors"]);
    assert_eq!(home.kadr("models fetch tiny --if-missing").await.success(), "");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    home.kadr("models fetch tiny").await.success();
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    home.kadr("models fetch other").await.failed(2, &["no model other", "tiny"]);
}

#[tokio::test]
async fn an_analysis_fetches_what_it_needs() {
    let home = Home::new();
    crate::support::clips::plain(&home, "clip.mp4", 2);
    let (address, requests) = serve(fs::read(home.models().join("tiny.safetensors")).unwrap());
    published(&home, &address);
    home.analyze("clip.mp4", "out", "").await.success();
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_comes_damaged_is_not_kept() {
    let home = Home::new();
    let mut damaged = fs::read(home.models().join("tiny.safetensors")).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    let (address, _) = serve(damaged);
    published(&home, &address);
    let folder = home.models().display().to_string();
    home.kadr("models fetch tiny").await.failed(2, &["sha256", "deleted", &address, &folder]);
    assert_eq!(home.names_in("models"), ["manifest.toml"]);
}

#[tokio::test]
async fn an_imported_file_is_a_model_with_labels_and_a_wrong_one_changes_nothing() {
    let home = Home::new();
    kadr_inference::testkit::write_tiny_model(&home.path("theirs"), 7);
    let file = home.path("theirs").join("tiny.safetensors").display().to_string();
    let import = |rest: &str| format!("models import {file} {rest}");
    home.kadr(&import("--name mine --labels a,b")).await.failed(2, &["3 classes", "--labels"]);
    home.kadr(&import("--name tiny")).await.failed(2, &["choose another --name"]);
    let manifest = home.models().join("manifest.toml").display().to_string();
    let no_weights = home.kadr(&format!("models import {manifest} --name mine")).await;
    no_weights.failed(2, &["none of the files that can be imported"]);
    home.kadr(&import(&format!("--name mine --image {manifest}"))).await.failed(2, &["no image"]);
    assert_eq!(home.names_in("models"), ["manifest.toml", "tiny.safetensors"]);

    let told = home.kadr(&import("--name mine --labels a,b,c --licence MIT")).await.success();
    for part in ["safetensors", "3 classes", "agree", "mine.safetensors", "MIT"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let listed = home.kadr("models list --json").await.json();
    let model = |name: &str| listed.as_array().unwrap().iter().find(|model| model["name"] == name).unwrap().clone();
    assert_eq!(model("mine")["labels"], serde_json::json!(["a", "b", "c"]));
    assert_eq!(model("mine")["error"], serde_json::Value::Null);
    assert_eq!(model("tiny")["error"], serde_json::Value::Null);
}
