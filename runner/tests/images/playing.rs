//! What a camera that works gives, and how its end is told.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::mpsc,
};

use kadr_runner::source::{Frame, Live, Losses, Source};
use kadr_shared::testkit::free_ports;

use super::{
    Ground, access, end, frames, impatient,
    peer::{STREAM, jpeg, part, part_without_length, peer},
};

/// By its grey.
fn seen(frame: &Frame) -> f64 {
    ((f64::from(frame.picture.bytes()[0]) - 16.0) * 255.0 / 219.0 / 20.0).round()
}

#[test]
fn images_come_with_and_without_a_length_and_may_differ_in_size() {
    let ground = Ground::new();
    for with_length in [true, false] {
        let images = [jpeg("64x48", 20), jpeg("32x80", 40), jpeg("64x48", 60)];
        // Each is sent when the one before was read: none is dropped.
        let (go, wait) = mpsc::sync_channel::<()>(1);
        let url = peer(move |_, stream| {
            stream.write_all(STREAM.as_bytes())?;
            for image in &images {
                if with_length {
                    part(stream, image)?
                } else {
                    part_without_length(stream, image)?
                }
                // The next boundary tells where it ends.
                stream.write_all(b"--frame\r\n")?;
                let _ = wait.recv();
                stream.write_all(b"X: ignored\r\nContent-Length: 1\r\n\r\nx\r\n")?;
            }
            Ok(())
        });
        let mut source = ground.open(&access(&url)).unwrap();
        let mut came = Vec::new();
        for _ in 0..3 {
            came.extend(frames(&mut source, 1));
            go.send(()).unwrap();
        }
        assert_eq!(came.iter().map(seen).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
        let sizes: Vec<_> = came.iter().map(|frame| frame.picture.size().to_string()).collect();
        assert_eq!(sizes, ["64x48", "32x80", "64x48"]);
        assert!(came.iter().enumerate().all(|(n, frame)| frame.number == n as u64));
        assert!(came[0].pts_ms == 0.0 && came.is_sorted_by(|a, b| a.pts_ms <= b.pts_ms));
        let error = end(&mut source);
        assert!(error.contains("ended the stream"), "{error}");
        // What was no image in between: an `x` after each.
        assert_eq!(source.losses(), Losses { busy: 0, unreadable: 3 });
        drop(source);
    }
}

#[test]
fn images_that_come_faster_than_they_are_read_are_dropped_and_counted_the_oldest_first() {
    let ground = Ground::new();
    let (image, last) = (jpeg("64x48", 20), jpeg("64x48", 80));
    let url = peer(move |_, stream| {
        stream.write_all(STREAM.as_bytes())?;
        for _ in 0..50 {
            part(stream, &image)?;
        }
        part(stream, &last)?;
        stream.write_all(b"--frame--\r\n")
    });
    let mut source = ground.open(&access(&url)).unwrap();
    let (mut came, mut busy) = (Vec::new(), 0);
    while let Ok(frame) = source.next_frame() {
        came.extend(frame.as_ref().map(seen));
        busy += source.losses().busy;
    }
    busy += source.losses().busy;
    assert_eq!(came.last(), Some(&4.0), "the newest one is there");
    assert_eq!(came.len() as u64 + busy, 51, "each is given or counted");
}

#[test]
fn a_server_that_nobody_here_wrote() {
    let ground = Ground::new();
    let port = free_ports(1)[0];
    let url = format!("http://127.0.0.1:{port}/cam");
    for kind in ["multipart/x-mixed-replace;boundary=ffmpeg", "application/octet-stream"] {
        let mut command = Command::new("ffmpeg");
        command.args("-nostdin -v error -re -f lavfi -i testsrc2=s=320x240:r=25 -c:v mjpeg -f mpjpeg".split(' '));
        command.args(["-content_type", kind, "-listen", "1", &url]);
        let mut process = command.stderr(Stdio::null()).spawn().expect("ffmpeg is installed");
        // It takes one connection, when it has come that far.
        let mut source = loop {
            match ground.open(&access(&url)) {
                Ok(source) => break source,
                Err(error) if error.to_string().contains("nothing accepts") => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let frames = frames(&mut source, 20);
        assert!(frames.iter().all(|frame| frame.picture.size().to_string() == "320x240"));
        // The test picture moves.
        assert!(frames.windows(2).all(|pair| pair[0].picture != pair[1].picture));
        process.kill().unwrap();
        process.wait().unwrap();
        let error = end(&mut source);
        assert!(error.contains("ended the stream") || error.contains("broke off"), "{error}");
    }
}

#[test]
fn a_redirection_is_followed_and_one_without_end_is_not() {
    let ground = Ground::new();
    let image = jpeg("64x48", 20);
    let url = peer(move |asked, stream| match asked.path() {
        "/video" => stream
            .write_all(b"HTTP/1.1 302 Found\r\nLocation: /other?a=b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        "/other?a=b" => {
            stream.write_all(STREAM.as_bytes())?;
            part(stream, &image)
        }
        _ => stream.write_all(b"HTTP/1.1 307 On\r\nLocation: /on\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    });
    assert_eq!(frames(&mut ground.open(&access(&url)).unwrap(), 1).len(), 1);
    let words = ground.refusal(&access(&url.replace("/video", "/on")));
    assert!(words.contains("one address to the next"), "{words}");
}

#[test]
fn a_stop_ends_the_wait() {
    let ground = Ground::new();
    let image = jpeg("64x48", 20);
    let url = peer(move |_, stream| {
        stream.write_all(STREAM.as_bytes())?;
        part(stream, &image)?;
        std::io::copy(stream, &mut std::io::sink()).map(drop)
    });
    let mut source = ground.open(&access(&url)).unwrap();
    frames(&mut source, 1);
    ground.stop.cancel();
    assert_eq!(source.next_frame().unwrap_err().to_string(), "told to stop");
    assert_eq!(ground.refusal(&impatient(&url)), "told to stop");
}
