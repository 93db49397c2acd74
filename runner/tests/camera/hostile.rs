//! Peers that are no cameras, or bad ones: a clear error in bounded time.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use kadr_runner::source::{Access, Deadlines};
use kadr_shared::settings::Quirk;

use super::{Ground, access, impatient, peer::Peer};

/// A peer that does this with each connection.
fn peer(behave: impl Fn(TcpStream) -> std::io::Result<()> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The other side may be gone: that is what is wanted.
            let _ = behave(stream);
        }
    });
    format!("rtsp://{address}/cam")
}

#[test]
fn a_peer_that_says_nothing_is_not_waited_for() {
    let ground = Ground::new();
    let url = peer(|mut stream| stream.read_to_end(&mut Vec::new()).map(drop));
    let words = ground.refusal(&impatient(&url));
    assert!(words.contains("did not answer within 0.3 s"), "{words}");
}

#[test]
fn a_peer_that_speaks_slowly_is_not_waited_for() {
    let ground = Ground::new();
    let url = peer(|mut stream| {
        loop {
            stream.write_all(b"R")?;
            thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let words = ground.refusal(&impatient(&url));
    assert!(!words.is_empty(), "{words}");
}

#[test]
fn a_peer_that_speaks_something_else_is_told() {
    let ground = Ground::new();
    for nonsense in ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.9\r\n", "\0\0\0\0\0\0\0\0\r\n\r\n"] {
        let url = peer(move |mut stream| stream.write_all(nonsense.as_bytes()));
        let words = ground.refusal(&impatient(&url));
        assert!(!words.is_empty() && words.lines().count() == 1, "{words}");
    }
}

#[test]
fn a_description_without_h264_is_refused_with_what_was_found() {
    let sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H265/90000\r\n\
               a=control:track1\r\n";
    let url = peer(move |mut stream| {
        let mut request = [0; 2048];
        let length = stream.read(&mut request)?;
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        let number = request.lines().find_map(|line| line.strip_prefix("CSeq: ")).unwrap_or("1").to_owned();
        let head = format!("RTSP/1.0 200 OK\r\nCSeq: {number}\r\nContent-Type: application/sdp\r\n");
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{sdp}", sdp.len()).as_bytes())?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let words = Ground::new().refusal(&impatient(&url));
    assert!(words.contains("H265") && words.contains("H.264"), "{words}");
}

/// What may lie in buffers on the way, the system's own included, once nobody reads any more.
const ON_THE_WAY: u64 = 16 << 20;

/// Such a camera is refused at once, and with these words.
fn refused_early(peer: &Peer, words: &str) {
    let (ground, began) = (Ground::new(), Instant::now());
    let told = ground.refusal(&access(&peer.url));
    assert!(told.contains(words), "{told}");
    assert!(began.elapsed() < Duration::from_secs(5), "{told} after {:?}", began.elapsed());
    let sent = peer.sent();
    assert!(sent < ON_THE_WAY, "{told} after {sent} bytes");
    // And no longer read.
    thread::sleep(Duration::from_millis(300));
    assert!(peer.sent() < ON_THE_WAY, "{sent} bytes, then {}", peer.sent());
}

#[test]
fn headers_without_an_end_are_cut_off() {
    for line in ["X-Nothing: nothing\r\n", "x", "\r\n"] {
        let peer = Peer::start(move |_, camera| {
            camera.send(if line == "\r\n" { b"" } else { b"RTSP/1.0 200 OK\r\n" })?;
            camera.send_for_ever(line.as_bytes())
        });
        refused_early(&peer, "the camera's answer has more than 65536 bytes of headers");
    }
}

#[test]
fn a_description_without_an_end_is_cut_off() {
    for length in ["8589934592", "99999999"] {
        let peer = Peer::start(move |asked, camera| {
            camera.answer(asked, &format!("Content-Type: application/sdp\r\nContent-Length: {length}\r\n"), "")?;
            camera.send_for_ever(b"a=x:1\r\n")
        });
        refused_early(&peer, &format!("is to have a body of {length} bytes, and 1048576 are the most"));
    }
}

#[test]
fn a_flood_before_the_camera_was_told_to_play_is_cut_off() {
    let packets = Peer::start(|_, camera| camera.send_for_ever(b"$\x07\x00\x00"));
    refused_early(&packets, "more than 4194304 bytes before it was told to play");
    // Each one's number is right, or the library would not take it.
    let refusals = Peer::start(|asked, camera| {
        let packet = [&b"$\x07\xff\xff"[..], &[0; 65_535]].concat();
        for _ in 0..40 {
            camera.send(&packet)?;
        }
        camera.answer_well(asked)
    });
    refused_early(&refusals, "more than 4194304 bytes before it was told to play");
}

#[test]
fn a_description_that_does_not_end_at_its_length_is_not_waited_for() {
    let peer = Peer::start(|asked, camera| {
        camera.answer(asked, "Content-Type: application/sdp\r\nContent-Length: 900000\r\n", "")?;
        camera.send(b"v=0\r\n")
    });
    let words = Ground::new().refusal(&impatient(&peer.url));
    assert!(words.contains("did not answer within 0.3 s"), "{words}");
}

#[test]
fn packets_that_hold_no_video_are_told() {
    for seed in 0..8 {
        let peer = Peer::start(move |asked, camera| {
            camera.answer_well(asked)?;
            let mut random = fastrand::Rng::with_seed(seed);
            while asked.method() == "PLAY" {
                let mut data: Vec<u8> = (0..random.usize(0..1_500)).map(|_| random.u8(..)).collect();
                // Every other time as far as RTP's own head is right.
                if let (0..4, [first, second, ..]) = (seed, &mut data[..]) {
                    (*first, *second) = (0x80, 96);
                }
                camera.packet(0, &data)?;
            }
            Ok(())
        });
        let impatient = impatient(&peer.url);
        let patient = Deadlines { answer: Duration::from_secs(5), ..impatient.deadlines };
        let words = Ground::new().refusal(&Access { deadlines: patient, ..impatient });
        assert!(!words.is_empty() && words.lines().count() == 1 && !words.contains("127.0.0.1"), "{words}");
    }
}

#[test]
fn a_picture_without_an_end_is_cut_off() {
    let peer = Peer::start(|asked, camera| {
        camera.answer_well(asked)?;
        // Of a picture in parts (RFC 6184, section 5.8): the first, and then ones in the middle.
        let (mut number, mut part) = (0_u16, 0x85);
        while asked.method() == "PLAY" {
            number = number.wrapping_add(1);
            let [high, low] = number.to_be_bytes();
            let head = [0x80, 96, high, low, 0, 0, 0, 0, 0, 0, 0, 7, 0x7c, part];
            camera.packet(0, &[&head[..], &[0x55; 60_000]].concat())?;
            part = 0x05;
        }
        Ok(())
    });
    let (ground, began) = (Ground::new(), Instant::now());
    let words = ground.refusal(&access(&peer.url));
    assert!(words.contains("more than 33554432 bytes without a picture"), "{words}");
    assert!(began.elapsed() < Duration::from_secs(8) && peer.sent() < (32 << 20) + ON_THE_WAY, "{}", peer.sent());
}

#[test]
fn a_camera_is_asked_by_its_own_name_and_told_when_it_is_left() {
    // What stands in the description wins over where it was asked for, as ever.
    let elsewhere = "Content-Type: application/sdp\r\nContent-Base: rtsp://10.255.255.1/other/\r\n";
    for base in ["Content-Type: application/sdp\r\n", elsewhere] {
        let peer = Peer::start(move |asked, camera| match asked.method() {
            "DESCRIBE" => {
                let sdp = "v=0\r\ns=x\r\na=tool:LIVE555 Streaming Media v2013.04.08\r\nm=video 0 RTP/AVP 96\r\n\
                           a=rtpmap:96 H264/90000\r\na=control:track1\r\n";
                camera.answer(asked, base, sdp)
            }
            _ => camera.answer_well(asked),
        });
        let ground = Ground::new();
        let impatient = impatient(&peer.url);
        let patient = Deadlines { answer: Duration::from_secs(5), ..impatient.deadlines };
        let words = ground.refusal(&Access { deadlines: patient, ..impatient });
        assert!(words.contains("did not send a picture"), "{words}");
        let stream =
            if base == elsewhere { "rtsp://10.255.255.1/other/track1" } else { &format!("{}/track1", peer.url) };
        let wanted = [("DESCRIBE", &*peer.url), ("SETUP", stream), ("PLAY", &*peer.url), ("TEARDOWN", &*peer.url)];
        let began = Instant::now();
        while peer.asked().len() < wanted.len() && began.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(10));
        }
        let asked = peer.asked();
        let asked: Vec<_> = asked.iter().map(|(method, uri)| (method.as_str(), uri.as_str())).collect();
        assert_eq!(asked, wanted);
    }
}

#[test]
fn a_camera_is_told_of_the_end_as_often_as_it_needs() {
    for (quirk, times) in [(None, 1), (Some(Quirk::NoTeardown), 0), (Some(Quirk::StaleSessions), 3)] {
        let heard = AtomicUsize::new(0);
        let peer = Peer::start(move |asked, camera| match asked.method() {
            // Twice it closes the connection instead.
            "TEARDOWN" if heard.fetch_add(1, Ordering::Relaxed) < 2 => Err(ErrorKind::ConnectionAborted.into()),
            _ => camera.answer_well(asked),
        });
        let ground = Ground::new();
        let impatient = impatient(&peer.url);
        let patient = Deadlines { answer: Duration::from_secs(5), ..impatient.deadlines };
        assert!(ground.open(&Access { deadlines: patient, quirks: quirk.into_iter().collect(), ..impatient }).is_err());
        let began = Instant::now();
        while ground.runtime.metrics().num_alive_tasks() > 0 {
            assert!(began.elapsed() < Duration::from_secs(8), "{quirk:?}");
            thread::sleep(Duration::from_millis(10));
        }
        let told: Vec<_> = peer.asked().into_iter().filter(|(method, _)| method == "TEARDOWN").collect();
        assert_eq!(told, vec![("TEARDOWN".to_owned(), peer.url.clone()); times], "{quirk:?}");
    }
}

#[test]
fn nothing_is_left_of_a_session_that_is_over() {
    let ground = Ground::new();
    let peer = Peer::start(|asked, camera| camera.answer_well(asked));
    let tasks = || ground.runtime.metrics().num_alive_tasks();
    for _ in 0..5 {
        assert!(ground.open(&impatient(&peer.url)).is_err());
    }
    let began = Instant::now();
    while tasks() > 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "{} tasks are left", tasks());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_name_that_is_no_host_is_told() {
    let words = Ground::new().refusal(&access("rtsp://no-such-host.invalid/cam"));
    assert!(words.contains("nothing accepts connections at no-such-host.invalid:554 ("), "{words}");
}
