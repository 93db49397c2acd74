//! Peers that are no cameras, or bad ones: a clear error in bounded time and memory.

use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

use kadr_runner::source::{Came, Live, Source};

use super::{
    Ground, access, frames, impatient,
    peer::{STREAM, jpeg, part, peer},
};

#[test]
fn a_peer_that_says_nothing_or_speaks_slowly_is_not_waited_for() {
    let ground = Ground::new();
    let silent = peer(|_, stream| stream.read_to_end(&mut Vec::new()).map(drop));
    let words = ground.refusal(&impatient(&silent));
    assert!(words.contains("did not answer within 0.4 s"), "{words}");
    let slow = peer(|_, stream| {
        for byte in "HTTP/1.1 200 OK\r\nX: ".bytes().chain(std::iter::repeat(b'x')) {
            stream.write_all(&[byte])?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    });
    let words = ground.refusal(&impatient(&slow));
    assert!(words.contains("did not answer"), "{words}");
    let parts = peer(|_, stream| {
        stream.write_all(STREAM.as_bytes())?;
        loop {
            stream.write_all(b"--frame\r\nX: y\r\n\r\n")?;
            thread::sleep(Duration::from_millis(20));
        }
    });
    let begun = Instant::now();
    let words = ground.refusal(&impatient(&parts));
    assert!(words.contains("image") && begun.elapsed() < Duration::from_secs(30), "{words}");
}

#[test]
fn headers_without_an_end_are_refused() {
    let ground = Ground::new();
    let head = peer(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            stream.write_all(&b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1_000))?;
        }
    });
    let words = ground.refusal(&access(&head));
    assert!(words.contains("does not speak HTTP as it should"), "{words}");
    let part = peer(|_, stream| {
        stream.write_all(STREAM.as_bytes())?;
        stream.write_all(b"--frame\r\n")?;
        loop {
            stream.write_all(&b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1_000))?;
        }
    });
    let words = ground.refusal(&access(&part));
    assert!(words.contains("more than 16 KB"), "{words}");
}

#[test]
fn images_without_an_end_are_refused() {
    let ground = Ground::new();
    for head in ["--frame\r\n\r\n", "--frame\r\nContent-Length: 4000000000\r\n\r\n"] {
        let url = peer(move |_, stream| {
            stream.write_all(STREAM.as_bytes())?;
            stream.write_all(head.as_bytes())?;
            loop {
                stream.write_all(&[7; 1 << 16])?;
            }
        });
        let words = ground.refusal(&access(&url));
        assert!(words.contains("larger than 16 MB"), "{words}");
    }
}

#[test]
fn images_that_can_not_be_read_are_told_when_there_are_no_others() {
    let ground = Ground::new();
    let url = peer(|_, stream| {
        stream.write_all(STREAM.as_bytes())?;
        for _ in 0..3 {
            part(stream, b"\xff\xd8\xff\xe0 and no more")?;
        }
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let words = ground.refusal(&impatient(&url));
    assert!(words.contains("can't be read") && words.contains("damaged"), "{words}");
    // A damaged one among others costs itself.
    let image = jpeg("64x48", 20);
    let url = peer(move |_, stream| {
        stream.write_all(STREAM.as_bytes())?;
        part(stream, &image[..image.len() / 8])?;
        part(stream, &image)?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let mut source = ground.open(&access(&url)).unwrap();
    assert_eq!(frames(&mut source, 1).len(), 1);
    assert_eq!(source.losses().unreadable, 1);
    // One that nothing good follows is told of at once.
    let image = jpeg("64x48", 20);
    let url = peer(move |_, stream| {
        stream.write_all(STREAM.as_bytes())?;
        part(stream, &image)?;
        part(stream, &image[..image.len() / 8])?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let mut source = ground.open(&access(&url)).unwrap();
    assert_eq!(frames(&mut source, 1).len(), 1);
    assert_eq!(source.receive(true).unwrap(), Came::Nothing);
    assert_eq!(source.losses().unreadable, 1);
}

#[test]
fn a_camera_that_falls_silent_is_an_error() {
    let ground = Ground::new();
    let image = jpeg("64x48", 20);
    let url = peer(move |_, stream| {
        stream.write_all(STREAM.as_bytes())?;
        part(stream, &image)?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let mut source = ground.open(&impatient(&url)).unwrap();
    frames(&mut source, 1);
    let words = source.next_frame().unwrap_err().to_string();
    assert!(words.contains("did not send an image within 0.4 s"), "{words}");
}

#[test]
fn answers_that_are_no_stream_are_told_apart() {
    let ground = Ground::new();
    for (answer, words) in [
        ("404 Not Found\r\nContent-Type: text/html", "404: there is nothing at /video"),
        ("503 Busy\r\nX: y", "503: the camera is busy"),
        ("418 Teapot\r\nX: y", "418: the camera refused"),
        ("200 OK\r\nContent-Type: text/html; charset=utf-8", "gives text/html"),
        ("200 OK\r\nContent-Type: image/jpeg", "a single image"),
        ("302 Found\r\nX: y", "without an address to go to"),
        ("302 Found\r\nLocation: ftp://127.0.0.1/", "without an address to go to"),
    ] {
        let url = peer(move |_, stream| {
            write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        });
        let told = ground.refusal(&access(&url));
        assert!(told.contains(words), "{answer}: {told}");
    }
    for nonsense in ["SSH-2.0-OpenSSH_9.9\r\n", "\0\0\0\0\0\0\0\0\r\n\r\n", "RTSP/1.0 200 OK\r\n\r\n"] {
        let url = peer(move |_, stream| stream.write_all(nonsense.as_bytes()));
        let told = ground.refusal(&access(&url));
        assert!(told.contains("does not speak HTTP as it should") && told.lines().count() == 1, "{told}");
    }
    let told = ground.refusal(&access("http://127.0.0.1:1/video"));
    assert!(told.contains("nothing accepts connections at 127.0.0.1:1"), "{told}");
}

#[test]
fn a_peer_without_tls_is_told() {
    let ground = Ground::new();
    let url = peer(|_, stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let told = ground.refusal(&impatient(&url.replace("http://", "https://")));
    assert!(!told.is_empty() && told.lines().count() == 1, "{told}");
}
