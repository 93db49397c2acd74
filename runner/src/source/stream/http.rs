//! Images over HTTP (`multipart/x-mixed-replace`, "MJPEG"): asking for the stream, and receiving it.
//!
//! The user name and the password are sent only when the camera asks for them, and only to the host that they were given for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http_auth::{PasswordClient, PasswordParams};
use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, WWW_AUTHENTICATE},
    redirect::Policy,
};
use url::Url;

use super::mailbox::{Arrived, Mailbox};
use crate::source::{Access, SourceError, multipart::Parts};

/// Redirections that are followed.
const REDIRECTIONS: usize = 4;
const CONNECT: Duration = Duration::from_secs(5);

/// An answer that is a stream of images.
pub(super) struct Answered {
    response: Response,
    parts: Parts,
}

/// Asks for the stream, with the password if it is wanted.
pub(super) async fn connect(access: &Access) -> Result<Answered, SourceError> {
    let mut url = access.url.clone();
    for _ in 0..=REDIRECTIONS {
        let ours = origin(&url) == origin(&access.url);
        let credentials = access.credentials.as_ref().filter(|_| ours);
        let response = ask(&client(&url)?, &url, credentials).await?;
        if !response.status().is_redirection() {
            return judge(response, &url, credentials.is_some());
        }
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| url.join(to).ok());
        url = to.filter(|to| matches!(to.scheme(), "http" | "https")).ok_or_else(|| SourceError::Session {
            what: format!("the camera answers {} without an address to go to", response.status().as_u16()),
        })?;
    }
    Err(SourceError::Session { what: "the camera sends from one address to the next without an end".into() })
}

fn client(url: &Url) -> Result<Client, SourceError> {
    // The binary has chosen one at its start; a second choice changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(format!("kadr/{}", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .redirect(Policy::none())
        // What stands in the environment is for other things than cameras.
        .no_proxy()
        .http1_only();
    // Whom the machine trusts is of no interest without TLS, and it may have nobody.
    let builder = if url.scheme() == "https" { builder } else { builder.tls_certs_only([]) };
    builder.build().map_err(|error| SourceError::Session { what: format!("can't speak HTTP: {}", cause(&error)) })
}

fn origin(url: &Url) -> (Option<&str>, Option<u16>) {
    (url.host_str(), url.port_or_known_default())
}

/// One request, and another one with the password if that is asked for.
async fn ask(client: &Client, url: &Url, credentials: Option<&(String, String)>) -> Result<Response, SourceError> {
    let request = || client.get(url.clone()).header(ACCEPT, "multipart/x-mixed-replace, */*;q=0.1");
    let response = request().send().await.map_err(|error| unreachable(error, url))?;
    let Some((username, password)) = credentials.filter(|_| response.status() == StatusCode::UNAUTHORIZED) else {
        return Ok(response);
    };
    let mut challenges = PasswordClient::builder();
    for challenge in response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()) {
        challenges = challenges.challenges(challenge);
    }
    let strange = |why: String| SourceError::Session {
        what: format!("the camera asks for the password in a way that kadr does not know ({})", short(&why)),
    };
    let uri = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let params = PasswordParams { username, password, uri, method: "GET", body: Some(&[]) };
    let authorization = challenges.build().map_err(strange)?.respond(&params).map_err(strange)?;
    let mut authorization = HeaderValue::try_from(authorization).map_err(|error| strange(error.to_string()))?;
    authorization.set_sensitive(true);
    request().header(AUTHORIZATION, authorization).send().await.map_err(|error| unreachable(error, url))
}

/// Whether the answer is what is wanted. `known`: a user name was there to be sent.
fn judge(response: Response, url: &Url, known: bool) -> Result<Answered, SourceError> {
    let status = response.status();
    if !status.is_success() {
        let what = match (status.as_u16(), known) {
            (401 | 403, true) => "the camera refused the user name or the password".to_owned(),
            (401 | 403, false) => {
                "the camera asks for a user name and a password: give source.username and source.password".to_owned()
            }
            (404, _) => format!("there is nothing at {}: check the address behind the host", url.path()),
            (503, _) => "the camera is busy: it may serve no more viewers".to_owned(),
            _ => format!("the camera refused ({})", status.canonical_reason().unwrap_or("no reason")),
        };
        return Err(SourceError::Refused { status: status.as_u16(), what });
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (kind, boundary) = (essence(kind), parameter(kind, "boundary"));
    match kind.as_str() {
        // Some say nothing of what they send; the first line tells.
        "multipart/x-mixed-replace" | "multipart/mixed" | "application/octet-stream" | "" => {
            let parts = Parts::new(boundary.as_deref());
            Ok(Answered { response, parts })
        }
        kind if kind.starts_with("image/") => Err(SourceError::Session {
            what: "the address gives a single image, not a stream of them: give the one that the camera streams by"
                .into(),
        }),
        kind => Err(SourceError::Session {
            what: format!("the address gives {}, not a stream of images (multipart/x-mixed-replace)", short(kind)),
        }),
    }
}

/// Receives until the stream ends, for whatever reason.
pub(super) async fn receive(answered: Answered, mailbox: Mailbox, busy: Arc<AtomicU64>) {
    let Answered { mut response, mut parts } = answered;
    let why = loop {
        match parts.next_part() {
            Ok(Some(body)) => {
                let arrived = Arrived { body: body.into(), at: Instant::now(), taken: None, reply: None };
                busy.fetch_add(u64::from(mailbox.put(arrived).is_some()), Ordering::Relaxed);
                continue;
            }
            Ok(None) if parts.is_over() => break SourceError::Gone,
            Ok(None) => {}
            Err(error) => break SourceError::Session { what: error.to_string() },
        }
        // Whoever decodes has a deadline for each image, and ends this task with the session.
        match response.chunk().await {
            Ok(Some(bytes)) => parts.push(&bytes),
            Ok(None) => break SourceError::Gone,
            Err(error) => break SourceError::Session { what: format!("the stream broke off ({})", cause(&error)) },
        }
    };
    mailbox.end(why);
}

fn unreachable(error: reqwest::Error, url: &Url) -> SourceError {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let cause = cause(&error);
    let what = if error.is_connect() && cause.contains("certificate") {
        format!(
            "{host} can't be trusted: {cause}; its certificate has to be signed by an authority that this machine knows"
        )
    } else if error.is_connect() {
        format!("nothing accepts connections at {host}:{port} ({cause})")
    } else {
        format!("{host}:{port} does not speak HTTP as it should ({cause})")
    };
    SourceError::Session { what }
}

/// What lies at the bottom of an error: the library's own words name its parts.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    short(&cause.to_string())
}

/// Without control characters and an end.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

/// A media type without its parameters, in lower case.
fn essence(kind: &str) -> String {
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A media type's parameter, with or without quotes.
fn parameter(kind: &str, wanted: &str) -> Option<String> {
    kind.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_taken_apart() {
        for kind in [
            "multipart/x-mixed-replace;boundary=ffmpeg",
            "Multipart/X-Mixed-Replace; Boundary=\"ffmpeg\"",
            "multipart/x-mixed-replace; charset=x ; boundary = ffmpeg ",
        ] {
            assert_eq!(essence(kind), "multipart/x-mixed-replace");
            assert_eq!(parameter(kind, "boundary").as_deref(), Some("ffmpeg"), "{kind}");
        }
        assert_eq!(parameter("multipart/x-mixed-replace", "boundary"), None);
    }
}
