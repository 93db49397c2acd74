//! A camera that does as a test tells it: by default what a good one does, up to the point where it plays.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// H.264 on channels 0 and 1. The stream's own address is the one that was asked for.
const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n\
                   a=rtpmap:96 H264/90000\r\na=control:track1\r\n";

/// A request, as it came.
pub(crate) struct Asked {
    text: String,
}

impl Asked {
    pub(crate) fn method(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn uri(&self) -> &str {
        self.text.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.text.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The camera's side of a connection.
pub(crate) struct Line {
    stream: TcpStream,
    sent: Arc<AtomicU64>,
}

impl Line {
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.stream.write(bytes)?;
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
        if sent < bytes.len() { self.send(&bytes[sent..]) } else { Ok(()) }
    }

    /// As fast as it can be taken.
    pub(crate) fn send_for_ever(&mut self, bytes: &[u8]) -> io::Result<()> {
        let many = bytes.repeat((64 << 10) / bytes.len() + 1);
        loop {
            self.send(&many)?;
        }
    }

    pub(crate) fn answer(&mut self, asked: &Asked, headers: &str, body: &str) -> io::Result<()> {
        let number = asked.header("CSeq").unwrap_or("0");
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.send(format!("RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{headers}{length}\r\n{body}").as_bytes())
    }

    /// What a good camera answers.
    pub(crate) fn answer_well(&mut self, asked: &Asked) -> io::Result<()> {
        match asked.method() {
            "DESCRIBE" => self.answer(asked, "Content-Type: application/sdp\r\n", SDP),
            "SETUP" => {
                let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
                self.answer(asked, &format!("Session: 12345678;timeout=60\r\n{transport}"), "")
            }
            "PLAY" => self.answer(asked, "Session: 12345678\r\nRTP-Info: url=track1;seq=1;rtptime=0\r\n", ""),
            _ => self.answer(asked, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""),
        }
    }

    /// A packet within the connection.
    pub(crate) fn packet(&mut self, channel: u8, data: &[u8]) -> io::Result<()> {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        self.send(&[&[b'$', channel, length[0], length[1]], data].concat())
    }
}

pub(crate) struct Peer {
    pub(crate) url: String,
    sent: Arc<AtomicU64>,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Peer {
    /// Answers each request in this way, one connection after another.
    pub(crate) fn start(behave: impl Fn(&Asked, &mut Line) -> io::Result<()> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("rtsp://{}/cam", listener.local_addr().unwrap());
        let (sent, asked) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<_>>>::default());
        let peer = Self { url, sent: sent.clone(), asked: asked.clone() };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who does not read, and does not leave, is what these tests are to find.
                stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
                let mut line = Line { stream, sent: sent.clone() };
                while let Ok(request) = next(&mut line.stream) {
                    asked.lock().unwrap().push((request.method().to_owned(), request.uri().to_owned()));
                    if behave(&request, &mut line).is_err() {
                        break;
                    }
                }
                let _ = line.stream.shutdown(Shutdown::Both);
            }
        });
        peer
    }

    /// Bytes that it got rid of.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Methods and addresses of what it was asked.
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }
}

fn next(stream: &mut TcpStream) -> io::Result<Asked> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    Ok(Asked { text: String::from_utf8_lossy(&bytes).into_owned() })
}
