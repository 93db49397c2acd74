//! Where the video comes from: an address, for cameras how to get at what is there, for files how to play it.
//!
//! An address never holds a user name or a password; whether something answers there is the runner's business.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::{Quirk, Quirks};
use crate::{geometry::Size, secret::SecretName, subjects};

/// A source's part of the settings. All but the address is left out where it is not given, so that events keep the shape
/// they always had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Given")]
pub struct Source {
    pub url: SourceUrl,
    /// Of cameras that ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Under which name the password is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
    #[serde(skip_serializing_if = "Transport::is_default")]
    pub transport: Transport,
    #[serde(skip_serializing_if = "Tls::is_default")]
    pub tls: Tls,
    /// Frames a second of what has no times of its own: images in order, and H.264 without a container. Of an ONVIF device:
    /// those of the stream that is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<Fps>,
    #[serde(skip_serializing_if = "Pace::is_default")]
    pub pace: Pace,
    /// A file that starts over at its end, until it is stopped.
    #[serde(rename = "loop", skip_serializing_if = "is_false")]
    pub looped: bool,
    /// Of an ONVIF device: the size of the stream that is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Of an ONVIF device: a profile's token or name, this one and no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Of a camera by RTSP: what is wrong with it.
    #[serde(skip_serializing_if = "Quirks::is_empty")]
    pub quirks: Quirks,
}

/// How a camera's packets come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// In the connection that they were asked for by: nothing is lost, and firewalls let it through.
    #[default]
    Tcp,
    /// Beside it: a lost packet is not waited for.
    Udp,
}

impl Transport {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whom to trust as a camera by `rtsps://`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// Whose certificate is signed by an authority that the runner's machine knows.
    #[default]
    Verify,
    /// Whoever answers: most cameras have signed their certificates themselves. What they send can't be read on its way,
    /// but nothing tells whether it is they.
    Any,
}

impl Tls {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When a file's frames are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// As soon as they can be analysed.
    #[default]
    Full,
    /// At their own times, as a camera's would come; never earlier. Those that are late are analysed all the same.
    Own,
}

impl Pace {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Frames a second: from 0.001 to 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Fps(f64);

/// A number that is no rate.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is no number of frames a second: give one from 0.001 to 1000")]
pub struct FpsError(f64);

impl Fps {
    pub fn new(value: f64) -> Result<Self, FpsError> {
        if (0.001..=1_000.0).contains(&value) { Ok(Self(value)) } else { Err(FpsError(value)) }
    }

    pub const fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Fps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value = text.parse().map_err(|_| "a number of frames a second is wanted".to_owned())?;
        Self::new(value).map_err(|error| error.to_string())
    }
}

impl<'de> Deserialize<'de> for Fps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// For serde, which hands over a reference.
fn is_false(value: &bool) -> bool {
    !value
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    url: SourceUrl,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    secret: Option<SecretName>,
    #[serde(default)]
    transport: Transport,
    #[serde(default)]
    tls: Tls,
    #[serde(default)]
    fps: Option<Fps>,
    #[serde(default)]
    pace: Pace,
    #[serde(default, rename = "loop")]
    looped: bool,
    #[serde(default)]
    size: Option<Size>,
    #[serde(default)]
    profile: Option<String>,
    #[serde(default)]
    quirks: Quirks,
}

/// Settings that don't fit the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    #[error("source.{field} is for cameras: leave it out for a file, and for images that are sent")]
    ForCameras { field: &'static str },
    #[error("source.{field} is for cameras by RTSP: leave it out")]
    ForRtsp { field: &'static str },
    #[error("source.tls is for cameras by rtsps://, and for ONVIF devices that name such: leave it out")]
    ForTls,
    #[error("source.transport udp can't go through TLS (rtsps://): leave it out")]
    UdpInTls,
    #[error("source.{field} is for files: leave it out for a camera, and for images that are sent")]
    ForFiles { field: &'static str },
    #[error("source.{field} is for ONVIF devices (onvif://): leave it out for other sources")]
    ForDevices { field: &'static str },
    #[error(
        "source.quirks says that a session's end is to be told and not to be told: leave out stale_sessions or no_teardown"
    )]
    Teardown,
}

impl TryFrom<Given> for Source {
    type Error = Misplaced;

    fn try_from(given: Given) -> Result<Self, Misplaced> {
        let Given { url, username, secret, transport, tls, fps, pace, looped, size, profile, quirks } = given;
        let is_device = matches!(url, SourceUrl::Onvif(_));
        let for_cameras = [("username", username.is_some()), ("password", secret.is_some())];
        let for_devices = [("size", size.is_some()), ("profile", profile.is_some())];
        let for_files = [("fps", fps.is_some() && !is_device), ("pace", !pace.is_default()), ("loop", looped)];
        let first = |fields: &[(&'static str, bool)]| fields.iter().find(|(_, given)| *given).map(|(field, _)| *field);
        if let Some(field) = first(&for_cameras).filter(|_| !url.asks_for_password()) {
            return Err(Misplaced::ForCameras { field });
        }
        if let Some(field) = first(&for_files).filter(|_| url.is_live()) {
            return Err(Misplaced::ForFiles { field });
        }
        if let Some(field) = first(&for_devices).filter(|_| !is_device) {
            return Err(Misplaced::ForDevices { field });
        }
        let for_rtsp = [("transport", !transport.is_default()), ("quirks", !quirks.is_empty())];
        if let Some(field) = first(&for_rtsp).filter(|_| !matches!(url, SourceUrl::Rtsp(_) | SourceUrl::Onvif(_))) {
            return Err(Misplaced::ForRtsp { field });
        }
        if quirks.contains(&Quirk::StaleSessions) && quirks.contains(&Quirk::NoTeardown) {
            return Err(Misplaced::Teardown);
        }
        if !tls.is_default() && !url.is_secured() && !is_device {
            return Err(Misplaced::ForTls);
        }
        if transport == Transport::Udp && url.is_secured() {
            return Err(Misplaced::UdpInTls);
        }
        Ok(Self { url, username, secret, transport, tls, fps, pace, looped, size, profile, quirks })
    }
}

impl From<SourceUrl> for Source {
    fn from(url: SourceUrl) -> Self {
        let (transport, tls, pace) = (Transport::default(), Tls::default(), Pace::default());
        let (username, secret, fps, size, profile) = (None, None, None, None, None);
        let quirks = Quirks::new();
        Self { url, username, secret, transport, tls, fps, pace, looped: false, size, profile, quirks }
    }
}

/// A source's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceUrl {
    /// By an absolute path (`/data/a.mp4` or `file:///data/a.mp4`) on the runner's machine: a file, a folder of images, or a
    /// pattern that names images (`/data/*.jpg`).
    File(PathBuf),
    /// A camera, as `rtsp://host:port/path`, or `rtsps://…` within TLS.
    Rtsp(Url),
    /// A camera that sends images one by one, as `http://host:port/path` or `https://…`.
    Http(Url),
    /// A camera that tells where its streams are, as `onvif://host:port`.
    Onvif(Url),
    /// Whoever sends images to the API, as `push:`.
    Push,
    /// Whoever publishes images on this subject of kadr's own NATS, as `nats:some.subject`.
    Nats(String),
}

impl SourceUrl {
    /// Whether frames come at their own pace and can't be had again.
    pub const fn is_live(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Rtsp(_) | Self::Http(_) | Self::Onvif(_) | Self::Push | Self::Nats(_) => true,
        }
    }

    /// Whether it is RTSP within TLS.
    fn is_secured(&self) -> bool {
        matches!(self, Self::Rtsp(url) if url.scheme() == "rtsps")
    }

    /// Whether a camera stands behind it, which may ask for a user name and a password.
    pub const fn asks_for_password(&self) -> bool {
        matches!(self, Self::Rtsp(_) | Self::Http(_) | Self::Onvif(_))
    }
}

/// An address that names no source kadr can read. A password in it is never repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceUrlError {
    #[error(
        "the source is empty: give a file's absolute path or file:// address, or a camera's rtsp://, onvif:// or http:// address"
    )]
    Empty,
    #[error("{path:?} is a relative path: give the absolute path on the runner's machine, such as /data/clip.mp4")]
    Relative { path: String },
    #[error(
        "sources of kind {scheme:?} can't be read by this version: give a file (H.264 in MP4, MKV or bare, JPEG, PNG), a \
         folder or a pattern of images, a camera's rtsp://, onvif:// or http:// address, push: or nats:some.subject"
    )]
    Scheme { scheme: String },
    #[error("not a usable file address: {0}")]
    Address(String),
    #[error("not a usable camera address: {0}")]
    Camera(&'static str),
    #[error("push: takes nothing behind it: images are sent to /v1/scenarios/ID/frames")]
    Push,
    #[error("not a usable subject: {0}")]
    Subject(&'static str),
    #[error(
        "the address holds a user name or a password, and addresses are shown: give them apart, as source.username and \
         source.password"
    )]
    Credentials,
}

/// An address longer than this is a mistake.
const LONGEST: usize = 2_000;

impl FromStr for SourceUrl {
    type Err = SourceUrlError;

    fn from_str(text: &str) -> Result<Self, SourceUrlError> {
        if text.is_empty() {
            return Err(SourceUrlError::Empty);
        }
        if text.contains('\0') {
            return Err(SourceUrlError::Address("a path holds no NUL character".into()));
        }
        if text.starts_with('/') {
            return Ok(Self::File(text.into()));
        }
        if let Some(rest) = text.strip_prefix("push:") {
            return if rest.is_empty() { Ok(Self::Push) } else { Err(SourceUrlError::Push) };
        }
        if let Some(subject) = text.strip_prefix("nats:") {
            return self::subject(subject);
        }
        match Url::parse(text) {
            // `file:///data/a?.jpg`: the rest would silently be left out.
            Ok(url) if url.scheme() == "file" && (url.query().is_some() || url.fragment().is_some()) => {
                let what =
                    "? and # end the path of a file:// address: give the path itself (/data/a?.jpg), or %3F and %23";
                Err(SourceUrlError::Address(what.into()))
            }
            Ok(url) if url.scheme() == "file" => url
                .to_file_path()
                .map(Self::File)
                .map_err(|()| SourceUrlError::Address("write it as file:///absolute/path, without a host".into())),
            Ok(url) if matches!(url.scheme(), "rtsp" | "rtsps") => camera(url).map(Self::Rtsp),
            Ok(url) if url.scheme() == "onvif" => camera(url).map(Self::Onvif),
            Ok(url) if matches!(url.scheme(), "http" | "https") => camera(url).map(Self::Http),
            Ok(url) => Err(SourceUrlError::Scheme { scheme: url.scheme().chars().take(20).collect() }),
            // Whatever is wrong with it, it may hold a password.
            Err(_) if starts_with(text, "onvif:") => Err(SourceUrlError::Camera("write it as onvif://host:port")),
            Err(_) if ["rtsp:", "rtsps:", "http:", "https:"].iter().any(|scheme| starts_with(text, scheme)) => {
                Err(SourceUrlError::Camera("write it as rtsp://host:port/path or http://host:port/path"))
            }
            Err(_) => Err(SourceUrlError::Relative { path: text.chars().take(80).collect() }),
        }
    }
}

fn starts_with(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start))
}

/// A subject to publish to: without wildcards, and nobody else's.
fn subject(text: &str) -> Result<SourceUrl, SourceUrlError> {
    let wrong = |what| Err(SourceUrlError::Subject(what));
    if text.is_empty() || text.split('.').any(str::is_empty) {
        return wrong("write it as nats:some.subject, without empty parts (a server's address is not wanted)");
    }
    if !text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '*' | '>' | '/' | ':')) || text.len() > 200 {
        return wrong("it has at most 200 letters, digits and signs, and neither * nor >, / nor :");
    }
    if subjects::is_reserved(text) {
        return wrong("those that begin with kadr, $ or _ are kadr's and the server's own");
    }
    Ok(SourceUrl::Nats(text.to_owned()))
}

fn camera(url: Url) -> Result<Url, SourceUrlError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(SourceUrlError::Credentials);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(SourceUrlError::Camera(
            "it names no host, write it as rtsp://host:port/path, onvif://host:port or http://host:port/path",
        ));
    }
    if url.as_str().len() > LONGEST {
        return Err(SourceUrlError::Camera("it is longer than 2,000 characters"));
    }
    Ok(url)
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => match Url::from_file_path(path) {
                Ok(url) => url.fmt(f),
                Err(()) => path.display().fmt(f),
            },
            Self::Rtsp(url) | Self::Http(url) | Self::Onvif(url) => url.fmt(f),
            Self::Push => f.write_str("push:"),
            Self::Nats(subject) => write!(f, "nats:{subject}"),
        }
    }
}

impl Serialize for SourceUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SourceUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<SourceUrl, SourceUrlError> {
        text.parse()
    }

    #[test]
    fn an_address_with_credentials_is_refused_without_repeating_them() {
        for text in [
            "rtsp://me:hunter2@cam/1",
            "rtsp://hunter2@cam/1",
            "rtsp://me:hunter2@/1",
            "rtsp://me:hunter2@cam:x/",
            "http://me:hunter2@cam/1",
            "HTTPS://me:hunter2@cam:x/",
            "rtsps://me:hunter2@cam:x/",
        ] {
            let error = url(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(url("rtsp://me:hunter2@cam/1"), Err(SourceUrlError::Credentials));
    }

    #[test]
    fn cameras_are_named_by_host_and_path() {
        let camera = url("rtsp://10.0.0.7:8554/cam?channel=1&subtype=0").unwrap();
        assert!(camera.is_live());
        assert_eq!(camera.to_string(), "rtsp://10.0.0.7:8554/cam?channel=1&subtype=0");
        let secured = url("rtsps://cam/1").unwrap();
        assert!(secured.is_live() && secured.asks_for_password() && secured.to_string() == "rtsps://cam/1");
        assert_eq!(url("rtsps://me:hunter2@cam/1"), Err(SourceUrlError::Credentials));
        assert!(matches!(url("rtsp:///1"), Err(SourceUrlError::Camera(_))));
        let device = url("onvif://10.0.0.7:8080").unwrap();
        assert!(device.is_live() && device.to_string() == "onvif://10.0.0.7:8080");
        assert_eq!(url("onvif://me:hunter2@cam"), Err(SourceUrlError::Credentials));
        assert!(matches!(url("onvif:///x"), Err(SourceUrlError::Camera(_))));
        assert!(matches!(url("ftp://cam/1"), Err(SourceUrlError::Scheme { .. })));
        assert!(matches!(url(&format!("rtsp://cam/{}", "x".repeat(2_000))), Err(SourceUrlError::Camera(_))));
    }

    #[test]
    fn images_come_over_http_or_are_sent() {
        for text in ["http://10.0.0.7:8080/video?q=1", "https://cam/mjpeg", "push:", "nats:shop.door.images"] {
            let source = url(text).unwrap();
            assert!(source.is_live());
            assert_eq!(source.to_string(), text);
        }
        assert_eq!(url("push:here"), Err(SourceUrlError::Push));
        for bad in [
            "nats:",
            "nats:a..b",
            "nats://127.0.0.1:4222",
            "nats:a.*",
            "nats:a.>",
            "nats:a b",
            "nats:kadr.push.x",
            "nats:$JS.x",
        ] {
            assert!(matches!(url(bad), Err(SourceUrlError::Subject(_))), "{bad}");
        }
        let parse = |json: &str| serde_json::from_str::<Source>(json);
        assert!(parse(r#"{"url":"http://cam/1","username":"me","secret":"0123456789abcdef"}"#).is_ok());
        for bad in [
            r#"{"url":"push:","username":"me"}"#,
            r#"{"url":"nats:a","secret":"0123456789abcdef"}"#,
            r#"{"url":"push:","loop":true}"#,
            r#"{"url":"http://cam/1","transport":"udp"}"#,
            r#"{"url":"http://cam/1","quirks":["wrong_clock"]}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_for_cameras_is_refused_for_files() {
        let parse = |json: &str| serde_json::from_str::<Source>(json);
        let camera = r#"{"url":"rtsp://cam/1","username":"me","secret":"0123456789abcdef","transport":"udp","quirks":["wrong_clock","no_teardown"]}"#;
        assert_eq!(serde_json::to_string(&parse(camera).unwrap()).unwrap(), camera);
        for field in [
            r#""username":"me""#,
            r#""secret":"0123456789abcdef""#,
            r#""transport":"udp""#,
            r#""quirks":["wrong_clock"]"#,
        ] {
            let error = parse(&format!(r#"{{"url":"/a.mp4",{field}}}"#)).unwrap_err().to_string();
            assert!(error.contains("for cameras"), "{error}");
        }
        assert!(parse(r#"{"url":"rtsp://cam/1","password":"hunter2"}"#).is_err(), "it never gets here");
        let both = parse(r#"{"url":"rtsp://cam/1","quirks":["stale_sessions","no_teardown"]}"#).unwrap_err();
        assert!(both.to_string().contains("leave out"), "{both}");
        let device = r#"{"url":"onvif://cam","username":"me","fps":10.0,"size":"1280x720","profile":"main"}"#;
        assert_eq!(serde_json::to_string(&parse(device).unwrap()).unwrap(), device);
        for field in [r#""size":"1280x720""#, r#""profile":"main""#] {
            let error = parse(&format!(r#"{{"url":"rtsp://cam/1",{field}}}"#)).unwrap_err().to_string();
            assert!(error.contains("for ONVIF devices"), "{error}");
        }
    }

    #[test]
    fn tls_is_for_who_speaks_it() {
        let parse = |json: &str| serde_json::from_str::<Source>(json);
        for source in [r#"{"url":"rtsps://cam/1","tls":"any"}"#, r#"{"url":"onvif://cam","tls":"any"}"#] {
            assert_eq!(serde_json::to_string(&parse(source).unwrap()).unwrap(), source);
        }
        let default = parse(r#"{"url":"rtsps://cam/1","tls":"verify"}"#).unwrap();
        assert_eq!(serde_json::to_string(&default).unwrap(), r#"{"url":"rtsps://cam/1"}"#);
        for url in ["rtsp://cam/1", "https://cam/1", "/a.mp4", "push:"] {
            let error = parse(&format!(r#"{{"url":"{url}","tls":"any"}}"#)).unwrap_err().to_string();
            assert!(error.contains("source.tls is for cameras by rtsps://"), "{error}");
        }
        let error = parse(r#"{"url":"rtsps://cam/1","transport":"udp"}"#).unwrap_err().to_string();
        assert!(error.contains("source.transport udp can't go through TLS"), "{error}");
        assert!(parse(r#"{"url":"rtsps://cam/1","tls":"none"}"#).is_err());
    }

    #[test]
    fn what_is_for_files_is_refused_for_cameras() {
        let parse = |json: &str| serde_json::from_str::<Source>(json);
        let file = r#"{"url":"file:///stills/*.jpg","fps":12.5,"pace":"own","loop":true}"#;
        assert_eq!(serde_json::to_string(&parse(file).unwrap()).unwrap(), file);
        for field in [r#""fps":1"#, r#""pace":"own""#, r#""loop":true"#] {
            let error = parse(&format!(r#"{{"url":"rtsp://cam/1",{field}}}"#)).unwrap_err().to_string();
            assert!(error.contains("for files"), "{error}");
        }
        for rate in ["0", "-1", "1e9", "\"fast\""] {
            assert!(parse(&format!(r#"{{"url":"/a","fps":{rate}}}"#)).is_err(), "{rate}");
        }
        let plain = r#"{"url":"/a.mp4","pace":"full","loop":false}"#;
        assert_eq!(serde_json::to_string(&parse(plain).unwrap()).unwrap(), r#"{"url":"file:///a.mp4"}"#);
    }

    #[test]
    fn patterns_come_back_as_they_were() {
        for path in ["/data/*.jpg", "/data/img?.png", "/data/[0-9].jpg", "/data/50%.jpg", "/data/#1.jpg"] {
            let address = url(path).unwrap();
            assert_eq!(address, SourceUrl::File(path.into()));
            assert_eq!(url(&address.to_string()).unwrap(), address, "{address}");
        }
        assert!(matches!(url("file:///data/img?.png"), Err(SourceUrlError::Address(_))));
    }
}
