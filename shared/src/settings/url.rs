//! A source's address: what kind of source it names, and where it is.
//!
//! It never holds a user name or a password; whether something answers there is the runner's business.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use crate::subjects;

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
    pub(super) fn is_secured(&self) -> bool {
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
    #[error(
        "the source is neither an absolute path nor an address that can be read: write it as /data/clip.mp4, \
         rtsp://host:port/path, http://host:port/path or onvif://host:port, without user name and password"
    )]
    Unreadable,
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
            // A camera's address with a mistake in it may hold a password, too.
            Err(_) if text.contains("//") || text.contains(['@', '=']) => Err(SourceUrlError::Unreadable),
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
            "rtsp//me:hunter2@cam/1",
            "://me:hunter2@cam/1",
            "me:hunter2@cam/1",
            "10.0.0.7:554/user=me&password=hunter2",
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
