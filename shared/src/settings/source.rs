//! Where the video comes from: an address, for cameras how to get at what is there, for files how to play it. What an address
//! may be is [`SourceUrl`]'s.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Quirk, Quirks, SourceUrl};
use crate::{geometry::Size, secret::SecretName};

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
    #[error(
        "source.fps is for files: leave it out for a camera, and for images that are sent; preprocess.fps bounds how many \
         frames a second are analysed"
    )]
    Fps,
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
        let for_files = [("pace", !pace.is_default()), ("loop", looped)];
        let first = |fields: &[(&'static str, bool)]| fields.iter().find(|(_, given)| *given).map(|(field, _)| *field);
        if let Some(field) = first(&for_cameras).filter(|_| !url.asks_for_password()) {
            return Err(Misplaced::ForCameras { field });
        }
        if let Some(field) = first(&for_files).filter(|_| url.is_live()) {
            return Err(Misplaced::ForFiles { field });
        }
        if fps.is_some() && url.is_live() && !is_device {
            return Err(Misplaced::Fps);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_are_sent_take_no_account_and_no_pace() {
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
}
