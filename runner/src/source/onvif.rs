//! Where an ONVIF device's stream is: asked anew for each session, since devices change their addresses.

use std::time::Duration;

use kadr_shared::onvif::{Credentials, Device, NoProfile, OnvifError, Wish};
use tracing::debug;
use url::Url;

use super::{Access, SourceError};

/// From the first question to the stream's address.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);
/// Where devices are asked if their address does not say it.
const PATH: &str = "/onvif/device_service";

/// How to get at the stream that is wanted.
pub(super) async fn find(access: &Access, wish: &Wish) -> Result<Access, SourceError> {
    let credentials = access.credentials.clone().map(|(username, password)| Credentials { username, password });
    let device = Device::open(service(&access.url)?, credentials).await.map_err(told)?;
    let profiles = device.profiles().await.map_err(told)?;
    let profile = wish.choose(&profiles).map_err(|error| match error {
        NoProfile::Codec { codec, .. } => SourceError::CameraCodec { found: codec },
        // It may be about to begin.
        NoProfile::NoH264 { found } if found.is_empty() => {
            SourceError::Session { what: "the device has no streams yet".to_owned() }
        }
        other => SourceError::NoStream { what: other.to_string() },
    })?;
    let url = device.stream(profile).await.map_err(told)?;
    debug!(profile = profile.name, host = url.host_str(), "the device has told where the stream is");
    elsewhere(&access.url, &url, access.credentials.is_some())?;
    Ok(Access { url, device: None, ..access.clone() })
}

/// A password goes to nobody but whom it was given for: what a device says of another host is not believed.
fn elsewhere(device: &Url, stream: &Url, password: bool) -> Result<(), SourceError> {
    let host = |url: &Url| url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    if !password || host(device) == host(stream) {
        return Ok(());
    }
    let what = format!(
        "the device says that its stream is at another host, {}, which the password was not given for: name the camera as \
         rtsp:// if that is right",
        host(stream)
    );
    Err(SourceError::Session { what })
}

/// The address of a device's service, in `onvif://host:port`.
fn service(url: &Url) -> Result<Url, SourceError> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    let path = if url.path().trim_matches('/').is_empty() { PATH } else { url.path() };
    Url::parse(&format!("http://{host}{port}{path}"))
        .map_err(|_| SourceError::Session { what: "the device's address can't be used".to_owned() })
}

fn told(error: OnvifError) -> SourceError {
    let what = match error {
        OnvifError::NeedsCredentials => {
            "the device asks for a user name and a password: give source.username and source.password".to_owned()
        }
        other => other.to_string(),
    };
    SourceError::Session { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_to_no_other_host() {
        let url = |text: &str| Url::parse(text).unwrap();
        let device = url("onvif://Cam.example:8080/");
        assert!(elsewhere(&device, &url("rtsp://cam.example:554/1"), true).is_ok());
        assert!(elsewhere(&device, &url("rtsp://10.0.0.9/1"), false).is_ok());
        let told = elsewhere(&device, &url("rtsp://10.0.0.9/1"), true).unwrap_err().to_string();
        assert!(told.contains("10.0.0.9"), "{told}");
    }

    #[test]
    fn a_device_is_asked_at_the_usual_place_unless_it_is_named() {
        for (given, wanted) in [
            ("onvif://10.0.0.7", "http://10.0.0.7/onvif/device_service"),
            ("onvif://cam.example:8080/", "http://cam.example:8080/onvif/device_service"),
            ("onvif://[fe80::1]:81/own/path", "http://[fe80::1]:81/own/path"),
        ] {
            assert_eq!(service(&Url::parse(given).unwrap()).unwrap().as_str(), wanted);
        }
    }
}
