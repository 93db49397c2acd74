//! Results as text, wherever they are had: files, the API, the command line, a webhook.

use std::sync::{Arc, Mutex};

use kadr_shared::{nats::Nats, testkit::eventually};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    clips::plain,
    home::Home,
    process::Process,
    store::{everything_stored, happened, log_of, recorded},
    up::Up,
};

const FRAMES: usize = 20;
const SECRET: &str = "hunter2-and-more";

/// A request's head and body.
type Request = (String, Value);

/// Takes everything that is posted to it.
async fn receiver() -> (String, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let came = Arc::<Mutex<Vec<Request>>>::default();
    let noted = came.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read(&mut stream).await;
            noted.lock().unwrap().push(request);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
        }
    });
    (url, came)
}

async fn read(stream: &mut TcpStream) -> Request {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            return (head.to_lowercase(), body);
        }
    }
}

#[tokio::test]
async fn results_are_the_same_in_files_over_the_api_and_at_a_webhook_whose_secret_is_never_shown() {
    let home = Home::new();
    plain(&home, "clip.mp4", FRAMES as u32);
    std::fs::write(home.path("secret.txt"), format!("{SECRET}\n")).unwrap();
    let (url, came) = receiver().await;
    let up = Up::start(&home).await;
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    let outputs = format!("--files jsonl,csv --webhook {url} --webhook-secret-file secret.txt");
    let create = format!("scenario create gate --source clip.mp4 --model tiny --no-video {outputs} --json");
    let created = up.kadr(&home, &create).await.json();
    assert_eq!(created["settings"]["outputs"]["webhook"], serde_json::json!({"url": url}));

    let mut follow = home.command(["scenario", "detections", "gate", "--follow", "--from", "1", "--api", &up.api]);
    let follow = Process::start(&mut follow);
    up.kadr(&home, "scenario start gate").await.success();
    happened(&nats, "gate", "deactivated").await;
    let results = recorded(&nats, "gate").await;
    assert_eq!(results.len(), FRAMES);
    let lines: String = results.iter().map(|result| format!("{}\n", serde_json::to_string(result).unwrap())).collect();
    let parsed = |text: &str| text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();

    let names = home.names_in("data/recordings/gate");
    let [table, jsonl] = names.as_slice() else { panic!("{names:?}") };
    let file = |name: &str| std::fs::read_to_string(home.path(&format!("data/recordings/gate/{name}"))).unwrap();
    assert_eq!(parsed(&file(jsonl)), parsed(&lines));
    assert_eq!(parsed(&up.kadr(&home, "scenario detections gate").await.success()), parsed(&lines));
    let printed = up.kadr(&home, "scenario detections gate --format csv").await.success();
    assert_eq!(printed, file(table));
    assert!(printed.starts_with("scenario,run,frame,"), "{printed}");
    eventually("all is printed as it came", || async { (follow.stdout().lines().count() >= FRAMES).then_some(()) })
        .await;
    assert_eq!(parsed(&follow.stop().await.success()), parsed(&lines));

    let told =
        || came.lock().unwrap().iter().flat_map(|(_, body)| body["results"].as_array().unwrap().clone()).collect();
    let mut told: Vec<Value> = eventually("the webhook was told of all", || async {
        Some(told()).filter(|told: &Vec<Value>| told.len() >= FRAMES)
    })
    .await;
    for result in &mut told {
        result.as_object_mut().unwrap().remove("seq");
    }
    assert_eq!(told, results);
    assert!(came.lock().unwrap().iter().all(|(head, _)| head.contains("kadr-signature: t=")));

    let shown = up.kadr(&home, "scenario get gate --json").await.success();
    let log = serde_json::to_string(&log_of(&nats, "gate").await).unwrap();
    assert!(log.contains("webhook") && !log.contains(SECRET) && !shown.contains(SECRET));
    assert!(!everything_stored(&nats).await.contains(SECRET));
    let ended = up.process.stop().await.success();
    assert!(!ended.contains(SECRET));
}
