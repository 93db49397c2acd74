//! A camera by RTSP: its session, its H.264, its frames.
//!
//! One source is one session: what ends it, and every silence that is too long, is an error that says why; connecting
//! again is the caller's business. Every await has a deadline and ends when the caller stops.

mod backlog;
mod clock;
mod refusal;
pub(super) mod relay;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use kadr_shared::{
    onvif::Wish,
    settings::{Quirk, Quirks, Tls, Transport},
    time::Timestamp,
};
use retina::{
    client::{
        self, Credentials, Demuxed, InitialSequenceNumberPolicy, InitialTimestampPolicy, PlayOptions, Session,
        SessionGroup, SessionOptions, SetupOptions, TeardownPolicy, UnknownRtcpSsrcPolicy,
    },
    codec::{CodecItem, FrameFormat, ParameterSetInsertion, VideoFrame, h26x::Framing},
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use url::Url;

use self::{
    backlog::Backlog,
    clock::{Clock, Wall},
    relay::Relay,
};
use super::{
    Coded, Frame, FrameRate, Source, SourceError, SourceInfo,
    h264::{Decoder, is_sps, nals, sps::Stream},
    live::{Live, Passed, until},
    onvif,
};

/// Bytes before the length of each NAL unit.
const LENGTH: usize = 4;
/// The clock of RTP video (RFC 6184, section 8.2.1).
const TICKS: NonZeroU32 = NonZeroU32::MIN.saturating_add(89_999);
/// Pictures that a decoder may hold back: more are waited for than a level allows.
const HELD_BACK: usize = 32;
/// A picture comes no longer after one that is shown behind it, in microseconds.
const REORDERED: i64 = 1_000_000;
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
}

impl Default for Deadlines {
    fn default() -> Self {
        let [answer, first_frame, idle] = [10, 15, 10].map(Duration::from_secs);
        Self { answer, first_frame, idle }
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

/// Frames of one session.
pub struct RtspSource {
    runtime: Handle,
    stop: CancellationToken,
    idle: Duration,
    session: Playing,
    video: usize,
    decoder: Decoder,
    stream: Stream,
    info: SourceInfo,
    clock: Clock,
    /// None: what it says of the time of day is not to be believed.
    wall: Option<Wall>,
    /// Of what the decoder has taken and not given back; the earliest comes out next.
    shown_at: BinaryHeap<Reverse<Shown>>,
    /// What came while nobody wanted it.
    backlog: Backlog<(VideoFrame, Shown)>,
    /// When the latest of what was passed is shown, in microseconds.
    passed: i64,
    given: u64,
    /// What came and was not taken yet, if it is to be kept.
    coded: Option<Vec<Coded>>,
}

/// A session. It is ended in the background, for which it needs its runtime around it.
struct Playing {
    demuxed: Option<Demuxed>,
    runtime: Handle,
    /// Its way to the camera; none: the library has its own. It goes after the session.
    relay: Option<Relay>,
}

impl Drop for Playing {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        self.demuxed = None;
    }
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
        let Deadlines { answer, first_frame, idle } = access.deadlines;
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
        // Also what is given up on the way ends its session in the background.
        let _entered = runtime.enter();
        let (session, video, relay) = until(&runtime, &stop, answer, play(access))
            .ok_or(SourceError::Stopped)?
            .unwrap_or(Err(SourceError::Silent { what: "answer", after: answer }))?;
        let mut session = Playing { demuxed: Some(session), runtime: runtime.clone(), relay };
        let began = Instant::now();
        loop {
            let left = first_frame.saturating_sub(began.elapsed());
            let Some(frame) = next_unit(&mut session, video, &runtime, &stop, left, &mut |_| {})? else {
                return Err(SourceError::Silent { what: "send a picture", after: first_frame });
            };
            // Whatever comes before a picture that needs no other one can't be shown.
            let Some(stream) = frame.is_random_access_point().then(|| parameters(frame.data())).flatten() else {
                continue;
            };
            let stream = stream?;
            let rate = client_rate(&session, video);
            let mut source = Self {
                runtime,
                stop,
                idle,
                session,
                video,
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
                wall: (!access.quirks.contains(&Quirk::WrongClock)).then(Wall::default),
                shown_at: BinaryHeap::new(),
                backlog: Backlog::default(),
                passed: i64::MIN,
                given: 0,
                coded: access.keep_coded.then(Vec::new),
            };
            let shown = source.note(&frame)?;
            source.decode(&frame, shown)?;
            return Ok(source);
        }
    }

    /// Waits for the next access unit.
    fn receive(&mut self) -> Result<(VideoFrame, Shown), SourceError> {
        let wall = &mut self.wall;
        let mut report = |item: &CodecItem| {
            if let Some(wall) = wall {
                wall.hear(item);
            }
        };
        let next = next_unit(&mut self.session, self.video, &self.runtime, &self.stop, self.idle, &mut report)?;
        let Some(frame) = next else {
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
                key: frame.is_random_access_point(),
                size: self.stream.size,
                data: frame.data().to_vec(),
            });
        }
        Ok(Shown { micros, taken, passed: false })
    }

    fn begin_anew(&mut self) -> Result<(), SourceError> {
        self.decoder = Decoder::new(self.stream)?;
        self.shown_at.clear();
        Ok(())
    }

    fn decode(&mut self, frame: &VideoFrame, shown: Shown) -> Result<(), SourceError> {
        if self.decoder.decode(frame.data(), LENGTH)? {
            self.shown_at.push(Reverse(shown));
            // What was damaged never comes out, and its time must not be kept for ever.
            if self.shown_at.len() > HELD_BACK {
                self.shown_at.pop();
            }
        }
        Ok(())
    }

    /// Whether it comes after a picture that is shown after it, and that one was passed.
    fn comes_late(&self, shown: Shown) -> bool {
        (1..REORDERED).contains(&self.passed.saturating_sub(shown.micros))
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

    fn next_frame(&mut self) -> Result<Frame, SourceError> {
        Source::next_frame(self).and_then(|frame| frame.ok_or(SourceError::Gone))
    }

    fn pass_frame(&mut self) -> Result<Passed, SourceError> {
        let (frame, shown) = self.receive()?;
        let (key, bytes) = (frame.is_random_access_point(), frame.data().len());
        if !self.backlog.keep((frame, shown), key, bytes) {
            self.catch_up()?;
        }
        self.given += 1;
        if !self.comes_late(shown) {
            self.passed = shown.micros;
        }
        Ok(Passed { pts_ms: self.clock.show(Some(shown.micros)) as f64 / 1000.0 })
    }

    fn take_coded(&mut self) -> Vec<Coded> {
        self.coded.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl Source for RtspSource {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        loop {
            if let Some(picture) = self.decoder.next_picture() {
                let shown = self.shown_at.pop().map(|Reverse(shown)| shown);
                if shown.is_some_and(|shown| shown.passed) {
                    continue;
                }
                let micros = self.clock.show(shown.map(|shown| shown.micros));
                let number = self.given;
                self.given += 1;
                let captured_at = shown.map(|shown| shown.taken);
                return Ok(Some(Frame { number, pts_ms: micros as f64 / 1000.0, captured_at, picture }));
            }
            let (frame, shown) = self.receive()?;
            if frame.is_random_access_point() {
                // Nothing from here on needs what was passed.
                self.backlog.forget();
            }
            self.catch_up()?;
            let passed = self.comes_late(shown);
            self.decode(&frame, Shown { passed, ..shown })?;
        }
    }
}

/// The next access unit of the video; none if nothing comes in time. Everything else is given to `other`.
fn next_unit(
    session: &mut Playing,
    video: usize,
    runtime: &Handle,
    stop: &CancellationToken,
    deadline: Duration,
    other: &mut dyn FnMut(&CodecItem),
) -> Result<Option<VideoFrame>, SourceError> {
    let relay = session.relay.as_ref();
    let told = |error| told(relay, error);
    let next = async {
        let demuxed = session.demuxed.as_mut().ok_or(SourceError::Gone)?;
        loop {
            match demuxed.next().await {
                Some(Ok(CodecItem::VideoFrame(frame))) if frame.stream_id() == video => {
                    relay.inspect(|relay| relay.picture());
                    return Ok(frame);
                }
                Some(Ok(item)) => other(&item),
                Some(Err(error)) => return Err(told(refusal::session(&error))),
                None => return Err(told(SourceError::Gone)),
            }
        }
    };
    match until(runtime, stop, deadline, next) {
        None => Err(SourceError::Stopped),
        Some(None) => Ok(None),
        Some(Some(unit)) => unit.map(Some),
    }
}

/// From the connection to playing; which stream is the video; and the way to the camera, if the library has none of its own.
async fn play(access: &Access) -> Result<(Demuxed, usize, Option<Relay>), SourceError> {
    let relay = match access.transport {
        Transport::Tcp => Some(Relay::open(access).await?),
        // Packets beside the connection come from the camera itself, which the library finds by its own connection.
        Transport::Udp if access.url.scheme() == "rtsps" => return Err(refusal::udp_in_tls()),
        Transport::Udp => None,
    };
    let told = |error| told(relay.as_ref(), error);
    let url = relay.as_ref().map_or_else(|| access.url.clone(), Relay::url);
    let credentials = access.credentials.as_ref();
    let credentials =
        credentials.map(|(username, password)| Credentials { username: username.clone(), password: password.clone() });
    let known = credentials.is_some();
    let has = |quirk| access.quirks.contains(&quirk);
    let options = SessionOptions::default()
        .creds(credentials)
        .user_agent(format!("kadr/{}", env!("CARGO_PKG_VERSION")))
        // A session that is left is ended in the background, so that the camera has its place back.
        .session_group(Arc::new(SessionGroup::default()))
        .teardown(match () {
            // The relay does so itself: the library would connect once more, to whatever address the camera has named.
            () if relay.is_some() || has(Quirk::NoTeardown) => TeardownPolicy::Never,
            () if has(Quirk::StaleSessions) => TeardownPolicy::Always,
            () => TeardownPolicy::Auto,
        });
    let refused = |error: retina::Error| told(refusal::opening(&error, &access.url, known));
    let mut session = Session::describe(url, options).await.map_err(refused)?;
    let video = session
        .streams()
        .iter()
        .position(|stream| stream.media() == "video" && stream.encoding_name() == "h264")
        .ok_or_else(|| refusal::no_h264(session.streams()))?;
    let transport = match access.transport {
        Transport::Tcp => client::Transport::Tcp(Default::default()),
        Transport::Udp => client::Transport::Udp(Default::default()),
    };
    let format = FrameFormat {
        h26x_framing: Framing::FourByteLength,
        parameter_set_insertion: ParameterSetInsertion::EachKeyFrame,
        ..FrameFormat::MP4
    };
    let setup = SetupOptions::default().transport(transport).frame_format(format);
    session.setup(video, setup).await.map_err(refused)?;
    // What cameras say of their first timestamp is of no use here, and some lie.
    let mut options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Ignore);
    if has(Quirk::WrongSequence) {
        options = options.initial_seq(InitialSequenceNumberPolicy::Ignore);
    }
    if has(Quirk::ForeignReports) {
        options = options.unknown_rtcp_ssrc(UnknownRtcpSsrcPolicy::ProcessPackets);
    }
    let session = session.play(options).await.map_err(refused)?.demuxed().map_err(refused)?;
    Ok((session, video, relay))
}

/// An error by its real cause: the library sees no more than the end of its connection.
fn told(relay: Option<&Relay>, error: SourceError) -> SourceError {
    match relay {
        Some(relay) => relay.explain(error),
        None => error,
    }
}

/// What the unit's own parameter set says, if it has one.
fn parameters(data: &[u8]) -> Option<Result<Stream, SourceError>> {
    nals(data, LENGTH).flatten().find(|nal| is_sps(nal)).map(|nal| Stream::of(nal, None))
}

/// As the camera says, or the usual one.
fn client_rate(session: &Playing, video: usize) -> FrameRate {
    let streams = session.demuxed.as_ref().map(Demuxed::streams).unwrap_or_default();
    let said = streams.get(video).and_then(client::Stream::framerate);
    let millis = said.filter(|rate| rate.is_finite() && (0.01..=1_000.0).contains(rate)).map(|rate| rate * 1000.0);
    millis
        .and_then(|millis| FrameRate::mean(millis.round() as u64, 1_000, NonZeroU32::MIN))
        .unwrap_or(FrameRate::DEFAULT)
}
