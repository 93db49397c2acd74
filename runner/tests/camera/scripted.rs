//! What cameras do in the middle of a session, and what is wrong with some: a peer that sends real H.264 and tells what it is
//! told to.

use std::{
    io,
    process::Command,
    time::{Duration, Instant},
};

use kadr_runner::source::{Access, Came, Deadlines, Frame, Live};
use kadr_shared::{
    geometry::Size,
    settings::{Quirk, Quirks},
    time::Timestamp,
};

use super::{
    Ground, access, frames,
    peer::{Asked, Line, Peer},
};

/// Its packets go by this number.
const SSRC: u32 = 7;
/// Ticks from a frame to the next.
const FRAME: u32 = 3_600;
/// From 1900 to 1970, in seconds.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// An access unit: its NAL units.
type Unit = Vec<Vec<u8>>;

/// Pictures of this size by x264, a key frame with its parameter sets every ten.
fn coded(size: &str, count: u32) -> Vec<Unit> {
    let mut command = Command::new("ffmpeg");
    let input = format!("testsrc2=s={size}:r=25");
    command.args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", &input, "-frames:v", &count.to_string()]);
    command.args("-c:v libx264 -bf 0 -g 10 -x264-params slices=1 -pix_fmt yuv420p -f h264 -".split(' '));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut units: Vec<Unit> = vec![Vec::new()];
    for nal in nals(&output.stdout) {
        let slice = matches!(nal[0] & 0x1f, 1 | 5);
        units.last_mut().unwrap().push(nal.to_vec());
        if slice {
            units.push(Vec::new());
        }
    }
    units.pop();
    assert_eq!(units.len(), count as usize);
    units
}

/// What stands between start codes.
fn nals(stream: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, code)| *code == [0, 0, 1]).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| {
            let nal = &stream[start + 3..end];
            &nal[..nal.iter().rposition(|&byte| byte != 0).unwrap() + 1]
        })
        .collect()
}

/// Sends pictures as packets (RFC 6184).
struct Sender {
    sequence: u16,
}

impl Sender {
    fn packet(&mut self, line: &mut Line, ticks: u32, last: bool, payload: &[u8]) -> io::Result<()> {
        let mut packet = vec![0x80, u8::from(last) << 7 | 96];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(ticks.to_be_bytes());
        packet.extend(SSRC.to_be_bytes());
        packet.extend(payload);
        self.sequence = self.sequence.wrapping_add(1);
        line.packet(0, &packet)
    }

    fn unit(&mut self, line: &mut Line, ticks: u32, unit: &Unit) -> io::Result<()> {
        for (n, nal) in unit.iter().enumerate() {
            let last = n + 1 == unit.len();
            if nal.len() <= 1_400 {
                self.packet(line, ticks, last, nal)?;
                continue;
            }
            let (kind, pieces) = (nal[0] & 0x1f, nal[1..].chunks(1_400));
            let count = pieces.len();
            for (piece, bytes) in pieces.enumerate() {
                let (begin, end) = (u8::from(piece == 0) << 7, u8::from(piece + 1 == count) << 6);
                let head = [nal[0] & 0x60 | 28, begin | end | kind];
                self.packet(line, ticks, last && end != 0, &[&head, bytes].concat())?;
            }
        }
        Ok(())
    }
}

/// A report (RFC 3550, section 6.4.1): these ticks were then.
fn report(line: &mut Line, ssrc: u32, ticks: u32, then: Timestamp) -> io::Result<()> {
    let millis = u64::try_from(then.as_millis()).unwrap();
    let mut packet = vec![0x80, 200, 0, 6];
    packet.extend(ssrc.to_be_bytes());
    let (seconds, part) = (millis / 1000 + NTP_TO_UNIX, ((millis % 1000) << 32) / 1000);
    packet.extend((seconds << 32 | part).to_be_bytes());
    packet.extend(ticks.to_be_bytes());
    packet.extend([0; 8]);
    line.packet(1, &packet)
}

/// Answers well, and does this once it is told to play.
fn playing(play: impl Fn(&mut Line) -> io::Result<()> + Send + 'static) -> Peer {
    Peer::start(move |asked: &Asked, line: &mut Line| {
        line.answer_well(asked)?;
        if asked.method() == "PLAY" { play(line) } else { Ok(()) }
    })
}

fn with(url: &str, quirks: &[Quirk]) -> Access {
    Access { quirks: quirks.iter().copied().collect::<Quirks>(), ..access(url) }
}

#[test]
fn a_new_parameter_set_in_the_middle_of_a_session_changes_the_size() {
    let parts = [coded("320x240", 20), coded("640x480", 20), coded("160x120", 20)];
    let peer = playing(move |line| {
        let mut sender = Sender { sequence: 1 };
        let units = parts.iter().flatten().zip((0..).step_by(FRAME as usize));
        units.into_iter().try_for_each(|(unit, ticks)| sender.unit(line, ticks, unit))
    });
    let ground = Ground::new();
    let mut source = ground.open(&access(&peer.url)).unwrap();
    let frames = frames(&mut source, 55);
    for (n, frame) in frames.iter().enumerate() {
        let (width, height) = [(320, 240), (640, 480), (160, 120)][n / 20];
        assert_eq!(frame.picture.size(), Size { width, height }, "frame {n}");
        assert_eq!((frame.number, frame.pts_ms.round()), (n as u64, n as f64 * 40.0));
    }
    assert_eq!(peer.asked().iter().filter(|(method, _)| method == "PLAY").count(), 1, "one session");
}

#[test]
fn lost_packets_and_times_that_jump_are_survived() {
    let units = coded("320x240", 65);
    let peer = playing(move |line| {
        let mut sender = Sender { sequence: 1 };
        for (n, unit) in (0..).zip(&units) {
            // An hour ahead, and long before the beginning.
            let ticks = match n {
                20..40 => n * FRAME + 3_600 * 90_000,
                40.. => (n * FRAME).wrapping_sub(3_600 * 90_000),
                _ => n * FRAME,
            };
            // Pictures of which nothing comes, and one of which the beginning is missing.
            match n {
                13 | 14 | 33 => sender.sequence += 5,
                53 => {
                    sender.sequence += 1;
                    sender.unit(line, ticks, &unit[unit.len() - 1..].to_vec())?;
                }
                _ => sender.unit(line, ticks, unit)?,
            }
        }
        Ok(())
    });
    let ground = Ground::new();
    let began = Instant::now();
    let mut source = ground.open(&access(&peer.url)).unwrap();
    let frames = frames(&mut source, 50);
    let took = began.elapsed().as_secs_f64() * 1000.0;
    // Each count of the camera's goes on from where the frame came.
    assert!(
        frames.is_sorted_by(|a, b| a.pts_ms <= b.pts_ms),
        "{:?}",
        frames.iter().map(|f| f.pts_ms).collect::<Vec<_>>()
    );
    assert!(frames[49].pts_ms < took + 3.0 * 20.0 * 40.0, "{} ms after {took} ms", frames[49].pts_ms);
    assert!(frames.iter().enumerate().all(|(n, frame)| frame.number == n as u64));
    assert_eq!(peer.asked().iter().filter(|(method, _)| method == "PLAY").count(), 1, "one session");
}

/// After a key frame, pictures that follow on one that was lost: so many of them.
fn undecodable(count: usize) -> Peer {
    let units = coded("320x240", 20);
    playing(move |line| {
        let mut sender = Sender { sequence: 1 };
        let lost = units[2..10].iter().cycle().take(count);
        let units = units[..1].iter().chain(lost).chain(&units[10..]);
        (0..).zip(units).try_for_each(|(n, unit)| sender.unit(line, n * FRAME, unit))
    })
}

#[test]
fn pictures_that_cannot_be_decoded_are_counted_and_recorded_all_the_same() {
    let peer = undecodable(8);
    let ground = Ground::new();
    let mut source = ground.open(&Access { keep_coded: true, ..access(&peer.url) }).unwrap();
    let (mut seen, mut lost) = (0, 0);
    while seen < 5 {
        seen += u64::from(matches!(source.receive(true).unwrap(), Came::Frame(_)));
        lost += Live::losses(&mut source).unreadable;
    }
    assert_eq!(lost, 8);
    assert!(Live::take_coded(&mut source).len() >= 13);
}

#[test]
fn a_camera_of_which_nothing_can_be_decoded_is_given_up_after_a_while() {
    let peer = undecodable(100_000);
    let ground = Ground::new();
    let undecodable = Duration::from_millis(300);
    let deadlines = Deadlines { undecodable, ..access(&peer.url).deadlines };
    let mut source = ground.open(&Access { deadlines, ..access(&peer.url) }).unwrap();
    let error = loop {
        match source.receive(true) {
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(error, "the camera did not send a picture that can be decoded within 0.3 s");
}

/// Nothing of what is recorded as it comes may depend on whether somebody looks on.
#[test]
fn what_is_passed_is_kept_as_it_came_whatever_size_it_has() {
    let parts = [coded("320x240", 50), coded("160x120", 75)];
    let sent: Vec<Unit> = parts.concat();
    let units = sent.clone();
    // Fifty a second: what comes at once must not look like four seconds.
    let peer = playing(move |line| {
        let mut sender = Sender { sequence: 1 };
        (0..).zip(&units).try_for_each(|(n, unit)| sender.unit(line, n * FRAME / 2, unit))
    });
    let ground = Ground::new();
    let mut source = ground.open(&Access { keep_coded: true, ..access(&peer.url) }).unwrap();
    // More than are kept to go on from, and over the change.
    frames(&mut source, 5);
    for _ in 0..80 {
        assert!(matches!(source.receive(false).unwrap(), Came::Passed { .. }));
    }
    let seen = frames(&mut source, 20);
    assert!(seen.iter().all(|frame| frame.picture.size() == Size { width: 160, height: 120 }));
    assert_eq!(seen[0].pts_ms.round() % 20.0, 0.0);
    assert!(seen[0].pts_ms >= 85.0 * 20.0, "{} ms: what was passed is not shown", seen[0].pts_ms);
    let coded = Live::take_coded(&mut source);
    assert!(coded.len() >= 105, "{}", coded.len());
    for (n, (coded, unit)) in coded.iter().zip(&sent).enumerate() {
        let (slice, key) = (unit.last().unwrap(), n % 10 == 0);
        assert!(coded.data.ends_with(slice), "unit {n}");
        assert_eq!((coded.key, coded.pts_ms.round()), (key, n as f64 * 20.0), "unit {n}");
        assert_eq!(coded.size.width, if n < 50 { 320 } else { 160 });
    }
}

/// A unit without a picture is nothing to go on from.
#[test]
fn what_holds_no_picture_is_no_key_frame() {
    let units = coded("320x240", 40);
    let peer = playing(move |line| {
        let mut sender = Sender { sequence: 1 };
        for (n, unit) in (0..).zip(&units) {
            sender.unit(line, n * FRAME, unit)?;
            // Filler of its own, as cameras send that keep to a rate.
            sender.unit(line, n * FRAME + FRAME / 2, &vec![vec![12, 0xff, 0xff, 0x80]])?;
        }
        Ok(())
    });
    let ground = Ground::new();
    let mut source = ground.open(&Access { keep_coded: true, ..access(&peer.url) }).unwrap();
    frames(&mut source, 2);
    let passed = (0..40).filter(|_| source.receive(false).unwrap() != Came::Nothing).count();
    assert_eq!(passed, 20, "every other one is none");
    frames(&mut source, 10);
    let keys = Live::take_coded(&mut source).iter().filter(|coded| coded.key).count();
    assert!((2..=4).contains(&keys), "{keys} of 40 frames, of which four are");
}

/// What is told of when the frames were taken, by a camera whose clock is 20 s behind, and when the test began.
fn taken(ssrc: u32, behind: Duration, quirks: &[Quirk]) -> (Vec<Frame>, Timestamp) {
    taken_by_report_before(10, ssrc, behind, quirks)
}

/// The report comes before this frame, and is about the tenth.
fn taken_by_report_before(frame: u32, ssrc: u32, behind: Duration, quirks: &[Quirk]) -> (Vec<Frame>, Timestamp) {
    let (units, now) = (coded("320x240", 35), Timestamp::now());
    let then = Timestamp::from_millis(now.as_millis() - i64::try_from(behind.as_millis()).unwrap());
    let peer = playing(move |line| {
        let mut sender = Sender { sequence: 1 };
        for (n, unit) in (0..).zip(&units) {
            if n == frame {
                report(line, ssrc, 10 * FRAME, then)?;
            }
            sender.unit(line, n * FRAME, unit)?;
        }
        Ok(())
    });
    let ground = Ground::new();
    let mut source = ground.open(&with(&peer.url, quirks)).unwrap();
    (frames(&mut source, 30), now)
}

#[test]
fn frames_were_taken_when_the_cameras_reports_say() {
    let behind = Duration::from_secs(20);
    let late = |(frames, now): (Vec<Frame>, Timestamp), n: usize| {
        // Against the frame that the report is about.
        now.as_millis() + (n as i64 - 10) * 40 - frames[n].captured_at.unwrap().as_millis()
    };
    for n in [10, 29] {
        let late = late(taken(SSRC, behind, &[]), n);
        assert!((19_998..20_003).contains(&late), "frame {n}: {late} ms behind");
    }
    let early = late(taken_by_report_before(0, SSRC, behind, &[]), 0);
    assert!((19_998..20_003).contains(&early), "{early} ms behind: it has told before the first picture");
    let not_behind = |late: i64| late < 10_000;
    assert!(not_behind(late(taken(SSRC, behind, &[]), 5)), "it has not told yet");
    assert!(not_behind(late(taken(SSRC, Duration::from_secs(90), &[]), 29)), "a clock that was never set");
    assert!(not_behind(late(taken(SSRC, behind, &[Quirk::WrongClock]), 29)));
    assert!(not_behind(late(taken(SSRC + 1, behind, &[]), 29)), "somebody else's report");
    let foreign = late(taken(SSRC + 1, behind, &[Quirk::ForeignReports]), 29);
    assert!((19_998..20_003).contains(&foreign), "{foreign} ms behind");
}

/// A clock that runs ten times too fast.
#[test]
fn a_camera_whose_times_are_wrong_is_timed_by_its_frames() {
    let units = coded("320x240", 35);
    let peer = playing(move |line| {
        let mut sender = Sender { sequence: 1 };
        (0..).zip(&units).try_for_each(|(n, unit)| sender.unit(line, n * 10 * FRAME, unit))
    });
    let ground = Ground::new();
    let believed = frames(&mut ground.open(&access(&peer.url)).unwrap(), 5);
    assert_eq!(believed[4].pts_ms.round(), 1_600.0);
    let began = Instant::now();
    let timed = frames(&mut ground.open(&with(&peer.url, &[Quirk::WrongTimes])).unwrap(), 30);
    let took = began.elapsed().as_secs_f64() * 1000.0;
    assert!(timed.is_sorted_by(|a, b| a.pts_ms <= b.pts_ms) && timed[29].pts_ms <= took, "{} ms", timed[29].pts_ms);
}

#[test]
fn a_camera_that_announces_another_number_is_borne_where_that_is_known() {
    let units = coded("320x240", 35);
    let peer = Peer::start(move |asked, line| {
        if asked.method() != "PLAY" {
            return line.answer_well(asked);
        }
        line.answer(asked, "Session: 12345678\r\nRTP-Info: url=track1;seq=20000;rtptime=0\r\n", "")?;
        let mut sender = Sender { sequence: 100 };
        (0..).zip(&units).try_for_each(|(n, unit)| sender.unit(line, n * FRAME, unit))
    });
    let ground = Ground::new();
    let [answer, first_frame, idle] = [Duration::from_secs(5), Duration::from_millis(500), Duration::from_millis(500)];
    let deadlines = Deadlines { answer, first_frame, idle, ..Deadlines::default() };
    let impatient = |quirks| Access { deadlines, ..with(&peer.url, quirks) };
    assert!(ground.open(&impatient(&[])).is_err());
    let mut source = ground.open(&impatient(&[Quirk::WrongSequence])).unwrap();
    assert_eq!(frames(&mut source, 30).len(), 30);
}

#[test]
fn a_camera_is_told_that_a_session_ends_unless_it_does_not_bear_it() {
    let units = coded("320x240", 10);
    let peer = playing(move |line| {
        let mut sender = Sender { sequence: 1 };
        (0..).zip(&units).try_for_each(|(n, unit)| sender.unit(line, n * FRAME, unit))
    });
    let ground = Ground::new();
    let told = |quirks: &[Quirk]| {
        let before = peer.asked().len();
        drop(ground.open(&with(&peer.url, quirks)).unwrap());
        // It serves one after another: this one is taken when the first one is over.
        let next = ground.open(&with(&peer.url, &[Quirk::NoTeardown])).unwrap();
        drop(next);
        peer.asked().iter().skip(before).any(|(method, _)| method == "TEARDOWN")
    };
    assert!(told(&[]));
    assert!(!told(&[Quirk::NoTeardown]));
}
