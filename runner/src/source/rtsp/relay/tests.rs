use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A relay, and the camera's side of its connection.
async fn relay() -> (Relay, TcpStream) {
    let camera = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rtsp://{}/cam", camera.local_addr().unwrap()).parse().unwrap();
    let relay = Relay::open(&Access::new(url)).await.unwrap();
    (relay, camera.accept().await.unwrap().0)
}

async fn join(relay: &Relay) -> io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", relay.url.port().unwrap())).await
}

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await.expect("it ends");
    bytes
}

#[tokio::test]
async fn who_comes_first_without_knowing_the_address_gets_nothing() {
    let (relay, mut camera) = relay().await;
    let mut stranger = join(&relay).await.unwrap();
    let port = relay.url.port().unwrap();
    camera.write_all(b"RTSP/1.0 200 OK\r\n").await.unwrap();
    let request = format!("DESCRIBE rtsp://127.0.0.1:{port}/cam RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    stranger.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(rest(&mut stranger).await, b"");
    assert_eq!(rest(&mut camera).await, b"");
    let told = relay.explain(SourceError::Gone).to_string();
    assert!(told.contains("another program of this machine"), "{told}");
}

#[tokio::test]
async fn one_connection_is_taken_and_no_other() {
    let (relay, mut camera) = relay().await;
    let mut library = join(&relay).await.unwrap();
    let began = Instant::now();
    while join(&relay).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    let request = format!("DESCRIBE {} RTSP/1.0\r\nCSeq: 1\r\n\r\n", relay.url());
    library.write_all(request.as_bytes()).await.unwrap();
    let mut came = vec![0; 64];
    let length = camera.read(&mut came).await.unwrap();
    assert!(came[..length].starts_with(format!("DESCRIBE {}/cam ", relay.names.camera).as_bytes()));
    // Whatever it is: the camera's end is told behind its last word.
    camera.write_all(b"RTSP/1.0 503 Busy\r\nCSeq: 1\r\n\r\n$\x00\x00\x09x").await.unwrap();
    drop(camera);
    assert!(rest(&mut library).await.ends_with(b"\r\n\r\n$\x00\x00\x09x"));
    assert!(matches!(relay.explain(SourceError::Gone), SourceError::Gone));
}

#[tokio::test]
async fn a_relay_that_is_dropped_lets_go_of_both_sides() {
    let (relay, mut camera) = relay().await;
    let mut library = join(&relay).await.unwrap();
    drop(relay);
    assert_eq!(rest(&mut camera).await, b"");
    assert_eq!(rest(&mut library).await, b"");
    // Also while it waits for the library.
    let (relay, mut camera) = self::relay().await;
    drop(relay);
    assert_eq!(rest(&mut camera).await, b"");
}

#[tokio::test]
async fn errors_name_the_camera() {
    let (relay, _camera) = relay().await;
    let what = format!("DESCRIBE response at {} is bad", relay.url());
    let told = relay.explain(SourceError::Refused { status: 200, what }).to_string();
    assert_eq!(told, format!("200: DESCRIBE response at {}/cam is bad", relay.names.camera));
}
