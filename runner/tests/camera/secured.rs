//! Cameras by `rtsps://`: GStreamer's server with a certificate that it has signed itself, as most cameras have.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kadr_runner::source::Access;
use kadr_shared::{
    onvif::Wish,
    settings::{Tls, Transport},
};
use tempfile::TempDir;

use super::{Ground, access, frames, impatient, onvif::device, peer::Peer, playing::clip};

/// Ends with it.
struct SecuredCamera {
    process: Child,
    port: u16,
    certificate: PathBuf,
}

impl SecuredCamera {
    fn start(folder: &TempDir, clip: &Path, user: &[&str]) -> Self {
        let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
        let mut openssl = Command::new("openssl");
        openssl.args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=camera".split(' '));
        // An authority of its own would be none for a camera.
        openssl.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        let output = openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut command = Command::new("/usr/bin/python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/camera/tls_camera.py"));
        command.args([clip, &certificate, &key]).args(user).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse();
        let port = port.expect("GStreamer's RTSP server and glib-networking are installed (scripts/deps.sh ci)");
        Self { process, port, certificate }
    }

    /// Any certificate is taken.
    fn access(&self, host: &str) -> Access {
        Access { tls: Tls::Any, ..access(&format!("rtsps://{host}:{}/cam", self.port)) }
    }
}

impl Drop for SecuredCamera {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn frames_come_within_tls_where_any_certificate_is_taken() {
    let (folder, ground) = (tempfile::tempdir().unwrap(), Ground::new());
    let clip = clip(&folder, "-bf 0");
    let camera = SecuredCamera::start(&folder, &clip, &["me", "hunter2"]);
    for host in ["127.0.0.1", "localhost"] {
        let known = Access { credentials: Some(("me".into(), "hunter2".into())), ..camera.access(host) };
        let mut source = ground.open(&known).unwrap();
        assert_eq!(frames(&mut source, 5).len(), 5);
    }
    let words = ground.refusal(&camera.access("127.0.0.1"));
    assert!(words.starts_with("401: ") && words.contains("source.username"), "{words}");
    let wrong = Access { credentials: Some(("me".into(), "guess".into())), ..camera.access("127.0.0.1") };
    let words = ground.refusal(&wrong);
    assert!(words.starts_with("401: ") && words.contains("refused"), "{words}");
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn a_certificate_is_verified_unless_it_is_not_to_be() {
    let (folder, ground) = (tempfile::tempdir().unwrap(), Ground::new());
    let clip = clip(&folder, "-bf 0");
    let camera = SecuredCamera::start(&folder, &clip, &[]);
    let verified = Access { tls: Tls::Verify, ..camera.access("127.0.0.1") };
    let words = ground.refusal(&verified);
    assert!(words.contains("the certificate of 127.0.0.1 can't be trusted"), "{words}");
    assert!(words.contains("nobody that this machine knows has signed it"), "{words}");
    assert!(words.contains("source.tls: any (--tls any)"), "{words}");
    // A machine that knows it: what a test can't change for itself, another process can be given.
    let knowing = |url: &str| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "secured::by_a_machine_that_knows_it", "--ignored", "--nocapture"]);
        child.env("SSL_CERT_FILE", &camera.certificate).env("KADR_TEST_URL", url);
        let output = child.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), told.into_owned())
    };
    let (good, told) = knowing(verified.url.as_str());
    assert!(good && told.contains("1 passed"), "{told}");
    // The same one, for a name that does not stand in it.
    let (good, told) = knowing(&format!("rtsps://localhost:{}/cam", camera.port));
    assert!(!good && told.contains("it was made for another name"), "{told}");
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn a_device_may_name_a_secured_stream() {
    let (folder, ground) = (tempfile::tempdir().unwrap(), Ground::new());
    let clip = clip(&folder, "-bf 0");
    let camera = SecuredCamera::start(&folder, &clip, &[]);
    let device = device(&ground, None, camera.access("127.0.0.1").url.as_str());
    let asking = Access { device: Some(Wish::default()), tls: Tls::Any, ..access(&device.url()) };
    frames(&mut ground.open(&asking).unwrap(), 3);
    let words = ground.refusal(&Access { tls: Tls::Verify, ..asking });
    assert!(words.contains("source.tls: any"), "{words}");
}

#[test]
#[ignore = "the other process of a_certificate_is_verified_unless_it_is_not_to_be"]
fn by_a_machine_that_knows_it() {
    let Ok(url) = std::env::var("KADR_TEST_URL") else { return };
    let ground = Ground::new();
    let mut source = ground.open(&access(&url)).unwrap();
    assert_eq!(frames(&mut source, 3).len(), 3);
}

#[test]
fn what_speaks_no_tls_is_told() {
    let ground = Ground::new();
    let peer = Peer::start(|asked, camera| camera.answer_well(asked));
    let secured = |url: &str| Access { tls: Tls::Any, ..access(&url.replace("rtsp://", "rtsps://")) };
    // It waits for the end of a request, and finds none in a handshake.
    let silent = Access { deadlines: impatient(&peer.url).deadlines, ..secured(&peer.url) };
    let words = ground.refusal(&silent);
    assert!(words.contains("did not answer within 0.3 s"), "{words}");
    let began = Instant::now();
    let words = ground.refusal(&secured(&peer.url));
    assert!(words.contains("did not agree on TLS within 5 s") && began.elapsed() < Duration::from_secs(8), "{words}");
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsps://{}/cam", plain.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"RTSP/1.0 400 Bad Request\r\n\r\n");
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let words = ground.refusal(&secured(&url));
    assert!(words.contains("is no TLS: is it rtsp://?"), "{words}");
    let words = ground.refusal(&secured("rtsp://127.0.0.1:1/cam"));
    assert!(words.contains("nothing accepts connections at 127.0.0.1:1 "), "{words}");
    // An ONVIF device may name such an address, whatever the settings say of the transport.
    let udp = Access { transport: Transport::Udp, ..secured(&url) };
    let words = ground.refusal(&udp);
    assert!(words.contains("udp can't go through TLS"), "{words}");
}
