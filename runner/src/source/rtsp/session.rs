//! One session of a camera, by the RTSP library: from the connection to its access units. What is in them is not looked at.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use futures::StreamExt;
use kadr_shared::settings::{Quirk, Transport};
use retina::{
    client::{
        self, Credentials, Demuxed, InitialSequenceNumberPolicy, InitialTimestampPolicy, PlayOptions, SessionGroup,
        SessionOptions, SetupOptions, TeardownPolicy, UnknownRtcpSsrcPolicy,
    },
    codec::{CodecItem, FrameFormat, ParameterSetInsertion, VideoFrame, h26x::Framing},
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Access, refusal, relay::Relay};
use crate::source::{FrameRate, SourceError, live::until};

/// A session that plays. It is ended in the background, for which it needs its runtime around it.
pub(super) struct Session {
    demuxed: Option<Demuxed>,
    /// Which of its streams is the video.
    video: usize,
    runtime: Handle,
    stop: CancellationToken,
    /// Its way to the camera; none: the library has its own. It goes after the session.
    relay: Option<Relay>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        self.demuxed = None;
    }
}

impl Session {
    /// Connects, and has the camera play. Blocks; `stop` ends it early.
    pub(super) fn open(
        access: &Access,
        deadline: Duration,
        runtime: Handle,
        stop: CancellationToken,
    ) -> Result<Self, SourceError> {
        let opened = {
            // Also what is given up on the way ends its session in the background.
            let _entered = runtime.enter();
            until(&runtime, &stop, deadline, play(access)).ok_or(SourceError::Stopped)?
        };
        let (session, video, relay) = opened.unwrap_or(Err(SourceError::Silent { what: "answer", after: deadline }))?;
        Ok(Self { demuxed: Some(session), video, runtime, stop, relay })
    }

    /// Frames a second, as the camera says.
    pub(super) fn rate(&self) -> Option<FrameRate> {
        let streams = self.demuxed.as_ref().map(Demuxed::streams).unwrap_or_default();
        let said = streams.get(self.video).and_then(client::Stream::framerate);
        let millis = said.filter(|rate| rate.is_finite() && (0.01..=1_000.0).contains(rate)).map(|rate| rate * 1000.0);
        millis.and_then(|millis| FrameRate::mean(millis.round() as u64, 1_000, NonZeroU32::MIN))
    }

    /// The next access unit of the video; none if nothing comes in time. Everything else is given to `other`.
    pub(super) fn next_unit(
        &mut self,
        deadline: Duration,
        other: &mut dyn FnMut(&CodecItem),
    ) -> Result<Option<VideoFrame>, SourceError> {
        let (video, relay) = (self.video, self.relay.as_ref());
        let told = |error| told(relay, error);
        let demuxed = self.demuxed.as_mut().ok_or(SourceError::Gone)?;
        let next = async {
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
        match until(&self.runtime, &self.stop, deadline, next) {
            None => Err(SourceError::Stopped),
            Some(None) => Ok(None),
            Some(Some(unit)) => unit.map(Some),
        }
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
    let mut session = client::Session::describe(url, options).await.map_err(refused)?;
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
