//! Live video by RTSP, spoken by hand: what a player is told, what it is given, and what hostile ones cost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::{net::SocketAddr, time::Duration};

use base64::prelude::{BASE64_STANDARD, Engine};
use common::{Orchestrator, RunningApi, config, eventually_get};
use kadr_api::{Api, Config};
use kadr_shared::{
    id::{RunId, ScenarioId},
    message::video::{AccessUnit, push_nal},
    nats::Nats,
    subjects,
    testkit::{TestServer, eventually},
    time::Timestamp,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, interval, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

const SPS: [u8; 5] = [0x67, 0x42, 0xc0, 0x1f, 1];
const PPS: [u8; 2] = [0x68, 0xce];
/// What no answer takes; the longest deadline is 10 s.
const LONG: Duration = Duration::from_secs(30);
const TCP: &str = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1";

struct World {
    api: RunningApi,
    rtsp: SocketAddr,
    nats: Nats,
    _orchestrator: Orchestrator,
    _folder: TempDir,
    _server: TestServer,
}

impl World {
    /// With a scenario `gate` that does not run.
    async fn start() -> Self {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        let folder = TempDir::with_prefix("kadr-api-").unwrap();
        let config = Config { rtsp: Some("127.0.0.1:0".parse().unwrap()), ..config(folder.path()) };
        let api = Api::bind(config, nats.clone()).await.unwrap();
        let rtsp = api.rtsp_addr().unwrap();
        let api = RunningApi::of(api);
        let orchestrator = Orchestrator::start(nats.clone());
        api.ready().await;
        assert_eq!(api.create("gate").await.status, 201);
        Self { api, rtsp, nats, _orchestrator: orchestrator, _folder: folder, _server: server }
    }

    async fn command(&self, command: &str, state: &str) {
        assert_eq!(self.api.command("gate", command, command).await.status, 202);
        eventually_get(&self.api, "/v1/scenarios/gate", |body| body["state"] == state).await;
    }

    /// Its video, 25 pictures a second of so many bytes, each taken at second 1,000 of all time, until what is given back goes.
    fn film(&self, bytes: usize) -> DropGuard {
        self.film_by(1, bytes, |_| SPS)
    }

    /// By this encoder, whose number all of it is made of, with such a parameter set before each key frame.
    fn film_by(&self, encoder: u8, bytes: usize, set: fn(u64) -> [u8; 5]) -> DropGuard {
        let stop = CancellationToken::new();
        let nats = self.nats.clone();
        let filming = async move {
            let subject = subjects::video(&"gate".parse::<ScenarioId>().unwrap());
            let mut due = interval(Duration::from_millis(40));
            for number in 0_u64.. {
                due.tick().await;
                let key = number % 5 == 0;
                let mut body = Vec::new();
                if key {
                    push_nal(&mut body, &set(number / 5));
                    push_nal(&mut body, &PPS);
                }
                let mut nal = vec![encoder; bytes];
                nal[0] = if key { 0x65 } else { 0x41 };
                push_nal(&mut body, &nal);
                let unit = AccessUnit {
                    run: RunId::from_u128(1),
                    stream: encoder.into(),
                    group: (u64::from(encoder) << 32) + number / 5,
                    key,
                    pts_ms: number as f64 * 40.0,
                    captured_at: Timestamp::from_millis(1_000_000),
                    size: "64x64".parse().unwrap(),
                    body: body.into(),
                };
                let _ = nats.client.publish_with_headers(subject.clone(), unit.headers(), unit.body).await;
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(filming));
        stop.drop_guard()
    }

    async fn player(&self) -> Player {
        Player { stream: TcpStream::connect(self.rtsp).await.unwrap(), rtsp: self.rtsp, sent: 0 }
    }

    async fn playing(&self) -> Player {
        let mut player = self.player().await;
        player.ask("DESCRIBE", "gate", &[]).await.is(200);
        player.ask("SETUP", "gate/track0", &[TCP]).await.is(200);
        player.ask("PLAY", "gate/", &[]).await.is(200);
        player
    }
}

/// A player that does what it is told.
struct Player {
    stream: TcpStream,
    rtsp: SocketAddr,
    sent: u32,
}

#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

/// What comes.
#[derive(Debug)]
enum Came {
    Answer(Answer),
    Packet { channel: u8, bytes: Vec<u8> },
    End,
}

impl Player {
    async fn send(&mut self, method: &str, path: &str, headers: &[&str]) {
        self.sent += 1;
        let mut text = format!("{method} rtsp://{}/{path} RTSP/1.0\r\nCSeq: {}\r\n", self.rtsp, self.sent);
        headers.iter().for_each(|header| text.extend([header, "\r\n"]));
        self.stream.write_all((text + "\r\n").as_bytes()).await.unwrap();
    }

    /// Its answer, behind whatever packets.
    async fn ask(&mut self, method: &str, path: &str, headers: &[&str]) -> Answer {
        self.send(method, path, headers).await;
        loop {
            match self.next().await {
                Came::Answer(answer) => {
                    assert!(answer.head.contains(&format!("\r\nCSeq: {}\r\n", self.sent)), "{answer:?}");
                    return answer;
                }
                Came::Packet { .. } => {}
                Came::End => panic!("there is no answer to {method}"),
            }
        }
    }

    async fn next(&mut self) -> Came {
        timeout(LONG, self.come()).await.unwrap()
    }

    async fn come(&mut self) -> Came {
        let Ok(first) = self.stream.read_u8().await else { return Came::End };
        if first == b'$' {
            let channel = self.stream.read_u8().await.unwrap();
            let mut bytes = vec![0; self.stream.read_u16().await.unwrap().into()];
            self.stream.read_exact(&mut bytes).await.unwrap();
            return Came::Packet { channel, bytes };
        }
        let mut head = vec![first];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.stream.read_exact(&mut body).await.unwrap();
        Came::Answer(Answer { head, body: String::from_utf8(body).unwrap() })
    }

    async fn packet(&mut self) -> (u8, Vec<u8>) {
        match self.next().await {
            Came::Packet { channel, bytes } => (channel, bytes),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the connection's end; what came last on the channel of reports.
    async fn end(&mut self) -> Option<Vec<u8>> {
        let mut last = None;
        loop {
            match self.next().await {
                Came::Packet { channel: 1, bytes } => last = Some(bytes),
                Came::End => return last,
                _ => {}
            }
        }
    }
}

impl Answer {
    #[track_caller]
    fn is(&self, status: u16) -> &Self {
        assert!(self.head.starts_with(&format!("RTSP/1.0 {status} ")), "{self:?}");
        self
    }

    #[track_caller]
    fn says(&self, text: &str) -> &Self {
        assert!(self.head.contains(text) || self.body.contains(text), "{text:?} is not in {self:?}");
        self
    }
}

/// That a report's last part says good-bye.
#[track_caller]
fn is_bye(report: Option<Vec<u8>>) {
    let report = report.unwrap();
    assert_eq!(report[report.len() - 8..report.len() - 4], [0x81, 203, 0, 1], "{report:?}");
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

#[tokio::test]
async fn a_player_is_told_and_shown_until_the_scenario_stops() {
    let world = World::start().await;
    let mut player = world.player().await;
    player.ask("OPTIONS", "", &[]).await.is(200).says("Public: OPTIONS, DESCRIBE, SETUP, PLAY");
    player.ask("DESCRIBE", "nobody", &[]).await.is(404).says("there is no scenario of this id");
    player.ask("DESCRIBE", "gate", &[]).await.is(503).says("start it first");
    world.command("start", "init_startup").await;
    player.ask("DESCRIBE", "gate", &[]).await.is(503).says("no picture came for 5 s");

    let film = world.film(3_000);
    let told = player.ask("DESCRIBE", "gate?x=y", &[]).await;
    told.is(200).says(&format!("Content-Base: rtsp://{}/gate/\r\n", world.rtsp));
    told.says("profile-level-id=42C01F;sprop-parameter-sets=Z0LAHwE=,aM4=\r\n").says("a=control:track0\r\n");
    player.ask("SETUP", "gate/track0", &["Transport: RTP/AVP;unicast;client_port=5000-5001"]).await.is(461);
    player.ask("SETUP", "gate/track0", &[TCP]).await.is(200).says("interleaved=0-1");
    let plays = player.ask("PLAY", "gate/", &["Range: npt=0.000-"]).await;
    let info = plays.is(200).head.split("seq=").nth(1).unwrap();
    let (sequence, rest) = info.split_once(";rtptime=").unwrap();
    let (sequence, timestamp): (u32, u32) =
        (sequence.parse().unwrap(), rest.split("\r\n").next().unwrap().parse().unwrap());

    let (channel, report) = player.packet().await;
    assert_eq!(
        (channel, report[1], number(&report[8..12])),
        (1, 200, 2_208_988_800 + 1_000),
        "before the first picture"
    );
    assert_eq!(number(&report[16..20]), timestamp);
    let mut shown = Vec::new();
    for number_of in 0..5_u32 {
        let (channel, packet) = player.packet().await;
        let count = number(&packet[2..4]);
        assert_eq!((channel, count, number(&packet[4..8])), (0, (sequence + number_of) & 0xffff, timestamp));
        shown.push((packet[1], packet[12..].to_vec()));
    }
    assert_eq!((&shown[0], &shown[1]), (&(96, SPS.to_vec()), &(96, PPS.to_vec())));
    let parts: Vec<_> = shown[2..].iter().map(|(marker, part)| (*marker, part[0], part[1], part.len())).collect();
    assert_eq!(
        parts,
        [(96, 0x7c, 0x85, 1_400), (96, 0x7c, 0x05, 1_400), (96 | 0x80, 0x7c, 0x45, 2_999 - 2 * 1_398 + 2)]
    );
    let (_, next) = player.packet().await;
    assert_eq!(number(&next[4..8]).wrapping_sub(timestamp), 3_600, "the next picture");
    player.ask("GET_PARAMETER", "gate/", &[]).await.is(200);
    player.ask("PAUSE", "gate/", &[]).await.is(455).says("can't be paused");

    world.command("stop", "inactive").await;
    drop(film);
    is_bye(player.end().await);
    world.api.stop().await;
}

#[tokio::test]
async fn nobody_is_shown_what_another_one_watched_before() {
    let world = World::start().await;
    world.command("start", "init_startup").await;
    let before = world.film_by(1, 100, |_| SPS);
    eventually("a film that somebody watched", || async {
        let stream = world.nats.jetstream.get_stream(subjects::VIDEO).await.ok()?;
        (stream.cached_info().state.messages > 20).then_some(())
    })
    .await;
    drop(before);

    let _film = world.film_by(2, 100, |_| SPS);
    let mut player = world.playing().await;
    let mut shown = 0;
    while shown < 20 {
        let (channel, packet) = player.packet().await;
        // Of a slice: its second byte is its encoder's number.
        if channel == 0 && matches!(packet[12], 0x65 | 0x41) {
            assert_eq!(packet[13], 2, "picture {shown} is of the past");
            shown += 1;
        }
    }
}

#[tokio::test]
async fn who_plays_at_once_begins_with_the_picture_that_it_was_told_of() {
    let world = World::start().await;
    world.command("start", "init_startup").await;
    // Each key frame is told by its parameter set.
    let _film = world.film_by(1, 100, |key| [0x67, 0x42, 0xc0, 0x1f, key as u8 % 200 + 1]);
    // On a busy machine a player may not come at once.
    eventually("a player that begins with what it was told of", || async {
        let mut player = world.player().await;
        let told = player.ask("DESCRIBE", "gate", &[]).await.is(200).body.clone();
        player.ask("SETUP", "gate/track0", &[TCP]).await.is(200);
        player.ask("PLAY", "gate/", &[]).await.is(200);
        loop {
            let (channel, packet) = player.packet().await;
            if channel == 0 {
                let set = BASE64_STANDARD.encode(&packet[12..]);
                break told.contains(&format!("sprop-parameter-sets={set},")).then_some(());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_end_of_the_api_ends_its_players() {
    let world = World::start().await;
    world.command("start", "init_startup").await;
    let _film = world.film(100);
    let mut playing = world.playing().await;
    let mut waiting = world.player().await;
    let (bye, none, ()) = tokio::join!(playing.end(), waiting.end(), world.api.stop());
    is_bye(bye);
    assert_eq!(none, None);
}

#[tokio::test]
async fn who_sends_garbage_or_nothing_is_let_go_and_nobody_else_notices() {
    let world = World::start().await;
    world.command("start", "init_startup").await;
    let _film = world.film(100);
    let mut playing = world.playing().await;

    let malformed = async |bytes: Vec<u8>| {
        let mut player = world.player().await;
        // It may be let go before all is sent.
        let _ = player.stream.write_all(&bytes).await;
        if let Came::Answer(answer) = player.next().await {
            answer.is(400);
        }
        player.end().await;
    };
    malformed(b"GET / HTTP/1.1\r\nHost: kadr\r\n\r\n".to_vec()).await;
    malformed((0..100_000_u32).map(|n| ((n * 31) >> 3) as u8).collect()).await;
    malformed([&b"OPTIONS * RTSP/1.0\r\n"[..], &b"X-Header: more\r\n".repeat(100_000)].concat()).await;
    malformed(b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 9999999999\r\n\r\n".to_vec()).await;

    // Each waits for the deadline, beside the others.
    let began = Instant::now();
    let silent = async |first: &[u8], more: &[u8]| {
        let Player { stream, .. } = world.player().await;
        let (mut reading, mut writing) = stream.into_split();
        writing.write_all(first).await.unwrap();
        let more = async {
            let mut due = interval(Duration::from_millis(200));
            loop {
                due.tick().await;
                if more.is_empty() || writing.write_all(more).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let end = timeout(LONG, async { while reading.read_u8().await.is_ok() {} });
        tokio::select! {
            () = more => {}
            end = end => end.unwrap(),
        }
        assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    };
    tokio::join!(
        silent(b"", b""),
        silent(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n", b""),
        silent(b"OPTIONS * RTSP/1.0\r\nX: ", b"y"),
        silent(b"", b"$\x00\x00\x01x"),
    );
    playing.ask("OPTIONS", "", &[]).await.is(200);
    assert!(matches!(playing.next().await, Came::Packet { .. }));
}

#[tokio::test]
async fn who_takes_nothing_is_let_go_and_others_see_all() {
    let world = World::start().await;
    world.command("start", "init_startup").await;
    let _film = world.film(400_000);
    let mut stalled = world.player().await;
    stalled.ask("SETUP", "gate", &[TCP]).await.is(200);
    stalled.send("PLAY", "gate", &[]).await;
    let mut playing = world.playing().await;

    // Longer than it is borne with; the other one goes on meanwhile.
    let began = Instant::now();
    let mut before = None;
    while began.elapsed() < Duration::from_secs(14) {
        let (channel, packet) = playing.packet().await;
        if channel == 0 {
            // Of the picture: 40 ms behind the one before, or the same one's.
            let shown = number(&packet[4..8]);
            let after = before.map_or(0, |before: u32| shown.wrapping_sub(before));
            assert!(matches!(after, 0 | 3_600), "a picture is left out: {after}");
            before = Some(shown);
        }
    }
    // What is on its way is read, and then there is nothing.
    let mut room = vec![0; 1 << 20];
    let rest = timeout(LONG, async { while stalled.stream.read(&mut room).await.is_ok_and(|read| read > 0) {} });
    rest.await.unwrap();
}

#[tokio::test]
async fn there_is_room_for_so_many_and_then_a_word() {
    let world = World::start().await;
    let mut all = Vec::new();
    for _ in 0..256 {
        all.push(world.player().await);
    }
    all[255].ask("OPTIONS", "", &[]).await.is(200);
    let mut late = world.player().await;
    late.ask("OPTIONS", "", &[]).await.is(503).says("too many watch already");
    assert!(matches!(late.next().await, Came::End));
    all.truncate(200);
    eventually("a place that is free again", || async {
        let mut player = world.player().await;
        player.ask("OPTIONS", "", &[]).await.head.starts_with("RTSP/1.0 200").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_with_its_flag() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = TestServer::start().await;
    let folder = TempDir::with_prefix("kadr-api-").unwrap();
    let config = Config { rtsp: Some(taken.local_addr().unwrap()), ..config(folder.path()) };
    let error = Api::bind(config, server.nats().await).await.err().unwrap().to_string();
    assert!(error.contains("the port is in use") && error.ends_with("by --rtsp"), "{error}");
}
