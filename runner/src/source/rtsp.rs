//! A camera by RTSP: its session, its H.264, its frames.
//!
//! One source is one session: what ends it, and every silence that is too long, is an error that says why; connecting
//! again is the caller's business. Every await has a deadline and ends when the caller stops.

mod backlog;
mod clock;
mod refusal;
pub(super) mod relay;
mod session;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use kadr_shared::{
    onvif::Wish,
    settings::{Quirk, Quirks, Tls, Transport},
    time::Timestamp,
};
use retina::codec::{CodecItem, VideoFrame};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use url::Url;

use self::{
    backlog::Backlog,
    clock::{Clock, REORDERED_MICROS, Wall},
    session::Session,
};
use super::{
    Coded, Frame, FrameRate, Source, SourceError, SourceInfo,
    h264::{Decoder, begins_picture, is_idr, is_slice, is_sps, nals, sps::Stream},
    live::{self, Came, Live, Losses, until},
    onvif,
};
use crate::picture::Picture;

/// Bytes before the length of each NAL unit.
const LENGTH: usize = 4;
/// The clock of RTP video (RFC 6184, section 8.2.1).
const TICKS: NonZeroU32 = NonZeroU32::MIN.saturating_add(89_999);
/// Pictures that a decoder may hold back: more are waited for than a level allows.
const HELD_BACK: usize = 32;
/// What came is taken with each frame; where none can be decoded, so much is kept of it.
const MOST_CODED: usize = 256;

/// How long a camera may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// From the first packet of the connection to its word that it plays.
    pub answer: Duration,
    /// From there to the first whole picture: cameras begin with a key frame, or send the next one after some seconds.
    pub first_frame: Duration,
    /// Between two frames. A camera that sends one in five seconds is still one.
    pub idle: Duration,
    /// Without a picture that can be decoded, while some come: where one was lost, those that follow on it are of no use up to the
    /// next key frame, which some cameras send seldom.
    pub undecodable: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let [answer, first_frame, idle, undecodable] = [10, 15, 10, 40].map(Duration::from_secs);
        Self { answer, first_frame, idle, undecodable }
    }
}

/// How to get at a camera.
#[derive(Clone)]
pub struct Access {
    pub url: Url,
    /// User name and password. Never shown.
    pub credentials: Option<(String, String)>,
    pub transport: Transport,
    /// Whom to trust where the address is one of `rtsps://`.
    pub tls: Tls,
    /// What is known to be wrong with it.
    pub quirks: Quirks,
    pub deadlines: Deadlines,
    /// Keep what comes as it comes, for [`Live::take_coded`].
    pub keep_coded: bool,
    /// The address is that of an ONVIF device, which is asked for each session where such a stream is.
    pub device: Option<Wish>,
}

impl Access {
    /// A camera about which nothing else is known.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            credentials: None,
            transport: Transport::default(),
            tls: Tls::default(),
            quirks: Quirks::new(),
            deadlines: Deadlines::default(),
            keep_coded: false,
            device: None,
        }
    }
}

/// Frames of one session.
pub struct RtspSource {
    idle: Duration,
    undecodable: Duration,
    session: Session,
    decoder: Decoder,
    stream: Stream,
    info: SourceInfo,
    clock: Clock,
    /// None: what it says of the time of day is not to be believed.
    wall: Option<Wall>,
    /// Of what the decoder has taken and not given back; the earliest comes out next.
    shown_at: BinaryHeap<Reverse<Shown>>,
    /// Pictures from before the last change of the size, which come first.
    drained: VecDeque<(Picture, Shown)>,
    /// What came while nobody wanted it.
    backlog: Backlog<(VideoFrame, Shown)>,
    /// When the latest of what was passed is shown, in microseconds.
    passed: i64,
    given: u64,
    /// When the last picture came out, or was passed.
    pictured: Instant,
    /// Pictures that can't be decoded, since they were asked for last.
    unreadable: u64,
    /// What came and was not taken yet, if it is to be kept.
    coded: Option<Vec<Coded>>,
}

/// When a picture is shown: its place in the stream, and when it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shown {
    micros: i64,
    taken: Timestamp,
    /// It was passed before: it is decoded only for those that follow on it.
    passed: bool,
}

impl RtspSource {
    /// Connects, and waits for the first picture. Blocks; `stop` ends it early.
    pub fn open(access: &Access, runtime: Handle, stop: CancellationToken) -> Result<Self, SourceError> {
        let Deadlines { answer, first_frame, idle, undecodable } = access.deadlines;
        let found;
        let access = match &access.device {
            Some(wish) => {
                let asked = until(&runtime, &stop, onvif::DEADLINE, onvif::find(access, wish));
                let late = Err(SourceError::Silent { what: "tell where its streams are", after: onvif::DEADLINE });
                found = asked.ok_or(SourceError::Stopped)?.unwrap_or(late)?;
                &found
            }
            None => access,
        };
        let mut session = Session::open(access, answer, runtime, stop)?;
        let began = Instant::now();
        let mut wall = (!access.quirks.contains(&Quirk::WrongClock)).then(Wall::default);
        loop {
            let left = first_frame.saturating_sub(began.elapsed());
            // Many report the time before they send a picture.
            let Some(frame) = session.next_unit(left, &mut |item| hear(&mut wall, item))? else {
                return Err(SourceError::Silent { what: "send a picture", after: first_frame });
            };
            // Whatever comes before a picture that needs no other one can't be shown.
            let Some(stream) = is_key(&frame).then(|| parameters(frame.data())).flatten() else {
                continue;
            };
            let stream = stream?;
            let rate = session.rate().unwrap_or(FrameRate::DEFAULT);
            let mut source = Self {
                idle,
                undecodable,
                session,
                decoder: Decoder::new(stream)?,
                stream,
                info: SourceInfo {
                    size: stream.size,
                    frame_rate: rate,
                    timescale: TICKS,
                    frames: None,
                    colour: stream.colour,
                },
                clock: Clock::new(access.quirks.contains(&Quirk::WrongTimes)),
                wall,
                shown_at: BinaryHeap::new(),
                drained: VecDeque::new(),
                backlog: Backlog::default(),
                passed: i64::MIN,
                given: 0,
                pictured: Instant::now(),
                unreadable: 0,
                coded: access.keep_coded.then(Vec::new),
            };
            let shown = source.note(&frame)?;
            source.decode(&frame, shown)?;
            return Ok(source);
        }
    }

    /// Waits for the next access unit.
    fn next_unit(&mut self) -> Result<(VideoFrame, Shown), SourceError> {
        let wall = &mut self.wall;
        let Some(frame) = self.session.next_unit(self.idle, &mut |item| hear(wall, item))? else {
            return Err(SourceError::Silent { what: "send a frame", after: self.idle });
        };
        let shown = self.note(&frame)?;
        Ok((frame, shown))
    }

    /// Takes note of what a unit says, whether it is decoded or not.
    fn note(&mut self, frame: &VideoFrame) -> Result<Shown, SourceError> {
        if frame.loss() > 0 {
            debug!(packets = frame.loss(), "packets of the camera were lost");
        }
        if let Some(stream) = parameters(frame.data()) {
            let stream = stream?;
            if stream != self.stream {
                debug!(from = %self.stream.size, to = %stream.size, "the camera's picture changes");
                self.stream = stream;
                if self.backlog.is_empty() {
                    self.drain();
                }
                self.begin_anew()?;
                self.backlog.clear();
            }
        }
        let arrived = frame.start_ctx().received();
        let ticks = frame.timestamp().timestamp();
        let micros = self.clock.micros(ticks, frame.timestamp().clock_rate(), arrived);
        // Where the camera does not tell, it was now.
        let taken = self.wall.as_ref().and_then(|wall| wall.taken(frame.timestamp())).unwrap_or_else(Timestamp::now);
        if let Some(coded) = self.coded.as_mut().filter(|coded| coded.len() < MOST_CODED) {
            coded.push(Coded {
                pts_ms: micros as f64 / 1000.0,
                captured_at: taken,
                key: is_key(frame),
                size: self.stream.size,
                data: frame.data().to_vec(),
            });
        }
        Ok(Shown { micros, taken, passed: false })
    }

    /// Takes what the decoder holds back, as nothing of this size comes any more.
    fn drain(&mut self) {
        self.decoder.flush();
        while let (Some(picture), Some(Reverse(shown))) = (self.decoder.next_picture(), self.shown_at.pop()) {
            self.drained.push_back((picture, shown));
        }
    }

    fn begin_anew(&mut self) -> Result<(), SourceError> {
        self.decoder = Decoder::new(self.stream)?;
        self.shown_at.clear();
        Ok(())
    }

    /// Whether it was taken.
    fn decode(&mut self, frame: &VideoFrame, shown: Shown) -> Result<bool, SourceError> {
        if !self.decoder.decode(frame.data(), LENGTH)? {
            return Ok(false);
        }
        // The rest of a picture whose beginning was lost is taken, and gives none: the next one must not have its time.
        if frame.loss() > 0 && !nals(frame.data(), LENGTH).flatten().any(begins_picture) {
            return Ok(false);
        }
        self.shown_at.push(Reverse(shown));
        // What was damaged never comes out, and its time must not be kept for ever.
        if self.shown_at.len() > HELD_BACK {
            self.shown_at.pop();
        }
        Ok(true)
    }

    /// Whether it comes after a picture that is shown after it, and that one was passed.
    fn comes_late(&self, shown: Shown) -> bool {
        (1..REORDERED_MICROS).contains(&self.passed.saturating_sub(shown.micros))
    }

    /// Decodes what was passed, and gives none of it.
    fn catch_up(&mut self) -> Result<(), SourceError> {
        let (gap, units) = self.backlog.take();
        if gap {
            self.begin_anew()?;
        }
        for (frame, shown) in units {
            self.decode(&frame, Shown { passed: true, ..shown })?;
            // One at a time: so many pictures need a lot of room.
            while self.decoder.next_picture().is_some() {
                self.shown_at.pop();
            }
        }
        Ok(())
    }
}

impl Live for RtspSource {
    fn rate(&self) -> Option<f64> {
        Some(self.info.frame_rate.hz())
    }

    fn receive(&mut self, wanted: bool) -> Result<Came, SourceError> {
        if wanted { Ok(self.frame()?.map_or(Came::Nothing, Came::Frame)) } else { self.pass() }
    }

    fn losses(&mut self) -> Losses {
        Losses { unreadable: std::mem::take(&mut self.unreadable), ..Losses::default() }
    }

    fn take_coded(&mut self) -> Vec<Coded> {
        self.coded.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl Source for RtspSource {
    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        live::next_frame(self)
    }
}

impl RtspSource {
    /// What its first frame told.
    pub fn info(&self) -> &SourceInfo {
        &self.info
    }

    /// Receives the next frame, and leaves out what can be.
    fn pass(&mut self) -> Result<Came, SourceError> {
        let (frame, shown) = self.next_unit()?;
        // They would be old by the time that somebody wants a frame again.
        self.drained.clear();
        let picture = has_picture(&frame);
        let (key, bytes) = (is_key(&frame), frame.data().len());
        if !self.backlog.keep((frame, shown), key, bytes) {
            self.catch_up()?;
        }
        if !picture {
            return Ok(Came::Nothing);
        }
        self.given += 1;
        self.pictured = Instant::now();
        if !self.comes_late(shown) {
            self.passed = shown.micros;
        }
        Ok(Came::Passed { pts_ms: self.clock.show(Some(shown.micros)) as f64 / 1000.0 })
    }

    /// The next frame; none: a picture came that can't be decoded.
    fn frame(&mut self) -> Result<Option<Frame>, SourceError> {
        loop {
            let drained = self.drained.pop_front().map(|(picture, shown)| (picture, Some(shown)));
            let next = drained.or_else(|| {
                let picture = self.decoder.next_picture()?;
                Some((picture, self.shown_at.pop().map(|Reverse(shown)| shown)))
            });
            if let Some((picture, shown)) = next {
                if shown.is_some_and(|shown| shown.passed) {
                    continue;
                }
                let micros = self.clock.show(shown.map(|shown| shown.micros));
                self.pictured = Instant::now();
                let number = self.given;
                self.given += 1;
                let captured_at = shown.map(|shown| shown.taken);
                return Ok(Some(Frame { number, pts_ms: micros as f64 / 1000.0, captured_at, picture }));
            }
            let (frame, shown) = self.next_unit()?;
            if is_key(&frame) {
                // Nothing from here on needs what was passed.
                self.backlog.forget();
            }
            self.catch_up()?;
            let passed = self.comes_late(shown);
            if !passed {
                // The rest is over: what comes from here on is late for nothing.
                self.passed = i64::MIN;
            }
            let taken = self.decode(&frame, Shown { passed, ..shown })?;
            if !taken && has_picture(&frame) {
                if self.pictured.elapsed() > self.undecodable {
                    let after = self.undecodable;
                    return Err(SourceError::Silent { what: "send a picture that can be decoded", after });
                }
                self.unreadable += 1;
                return Ok(None);
            }
        }
    }
}

fn hear(wall: &mut Option<Wall>, item: &CodecItem) {
    if let Some(wall) = wall {
        wall.hear(item);
    }
}

/// Whether a unit holds a picture, and not only what goes before one.
fn has_picture(frame: &VideoFrame) -> bool {
    nals(frame.data(), LENGTH).flatten().any(is_slice)
}

/// Whether others can follow on it alone. The library says so also of what holds no picture at all.
fn is_key(frame: &VideoFrame) -> bool {
    nals(frame.data(), LENGTH).flatten().any(is_idr)
}

/// What the unit's own parameter set says, if it has one.
fn parameters(data: &[u8]) -> Option<Result<Stream, SourceError>> {
    nals(data, LENGTH).flatten().find(|nal| is_sps(nal)).map(|nal| Stream::of(nal, None))
}
