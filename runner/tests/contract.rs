//! What all sources promise, whatever is behind them: one test for all kinds. What is particular to each is tested with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing helper fails its test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use kadr_runner::source::{self, Access, ImageStream, Live, Play, Published, RtspSource, Source, SourceError};
use kadr_shared::{
    onvif::Wish,
    settings::Transport,
    testkit::{DeviceLike, TestCamera, TestDevice, TestServer, free_ports},
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Of the test picture, which moves, in each kind of source.
const SIZE: &str = "320x240";
/// Frames of a file.
const FRAMES: usize = 20;

/// A kind of source, and how it ends.
struct Kind {
    name: &'static str,
    source: Box<dyn Source>,
    end: End,
    /// What has to be there while it plays.
    _peers: Vec<Box<dyn std::any::Any>>,
}

enum End {
    /// Behind so many frames.
    After(usize),
    /// There is none.
    Never,
    /// It is told to.
    Stop(CancellationToken),
}

/// What sources need around them.
struct World {
    folder: TempDir,
    runtime: Runtime,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let world = Self { folder: tempfile::tempdir().unwrap(), runtime };
        let clip = world.path("clip.mp4");
        let frames = FRAMES.to_string();
        let picture = format!("testsrc2=s={SIZE}:r=25");
        let input = ["-f", "lavfi", "-i", &picture, "-frames:v", &frames];
        ffmpeg(&input, "-c:v libx264 -g 10 -bf 2 -pix_fmt yuv420p", &clip);
        ffmpeg(&input, "-c:v libx264 -g 10 -bf 0 -pix_fmt yuv420p", &world.path("live.mp4"));
        let clip = clip.to_str().unwrap();
        ffmpeg(&["-i", clip], "-c copy", &world.path("clip.mkv"));
        ffmpeg(&["-i", clip], "-c copy -bsf:v h264_mp4toannexb -f h264", &world.path("clip.h264"));
        fs::create_dir(world.path("images")).unwrap();
        ffmpeg(&["-i", clip], "-f image2", &world.path("images/%d.jpg"));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &'static str, end: End) -> Kind {
        let play = Play { looped_from: matches!(end, End::Never).then_some(0), ..Play::default() };
        let source = source::play(&self.path(name), play).unwrap();
        Kind { name, source, end, _peers: Vec::new() }
    }

    fn live<S: Live + 'static>(
        &self,
        name: &'static str,
        peers: Vec<Box<dyn std::any::Any>>,
        open: impl Fn(CancellationToken) -> Result<S, SourceError>,
    ) -> Kind {
        let stop = CancellationToken::new();
        let source = loop {
            match open(stop.clone()) {
                Ok(source) => break source,
                // A server that has just been started.
                Err(error) if error.to_string().contains("nothing accepts") => thread::yield_now(),
                Err(error) => panic!("{name}: {error}"),
            }
        };
        Kind { name, source: Box::new(source), end: End::Stop(stop), _peers: peers }
    }

    fn rtsp(&self, name: &'static str, transport: Transport) -> Kind {
        let camera = TestCamera::start(&self.path("live.mp4"), 10, None, None);
        let access = Access { transport, ..access(&camera.url()) };
        self.live(name, vec![Box::new(camera)], |stop| RtspSource::open(&access, self.runtime.handle().clone(), stop))
    }

    fn onvif(&self) -> Kind {
        let camera = TestCamera::start(&self.path("live.mp4"), 10, None, None);
        let device = self.runtime.block_on(TestDevice::start(DeviceLike {
            user: None,
            ahead_ms: 0,
            stream: camera.url(),
            new: true,
            guarded: false,
        }));
        let access = Access { device: Some(Wish::default()), ..access(&device.url()) };
        let peers: Vec<Box<dyn std::any::Any>> = vec![Box::new(camera), Box::new(device)];
        self.live("ONVIF", peers, |stop| RtspSource::open(&access, self.runtime.handle().clone(), stop))
    }

    /// ffmpeg as a camera that sends images over HTTP.
    fn http(&self) -> Kind {
        let url = format!("http://127.0.0.1:{}/cam", free_ports(1)[0]);
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-re", "-f", "lavfi", "-i", &format!("testsrc2=s={SIZE}:r=25")]);
        command.args(["-c:v", "mjpeg", "-f", "mpjpeg", "-content_type", "multipart/x-mixed-replace;boundary=ffmpeg"]);
        command.args(["-listen", "1", &url]).stderr(Stdio::null());
        let server = Server(command.spawn().expect("ffmpeg is installed"));
        let access = access(&url);
        self.live("images over HTTP", vec![Box::new(server)], |stop| {
            ImageStream::http(&access, self.runtime.handle().clone(), stop)
        })
    }

    /// Somebody publishes images on a subject, as the API does with those that are POSTed.
    fn published(&self) -> Kind {
        let server = self.runtime.block_on(TestServer::start());
        let client = self.runtime.block_on(server.nats()).client;
        let images: Vec<_> = (1..=FRAMES).map(|n| fs::read(self.path(&format!("images/{n}.jpg"))).unwrap()).collect();
        let publisher = client.clone();
        let publishing = self.runtime.spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            for image in images.iter().cycle() {
                pace.tick().await;
                publisher.publish("images.cam", image.clone().into()).await.unwrap();
            }
        });
        let from = Published { client, subject: "images.cam".into(), answered: false };
        self.live("images on a subject", vec![Box::new(server), Box::new(Publisher(publishing))], |stop| {
            ImageStream::published(&from, self.runtime.handle().clone(), stop)
        })
    }
}

/// Ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

struct Publisher(JoinHandle<()>);

impl Drop for Publisher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn access(url: &str) -> Access {
    Access::new(url.parse().unwrap())
}

fn ffmpeg(input: &[&str], options: &str, to: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(input).args(options.split(' ')).arg(to);
    let output = command.output().expect("ffmpeg is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Takes its frames, and looks at what each promises; then at its end.
fn keeps_its_promises(mut kind: Kind) {
    let Kind { name, source, end, .. } = &mut kind;
    let count = match end {
        End::After(count) => *count,
        // More than the clip has: it has begun anew meanwhile.
        End::Never | End::Stop(_) => FRAMES + 5,
    };
    let frames: Vec<_> = (0..count).map(|_| source.next_frame().unwrap().expect(name)).collect();
    for (n, frame) in frames.iter().enumerate() {
        assert_eq!(frame.number, n as u64, "{name}: frames are numbered from 0 without holes");
        assert_eq!(frame.picture.size().to_string(), SIZE, "{name}: frame {n}");
    }
    assert_eq!(frames[0].pts_ms, 0.0, "{name}: times begin with the first frame");
    assert!(frames.is_sorted_by(|a, b| a.pts_ms <= b.pts_ms), "{name}: times go back");
    assert!(frames.windows(2).all(|pair| pair[0].picture != pair[1].picture), "{name}: the test picture moves");
    match end {
        End::After(_) => {
            for _ in 0..2 {
                assert!(matches!(source.next_frame(), Ok(None)), "{name}: it is over, and stays so");
            }
        }
        End::Never => {}
        End::Stop(stop) => {
            stop.cancel();
            // What has come before may still be given.
            let words = loop {
                match source.next_frame() {
                    Ok(frame) => assert!(frame.is_some(), "{name}: it has no last frame"),
                    Err(error) => break error.to_string(),
                }
            };
            assert_eq!(words, "told to stop", "{name}");
            assert!(!matches!(source.next_frame(), Ok(Some(_))), "{name}: after an error there are no more frames");
        }
    }
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn every_kind_of_source_keeps_the_same_promises() {
    let world = World::new();
    let all = || End::After(FRAMES);
    for (name, end) in [
        ("clip.mp4", all()),
        ("clip.mkv", all()),
        ("clip.h264", all()),
        ("images", all()),
        ("images/?.jpg", End::After(9)),
        ("images/7.jpg", End::After(1)),
        // Over and over.
        ("clip.mp4", End::Never),
    ] {
        keeps_its_promises(world.file(name, end));
    }
    keeps_its_promises(world.rtsp("RTSP over TCP", Transport::Tcp));
    keeps_its_promises(world.rtsp("RTSP over UDP", Transport::Udp));
    keeps_its_promises(world.onvif());
    keeps_its_promises(world.http());
    keeps_its_promises(world.published());
}
