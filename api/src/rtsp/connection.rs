//! One player's connection: its requests are answered, and its video is sent, each within a deadline.
//!
//! What a request means is the [`session`](super::session)'s; how pictures become packets is [`rtp`](super::rtp)'s.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kadr_shared::{id::ScenarioId, message::video::AccessUnit};
use rtsp_types::{Request, StatusCode, headers};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Desk,
    answer::Answer,
    clock::Clock,
    framer::{FrameError, Framer, Incoming, MOST_BYTES},
    rtcp::{Moment, report},
    rtp::Packetizer,
    sdp,
    session::{Session, Track, Verdict, cseq},
};
use crate::{
    problem::{Problem, ProblemName},
    video::{
        Viewer,
        presence::{self, FIRST_PICTURE, SILENCE},
    },
};

/// Where nothing is played, the next request has come by then.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// A player that takes nothing for so long is gone.
const STALLED: Duration = Duration::from_secs(10);
/// From the description's picture to the wish to play it: it is still of the present, as a player sees it.
const AT_ONCE: Duration = Duration::from_millis(150);
/// Between reports of the wall clock.
const REPORT_EVERY: Duration = Duration::from_secs(3);
/// The last words, and the player's end of the connection, are waited for as long.
const LEAVING: Duration = Duration::from_secs(1);

/// Why a connection ends, other than by its player's or its scenario's will.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("no request came for {} s", REQUEST_DEADLINE.as_secs())]
    Silent,
    #[error("the player took nothing for {} s", STALLED.as_secs())]
    Stalled,
    #[error("the connection broke")]
    Connection(#[from] std::io::Error),
    #[error("what came can't be read")]
    Message(#[from] FrameError),
}

/// How a connection ends in order.
enum End {
    /// The player has closed it.
    Left,
    /// There is no video any more.
    Over,
}

/// What happens next.
enum Event {
    Request(Box<Request<Vec<u8>>>),
    Picture(Arc<AccessUnit>),
    /// No picture came for a while.
    Quiet,
    End(End),
}

pub(super) struct Connection {
    stream: TcpStream,
    local: SocketAddr,
    desk: Desk,
    framer: Framer,
    session: Session,
    /// Of its packets: what marks them, and what their numbers and times begin with.
    ssrc: u32,
    sequence: u16,
    begin: u32,
    /// When the next request has to be there, where nothing is played.
    deadline: Instant,
    /// From the description on: the video is made meanwhile.
    held: Option<Held>,
    playing: Option<Playing>,
    /// A message is on its way, and what is written now would come in its middle.
    writing: bool,
}

/// A viewer of which its player has only heard.
struct Held {
    scenario: ScenarioId,
    viewer: Viewer,
    first: Arc<AccessUnit>,
    came: Instant,
}

struct Playing {
    scenario: ScenarioId,
    viewer: Viewer,
    packetizer: Packetizer,
    clock: Clock,
    /// Of the last picture.
    moment: Option<Moment>,
    reported: Instant,
    /// If no picture comes until then, it is looked whether the scenario still runs.
    look: Instant,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, local: SocketAddr, desk: Desk) -> Self {
        let ssrc = fastrand::u32(..);
        Self {
            stream,
            local,
            desk,
            framer: Framer::default(),
            session: Session::new(fastrand::u64(..), ssrc),
            ssrc,
            sequence: fastrand::u16(..),
            begin: fastrand::u32(..),
            deadline: Instant::now() + REQUEST_DEADLINE,
            held: None,
            playing: None,
            writing: false,
        }
    }

    /// Until one of the two leaves.
    pub(super) async fn serve(mut self, stop: &CancellationToken) -> Result<(), Broken> {
        let result = tokio::select! {
            () = stop.cancelled() => Ok(End::Over),
            result = self.talk() => result,
        };
        match result {
            Ok(End::Left) => return Ok(()),
            Ok(End::Over) => {
                if let Some(Playing { packetizer, moment: Some(moment), .. }) = &self.playing
                    && !self.writing
                {
                    let mut bytes = Vec::new();
                    report(packetizer, *moment, true, &mut bytes);
                    let _ = timeout(LEAVING, self.stream.write_all(&bytes)).await;
                }
            }
            Err(Broken::Message(error)) => {
                let answer = Answer::refusal(StatusCode::BadRequest, error.to_string());
                let _ = timeout(LEAVING, self.stream.write_all(&answer.bytes(None))).await;
                leave(self.stream).await;
                return Err(error.into());
            }
            Err(error) => return Err(error),
        }
        leave(self.stream).await;
        Ok(())
    }

    async fn talk(&mut self) -> Result<End, Broken> {
        loop {
            match self.next().await? {
                Event::Request(request) => {
                    self.answer(&request).await?;
                    self.deadline = Instant::now() + REQUEST_DEADLINE;
                }
                Event::Picture(unit) => self.show(&unit).await?,
                Event::Quiet => {
                    if self.is_over().await {
                        return Ok(End::Over);
                    }
                    // So that a player hears that it is still there, and a connection that is not is noticed.
                    self.report().await?;
                }
                Event::End(end) => return Ok(end),
            }
        }
    }

    async fn next(&mut self) -> Result<Event, Broken> {
        loop {
            match self.framer.next()? {
                Some(Incoming::Request(request)) => return Ok(Event::Request(request)),
                Some(Incoming::Other) => continue,
                None => {}
            }
            let mut room = self.framer.room();
            let read = match &mut self.playing {
                None => match timeout_at(self.deadline, self.stream.read_buf(&mut room)).await {
                    Ok(read) => read,
                    Err(_) => return Err(Broken::Silent),
                },
                Some(playing) => tokio::select! {
                    read = self.stream.read_buf(&mut room) => read,
                    unit = playing.viewer.next() => {
                        playing.look = Instant::now() + SILENCE;
                        return Ok(unit.map_or(Event::End(End::Over), Event::Picture));
                    }
                    () = sleep_until(playing.look) => {
                        playing.look = Instant::now() + SILENCE;
                        return Ok(Event::Quiet);
                    }
                },
            };
            if read? == 0 {
                return Ok(Event::End(End::Left));
            }
        }
    }

    async fn answer(&mut self, request: &Request<Vec<u8>>) -> Result<(), Broken> {
        let cseq = cseq(request);
        let answer = match self.session.judge(request) {
            Verdict::Answer(answer) => answer,
            Verdict::Describe { scenario, base } => match self.describe(&scenario).await {
                Ok(told) => Answer::ok().with(headers::CONTENT_BASE, base).body("application/sdp", told),
                Err(problem) => problem.into(),
            },
            Verdict::Play(track) => match self.begin(&track.scenario).await {
                Ok((viewer, first)) => return self.play(track, viewer, &first, cseq).await,
                Err(problem) => {
                    self.session.stopped();
                    problem.into()
                }
            },
            Verdict::End(answer) => {
                (self.playing, self.held) = (None, None);
                answer
            }
        };
        self.write(&answer.bytes(cseq)).await
    }

    async fn describe(&mut self, scenario: &ScenarioId) -> Result<String, Problem> {
        let (viewer, first) = self.watch(scenario).await?;
        let told = sdp::describe(scenario, &first, self.local.ip());
        self.held = Some(Held { scenario: scenario.clone(), viewer, first, came: Instant::now() });
        told.ok_or_else(|| {
            Problem::new(ProblemName::Unavailable, "the video does not tell how it is coded: try again in a moment")
        })
    }

    /// Who plays at once begins with the picture that the description was made of; who takes its time, with a new one.
    async fn begin(&mut self, scenario: &ScenarioId) -> Result<(Viewer, Arc<AccessUnit>), Problem> {
        match self.held.take() {
            Some(held) if held.scenario == *scenario && held.came.elapsed() < AT_ONCE => Ok((held.viewer, held.first)),
            held => {
                let begun = self.watch(scenario).await;
                drop(held);
                begun
            }
        }
    }

    /// A viewer, and its first picture.
    async fn watch(&self, scenario: &ScenarioId) -> Result<(Viewer, Arc<AccessUnit>), Problem> {
        let Desk { hub, model, live } = &self.desk;
        presence::runs(model, scenario).await?;
        let mut viewer = hub.watch(scenario);
        match timeout(FIRST_PICTURE, viewer.next()).await {
            Ok(Some(first)) => Ok((viewer, first)),
            Ok(None) => Err(presence::ending()),
            Err(_) => Err(presence::no_picture(model, live, scenario).await),
        }
    }

    /// From its first picture on.
    async fn play(
        &mut self,
        track: Track,
        viewer: Viewer,
        first: &AccessUnit,
        cseq: Option<u32>,
    ) -> Result<(), Broken> {
        let now = Instant::now();
        let Track { scenario, channel, url } = track;
        let (packetizer, clock) = (Packetizer::new(channel, self.ssrc, self.sequence), Clock::new(self.begin));
        let info = format!("url={url};seq={};rtptime={}", packetizer.sequence(), clock.timestamp(first));
        let answer = self.session.plays().with(headers::RTP_INFO, info);
        let look = now + SILENCE;
        self.playing = Some(Playing { scenario, viewer, packetizer, clock, moment: None, reported: now, look });
        self.write(&answer.bytes(cseq)).await?;
        self.show(first).await
    }

    async fn show(&mut self, unit: &AccessUnit) -> Result<(), Broken> {
        let Some(playing) = &mut self.playing else { return Ok(()) };
        let now = Instant::now();
        let (moment, anew) = playing.clock.moment(unit, now);
        playing.moment = Some(moment);
        let mut bytes = Vec::with_capacity(unit.body.len() + unit.body.len() / 64 + 256);
        // Before the picture: its player can tell from the first one on when it was taken.
        if anew || now.duration_since(playing.reported) >= REPORT_EVERY {
            playing.reported = now;
            report(&playing.packetizer, moment, false, &mut bytes);
        }
        playing.packetizer.pack(unit, moment.timestamp, &mut bytes);
        self.write(&bytes).await
    }

    async fn report(&mut self) -> Result<(), Broken> {
        let Some(Playing { packetizer, moment: Some(moment), .. }) = &self.playing else { return Ok(()) };
        let mut bytes = Vec::new();
        report(packetizer, *moment, false, &mut bytes);
        self.write(&bytes).await
    }

    async fn is_over(&self) -> bool {
        match &self.playing {
            Some(playing) => presence::is_over(&self.desk.model, &playing.scenario).await,
            None => false,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.writing = true;
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = timeout(STALLED, self.stream.write(rest)).await.map_err(|_| Broken::Stalled)??;
            if written == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
            rest = &rest[written..];
        }
        self.writing = false;
        Ok(())
    }
}

/// There is no place for it: its first request is answered so.
pub(super) async fn turn_away(mut stream: TcpStream, reason: &'static str) {
    let mut framer = Framer::default();
    let first = async {
        loop {
            match framer.next() {
                Ok(Some(Incoming::Request(request))) => return cseq(&request),
                Ok(Some(Incoming::Other)) => continue,
                Ok(None) => {}
                Err(_) => return None,
            }
            match stream.read_buf(&mut framer.room()).await {
                Ok(read) if read > 0 => {}
                _ => return None,
            }
        }
    };
    let cseq = timeout(LEAVING, first).await.unwrap_or_default();
    let answer = Answer::refusal(StatusCode::ServiceUnavailable, reason);
    let _ = timeout(LEAVING, stream.write_all(&answer.bytes(cseq))).await;
    leave(stream).await;
}

/// Ends a connection so that the last words arrive: what is closed with something unread takes them back.
async fn leave(mut stream: TcpStream) {
    let ending = async {
        stream.shutdown().await?;
        let mut room = [0; 4096];
        let mut most = MOST_BYTES;
        loop {
            let read = stream.read(&mut room).await?;
            most = most.saturating_sub(read);
            if read == 0 || most == 0 {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    if timeout(LEAVING, ending).await.is_err() {
        debug!("a player does not close its connection");
    }
}
