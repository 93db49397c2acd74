//! Peers that are no cameras, or bad ones: a clear error in bounded time.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use super::{Ground, impatient};

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
