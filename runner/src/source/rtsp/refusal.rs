//! What a camera's refusal means, in words for people. The library's own text is for those who write it.

use retina::client::Stream;
use url::Url;

use crate::source::SourceError;

/// Where cameras listen if their address names no other port: by RTSP, and by RTSP within TLS.
const PORT: u16 = 554;
const PORT_TLS: u16 = 322;

pub(super) fn port(url: &Url) -> u16 {
    url.port().unwrap_or(if url.scheme() == "rtsps" { PORT_TLS } else { PORT })
}

/// There is no connection.
pub(super) fn unreachable(url: &Url, why: &str) -> SourceError {
    let what = format!("nothing accepts connections at {}:{} ({why})", url.host_str().unwrap_or_default(), port(url));
    SourceError::Session { what }
}

/// The settings refuse it; an ONVIF device may name such an address all the same.
pub(super) fn udp_in_tls() -> SourceError {
    let what = "the camera's address is one of rtsps://, and source.transport udp can't go through TLS: leave it out";
    SourceError::NoStream { what: what.to_owned() }
}

/// While the session is being made. `known`: a user name was sent.
pub(super) fn opening(error: &retina::Error, url: &Url, known: bool) -> SourceError {
    let Some(status) = error.status_code() else {
        let what = first_line(error);
        return match what.strip_prefix("Unable to connect to RTSP server: ") {
            Some(why) => unreachable(url, why),
            None => SourceError::Session { what },
        };
    };
    let what = match (status, known) {
        (401 | 403, true) => "the camera refused the user name or the password".to_owned(),
        (401 | 403, false) => {
            "the camera asks for a user name and a password: give source.username and source.password".to_owned()
        }
        (404, _) => format!("the camera has no stream at {}: check the address behind the host", url.path()),
        (461, _) => "the camera does not send in this way: choose the other source.transport (tcp or udp)".to_owned(),
        (453 | 503, _) => "the camera is busy: it may serve no more viewers".to_owned(),
        _ => first_line(error),
    };
    SourceError::Refused { status, what }
}

/// While it lasts.
pub(super) fn session(error: &retina::Error) -> SourceError {
    SourceError::Session { what: first_line(error) }
}

/// None of the camera's streams can be read.
pub(super) fn no_h264(streams: &[Stream]) -> SourceError {
    let names = |stream: &Stream| format!("{} {}", stream.media(), stream.encoding_name());
    let found: Vec<_> = streams.iter().take(8).map(names).collect();
    let video = streams.iter().find(|stream| stream.media() == "video");
    match video.map(Stream::encoding_name) {
        Some(codec) => SourceError::CameraCodec { found: codec.to_ascii_uppercase() },
        None => SourceError::NoVideo { found: if found.is_empty() { "nothing".into() } else { found.join(", ") } },
    }
}

/// What stands below it names connections and packets.
fn first_line(error: &retina::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().chars().take(200).collect()
}
