//! What each request means in a connection's state (RFC 2326, section 10 and A.2). Pure: whoever asks for video is given over
//! to the connection.

use kadr_shared::id::ScenarioId;
use rtsp_types::{HeaderName, Method, Request, StatusCode, Url, Version, headers};

use super::{
    answer::{Answer, METHODS},
    sdp::TRACK,
    transport::Channel,
};

/// Players that are silent for longer are told that they may lose their place, in seconds. Ours is the connection's.
const SESSION_TIMEOUT: u32 = 60;

/// One connection's session.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    ssrc: u32,
    track: Option<Track>,
    playing: bool,
}

/// What was set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Track {
    pub(super) scenario: ScenarioId,
    pub(super) channel: Channel,
    /// The video's address, as the player knows it.
    pub(super) url: String,
}

/// What follows from a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Answer(Answer),
    /// Tell of its video; `base`: what the description's addresses begin with.
    Describe {
        scenario: ScenarioId,
        base: String,
    },
    /// Show it from now on; if it can't be, [`Session::stopped`].
    Play(Track),
    /// Show nothing any more.
    End(Answer),
}

impl Session {
    pub(super) fn new(id: u64, ssrc: u32) -> Self {
        Self { id: format!("{id:016x}"), ssrc, track: None, playing: false }
    }

    /// Nothing is shown any more, but it may be asked for again.
    pub(super) const fn stopped(&mut self) {
        self.playing = false;
    }

    /// The answer to a request to play that is heard.
    pub(super) fn plays(&self) -> Answer {
        Answer::ok().with(headers::SESSION, self.header()).with(headers::RANGE, "npt=now-")
    }

    fn header(&self) -> String {
        format!("{};timeout={SESSION_TIMEOUT}", self.id)
    }

    pub(super) fn judge(&mut self, request: &Request<Vec<u8>>) -> Verdict {
        match self.decide(request) {
            Ok(verdict) => verdict,
            Err(answer) => Verdict::Answer(answer),
        }
    }

    fn decide(&mut self, request: &Request<Vec<u8>>) -> Result<Verdict, Answer> {
        let refuse = |status, reason: &str| Err(Answer::refusal(status, reason));
        if request.version() != Version::V1_0 {
            return refuse(StatusCode::RTSPVersionNotSupported, "kadr speaks RTSP/1.0");
        }
        if cseq(request).is_none() {
            return refuse(StatusCode::BadRequest, "the header CSeq is missing, or is no number");
        }
        if let Some(option) = text(request, &headers::REQUIRE) {
            let refusal = Answer::refusal(StatusCode::OptionNotSupported, "kadr has no options");
            return Err(refusal.with(headers::UNSUPPORTED, option));
        }
        if let Some(session) = text(request, &headers::SESSION) {
            let id = session.split(';').next().unwrap_or_default().trim();
            if self.track.is_none() || id != self.id {
                return refuse(StatusCode::SessionNotFound, "there is no such session in this connection");
            }
        }
        Ok(match request.method() {
            Method::Options => Verdict::Answer(Answer::ok().with(headers::PUBLIC, METHODS)),
            Method::Describe => {
                let Target { scenario, base } = Target::of(request)?;
                Verdict::Describe { scenario, base }
            }
            Method::Setup if self.playing => return refuse(StatusCode::MethodNotValidInThisState, "it plays already"),
            Method::Setup => {
                let Target { scenario, base } = Target::of(request)?;
                let wanted = text(request, &headers::TRANSPORT).unwrap_or_default();
                let Some(channel) = Channel::asked_for(wanted) else {
                    return refuse(StatusCode::UnsupportedTransport, "kadr sends within the connection: RTP/AVP/TCP");
                };
                self.track = Some(Track { scenario, channel, url: base + TRACK });
                let answer = Answer::ok().with(headers::SESSION, self.header());
                Verdict::Answer(answer.with(headers::TRANSPORT, channel.header(self.ssrc)))
            }
            Method::Play if self.playing => Verdict::Answer(self.plays()),
            Method::Play => match &self.track {
                Some(track) => {
                    self.playing = true;
                    Verdict::Play(track.clone())
                }
                None => return refuse(StatusCode::MethodNotValidInThisState, "nothing is set up: SETUP comes first"),
            },
            Method::Pause => {
                let refusal = Answer::refusal(StatusCode::MethodNotValidInThisState, "live video can't be paused");
                return Err(refusal.with(headers::ALLOW, METHODS));
            }
            // Players ask for nothing, to be heard.
            Method::GetParameter | Method::SetParameter if request.body().trim_ascii().is_empty() => {
                let answer = Answer::ok();
                Verdict::Answer(match self.track {
                    Some(_) => answer.with(headers::SESSION, self.header()),
                    None => answer,
                })
            }
            Method::GetParameter | Method::SetParameter => {
                return refuse(StatusCode::ParameterNotUnderstood, "kadr has no parameters");
            }
            Method::Teardown => {
                (self.track, self.playing) = (None, false);
                Verdict::End(Answer::ok())
            }
            Method::Announce | Method::Record | Method::Redirect | Method::PlayNotify => {
                let refusal = Answer::refusal(StatusCode::MethodNotAllowed, "kadr gives video, and takes none here");
                return Err(refusal.with(headers::ALLOW, METHODS));
            }
            Method::Extension(_) => {
                let refusal = Answer::refusal(StatusCode::NotImplemented, "there is no such method");
                return Err(refusal.with(headers::PUBLIC, METHODS));
            }
        })
    }
}

/// A scenario's video, as an address names it: `rtsp://host:port/{id}`, and the track behind it.
struct Target {
    scenario: ScenarioId,
    /// The address of the scenario with a slash, without what it may hold of passwords.
    base: String,
}

impl Target {
    fn of(request: &Request<Vec<u8>>) -> Result<Self, Answer> {
        let nothing = |reason: &str| Answer::refusal(StatusCode::NotFound, reason);
        let url = request.request_uri().ok_or_else(|| nothing("name a scenario: rtsp://host:port/{id}"))?;
        let mut parts = url.path_segments().into_iter().flatten().filter(|part| !part.is_empty());
        let id = parts.next().ok_or_else(|| nothing("name a scenario: rtsp://host:port/{id}"))?;
        let scenario: ScenarioId =
            id.parse().map_err(|_| nothing("there is no scenario of this id: see /v1/scenarios"))?;
        if parts.next().is_some_and(|part| part != TRACK) || parts.next().is_some() {
            return Err(nothing("a scenario has one video: rtsp://host:port/{id}"));
        }
        let base = base(url, &scenario);
        Ok(Self { scenario, base })
    }
}

fn base(url: &Url, scenario: &ScenarioId) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}/{scenario}/", url.scheme(), url.host_str().unwrap_or_default())
}

/// The request's number.
pub(super) fn cseq(request: &Request<Vec<u8>>) -> Option<u32> {
    text(request, &headers::CSEQ)?.trim().parse().ok()
}

fn text<'a>(request: &'a Request<Vec<u8>>, name: &HeaderName) -> Option<&'a str> {
    request.header(name).map(|value| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "rtsp://me:secret@host:8554/gate";

    fn request(method: Method, url: &str, lines: &[(HeaderName, &str)]) -> Request<Vec<u8>> {
        let mut builder = Request::builder(method, Version::V1_0).header(headers::CSEQ, "3");
        if url != "*" {
            builder = builder.request_uri(Url::parse(url).unwrap());
        }
        for (name, value) in lines {
            builder = builder.header(name.clone(), *value);
        }
        builder.build(Vec::new())
    }

    fn answered(session: &mut Session, method: Method, url: &str, lines: &[(HeaderName, &str)]) -> Answer {
        match session.judge(&request(method, url, lines)) {
            Verdict::Answer(answer) | Verdict::End(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    const TCP: (HeaderName, &str) = (headers::TRANSPORT, "RTP/AVP/TCP;unicast;interleaved=0-1");

    #[test]
    fn a_player_describes_sets_up_plays_and_ends() {
        let mut session = Session::new(0xab, 9);
        let options = answered(&mut session, Method::Options, "*", &[]);
        assert_eq!((options.status(), options.header(&headers::PUBLIC)), (200, Some(METHODS)));
        let (scenario, base) = ("gate".parse().unwrap(), "rtsp://host:8554/gate/".to_owned());
        assert_eq!(session.judge(&request(Method::Describe, URL, &[])), Verdict::Describe { scenario, base });
        let track = "rtsp://host:8554/gate/track0";
        let set_up = answered(&mut session, Method::Setup, track, &[TCP]);
        assert_eq!(set_up.header(&headers::SESSION), Some("00000000000000ab;timeout=60"));
        assert_eq!(set_up.header(&headers::TRANSPORT), Some("RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=00000009"));
        let mine = (headers::SESSION, "00000000000000ab");
        let Verdict::Play(playing) = session.judge(&request(Method::Play, URL, std::slice::from_ref(&mine))) else {
            panic!("it plays")
        };
        assert_eq!(playing.url, track);
        assert_eq!(answered(&mut session, Method::GetParameter, URL, std::slice::from_ref(&mine)).status(), 200);
        assert_eq!(answered(&mut session, Method::Play, URL, &[]).status(), 200);
        assert_eq!(answered(&mut session, Method::Setup, URL, &[TCP]).status(), 455);
        assert_eq!(answered(&mut session, Method::Pause, URL, &[]).status(), 455);
        let end = session.judge(&request(Method::Teardown, URL, std::slice::from_ref(&mine)));
        assert_eq!(end, Verdict::End(Answer::ok()));
        assert_eq!(answered(&mut session, Method::Play, URL, &[]).status(), 455);
        assert_eq!(answered(&mut session, Method::Play, URL, &[mine]).status(), 454);
    }

    #[test]
    fn what_can_not_be_done_is_told() {
        let mut session = Session::new(1, 9);
        let udp = (headers::TRANSPORT, "RTP/AVP;unicast;client_port=5000-5001");
        let require = (headers::REQUIRE, "onvif-replay");
        for (method, url, lines, status) in [
            (Method::Setup, URL, vec![udp], 461),
            (Method::Setup, URL, vec![], 461),
            (Method::Describe, "*", vec![], 404),
            (Method::Describe, "rtsp://host", vec![], 404),
            (Method::Describe, "rtsp://host/no%20id", vec![], 404),
            (Method::Describe, "rtsp://host/gate/other", vec![], 404),
            (Method::Describe, "rtsp://host/gate/track0/more", vec![], 404),
            (Method::Describe, URL, vec![require], 551),
            (Method::Play, URL, vec![], 455),
            (Method::Play, URL, vec![(headers::SESSION, "guess")], 454),
            (Method::Record, URL, vec![], 405),
            (Method::Extension("STEAL".into()), URL, vec![], 501),
        ] {
            let answer = answered(&mut session, method.clone(), url, &lines);
            assert_eq!(answer.status(), status, "{method:?} {url}");
        }
        let newer = Request::builder(Method::Options, Version::V2_0).header(headers::CSEQ, "1").build(Vec::new());
        let unnumbered = Request::builder(Method::Options, Version::V1_0).build(Vec::new());
        for (request, status) in [(newer, 505), (unnumbered, 400)] {
            let Verdict::Answer(answer) = session.judge(&request) else { panic!("{status}") };
            assert_eq!(answer.status(), status);
        }
    }
}
