//! Downloads from a server of the test's own, on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers: what fails here fails the test"
)]

use std::{path::Path, sync::Once, time::Duration};

use kadr_inference::weights::{FetchError, Patience, fetch};
use kadr_shared::catalog::{Naming, WeightsFile};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const BODY: &[u8] = b"not really weights";

/// An address where one request is answered with `head` and `body`; the connection then ends, or is kept silent.
async fn serve(head: &'static str, body: &'static [u8], hang: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        if hang {
            // Until the client has gone.
            let _ = stream.read(&mut request).await;
        }
    });
    format!("http://{address}/w.safetensors")
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 18\r\nConnection: close\r\n\r\n";

fn published(url: String) -> WeightsFile {
    let sha256 = Sha256::digest(BODY).iter().map(|b| format!("{b:02x}")).collect();
    WeightsFile {
        file: "w.safetensors".into(),
        url: Some(url),
        bytes: BODY.len() as u64,
        sha256,
        naming: Naming::Candle,
    }
}

async fn download(file: &WeightsFile, folder: &Path) -> Result<Vec<(u64, u64)>, FetchError> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    let patience = Patience { connect: Duration::from_secs(5), idle: Duration::from_secs(1) };
    let mut progress = Vec::new();
    let path = fetch(file, folder, patience, |done, total| progress.push((done, total))).await?;
    assert_eq!(path, folder.join("w.safetensors"));
    Ok(progress)
}

/// The error of a download that must leave nothing behind and say how to help oneself.
async fn failure(file: &WeightsFile) -> FetchError {
    let folder = tempfile::tempdir().unwrap();
    let error = download(file, folder.path()).await.unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing may be left");
    let text = error.to_string();
    let folder = folder.path().display().to_string();
    for part in [&file.file, file.url.as_ref().unwrap(), &file.sha256, &folder] {
        assert!(text.contains(part), "{part} in {text}");
    }
    error
}

#[tokio::test]
async fn a_good_file_is_put_into_the_folder_and_progress_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("made/on/demand");
    let file = published(serve(OK, BODY, false).await);
    let progress = download(&file, &folder).await.unwrap();
    assert_eq!(std::fs::read(folder.join("w.safetensors")).unwrap(), BODY);
    assert_eq!((progress[0], progress.last()), ((0, 18), Some(&(18, 18))));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "no part is left");
}

#[tokio::test]
async fn a_file_of_another_content_is_deleted() {
    let file = published(serve(OK, b"not really weight!", false).await);
    assert!(matches!(failure(&file).await, FetchError::Digest { .. }));
}

#[tokio::test]
async fn a_file_that_is_not_there_is_told_by_the_servers_status() {
    let file = published(serve("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"", false).await);
    assert!(matches!(failure(&file).await, FetchError::Status { status: 404, .. }));
}

#[tokio::test]
async fn a_body_cut_short_is_an_error_with_what_had_come() {
    let file = published(serve(OK, &BODY[..7], false).await);
    assert!(matches!(failure(&file).await, FetchError::Broken { .. }));
    // A server that names no length just ends.
    let file = published(serve("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &BODY[..7], false).await);
    assert!(matches!(failure(&file).await, FetchError::Size { found: 7, total: 18, .. }));
}

#[tokio::test]
async fn a_body_longer_than_it_should_be_is_not_taken() {
    let long: &[u8] = b"not really weights, and more than that";
    let file = published(serve("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", long, false).await);
    assert!(matches!(failure(&file).await, FetchError::Size { total: 18, .. }));
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let file = published(serve(OK, &BODY[..7], true).await);
    assert!(matches!(failure(&file).await, FetchError::Stalled { done: 7, .. }));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = published(format!("http://{}/w.safetensors", listener.local_addr().unwrap()));
    drop(listener);
    assert!(matches!(failure(&file).await, FetchError::Request(..)));
}

#[tokio::test]
async fn a_download_under_way_is_not_disturbed_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let part = std::fs::File::create(folder.path().join("w.safetensors.part")).unwrap();
    part.try_lock().unwrap();
    let file = published("http://127.0.0.1:9/w.safetensors".into());
    assert!(matches!(download(&file, folder.path()).await, Err(FetchError::Busy { .. })));
    drop(part);
    // What a killed process left behind is no obstacle.
    let file = published(serve(OK, BODY, false).await);
    download(&file, folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_published_nowhere_says_where_to_put_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = WeightsFile { url: None, ..published(String::new()) };
    let text = download(&file, folder.path()).await.unwrap_err().to_string();
    assert!(text.contains(&file.sha256) && text.contains(&folder.path().display().to_string()), "{text}");
}
