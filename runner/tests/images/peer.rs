//! A peer that speaks HTTP as a test wants it to.

use std::{
    io::{BufRead, BufReader, Result, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
};

/// A request's first line and its headers, as they came.
pub(crate) struct Asked {
    pub(crate) lines: Vec<String>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn path(&self) -> &str {
        self.lines[0].split(' ').nth(1).unwrap()
    }
}

/// Listens and does this with each request, one connection after another. Gives its address.
pub(crate) fn peer(behave: impl Fn(Asked, &mut TcpStream) -> Result<()> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The other side may be gone: that is what is wanted.
            let _ = ask(&stream).and_then(|asked| behave(asked, &mut stream));
        }
    });
    format!("http://{address}/video")
}

fn ask(stream: &TcpStream) -> Result<Asked> {
    let mut lines = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    Ok(Asked { lines })
}

pub(crate) const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\nConnection: close\r\n\r\n";

/// A part with its length.
pub(crate) fn part(stream: &mut TcpStream, image: &[u8]) -> Result<()> {
    write!(stream, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", image.len())?;
    stream.write_all(image)?;
    stream.write_all(b"\r\n")
}

/// A part that goes on to the next boundary.
pub(crate) fn part_without_length(stream: &mut TcpStream, image: &[u8]) -> Result<()> {
    stream.write_all(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n")?;
    stream.write_all(image)?;
    stream.write_all(b"\r\n")
}

/// A JPEG of one grey, by which it is known again.
pub(crate) fn jpeg(size: &str, grey: u8) -> Vec<u8> {
    let input = format!("color=c=0x{grey:02x}{grey:02x}{grey:02x}:s={size}");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", &input]);
    command.args("-frames:v 1 -c:v mjpeg -pix_fmt yuvj420p -f image2pipe -".split(' '));
    let output = command.output().expect("ffmpeg is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
