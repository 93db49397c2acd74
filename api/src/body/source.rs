//! Where a scenario's video comes from, as it is documented and shown.

use kadr_shared::settings;
use poem_openapi::{Enum, Object};
use serde::Serialize;

/// Where the video comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
pub(super) struct Source {
    /// A file on the runner's machine, by absolute path (`/data/clip.mp4`) or `file://` address: H.264 in MP4 or MKV or
    /// without a container, JPEG, PNG; a folder of images or a pattern that names some (`/data/*.jpg`), in natural order of
    /// their names; a camera, `rtsp://host:port/path` (within TLS: `rtsps://…`) with H.264, `onvif://host:port`, which is asked where its streams are, or `http://host:port/path` (also `https://`) with images
    /// one by one (`multipart/x-mixed-replace`); `push:` for images that are sent to `/v1/scenarios/{id}/frames`; or
    /// `nats:some.subject` for images that others publish there. It is shown as an address, and holds no user name.
    url: String,
    /// Of a camera that asks for one.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Its password. It is encrypted, and never shown.
    #[oai(write_only, skip_serializing_if_is_none)]
    #[serde(skip)]
    password: Option<String>,
    /// How a camera's packets come. `tcp` where it is left out.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<Transport>,
    /// Whom to trust as a camera by `rtsps://`. `verify` where it is left out.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
    /// Frames a second of what has no times of its own: images in order (1 where it is left out), and H.264 without a
    /// container (as it says, or 25). Of an ONVIF device: the stream whose frames a second come nearest is taken.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "0.001"), maximum(value = "1000")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    fps: Option<f64>,
    /// When a file's frames are read. `full` where it is left out.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pace: Option<Pace>,
    /// A file that starts over at its end, until it is stopped; frame numbers and times go on. It has no annotated MP4.
    #[oai(rename = "loop", skip_serializing_if_is_none)]
    #[serde(rename = "loop", skip_serializing_if = "Option::is_none")]
    looped: Option<bool>,
    /// Of an ONVIF device: the stream whose size comes nearest, such as `1280x720`. By default the largest.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<String>,
    /// Of an ONVIF device: this profile and no other, by its token or its name.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    /// Of a camera by RTSP: what is known to be wrong with it.
    #[oai(default, skip_serializing_if_is_empty)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    quirks: Vec<Quirk>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum Transport {
    /// In the connection that they are asked for by.
    Tcp,
    /// Beside it.
    Udp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum Tls {
    /// Whose certificate is signed by an authority that the runner's machine knows.
    Verify,
    /// Whoever answers, also with a certificate that is signed by nobody else.
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum Quirk {
    /// The times of its packets are of no use: a frame is shown when it came.
    WrongTimes,
    /// The time of day that it reports is wrong: a frame was taken when it came.
    WrongClock,
    /// What it says of the number of its first packet is wrong.
    WrongSequence,
    /// Its reports carry the number of another sender than its packets do.
    ForeignReports,
    /// It goes on sending, or keeps the viewer's place, when the connection is closed: it is told until it has heard it.
    StaleSessions,
    /// It does not bear being told that a session ends.
    NoTeardown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum Pace {
    /// As soon as they can be analysed.
    Full,
    /// At their own times, never earlier; those that are late are analysed all the same.
    Own,
}

impl From<&settings::Source> for Source {
    fn from(source: &settings::Source) -> Self {
        let settings::Source { url, username, secret: _, transport, tls, fps, pace, looped, size, profile, quirks } =
            source;
        let transport = match transport {
            settings::Transport::Tcp => None,
            settings::Transport::Udp => Some(Transport::Udp),
        };
        let tls = match tls {
            settings::Tls::Verify => None,
            settings::Tls::Any => Some(Tls::Any),
        };
        let pace = match pace {
            settings::Pace::Full => None,
            settings::Pace::Own => Some(Pace::Own),
        };
        Self {
            url: url.to_string(),
            username: username.clone(),
            password: None,
            transport,
            tls,
            fps: fps.map(settings::Fps::get),
            pace,
            looped: looped.then_some(true),
            size: size.map(|size| size.to_string()),
            profile: profile.clone(),
            quirks: quirks.iter().copied().map(Quirk::from).collect(),
        }
    }
}

impl From<settings::Quirk> for Quirk {
    fn from(quirk: settings::Quirk) -> Self {
        match quirk {
            settings::Quirk::WrongTimes => Self::WrongTimes,
            settings::Quirk::WrongClock => Self::WrongClock,
            settings::Quirk::WrongSequence => Self::WrongSequence,
            settings::Quirk::ForeignReports => Self::ForeignReports,
            settings::Quirk::StaleSessions => Self::StaleSessions,
            settings::Quirk::NoTeardown => Self::NoTeardown,
        }
    }
}
