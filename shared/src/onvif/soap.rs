//! One request to a device and its answer: SOAP 1.2 over HTTP, with whatever a device wants to know the asker by.

use std::{fmt, time::Duration};

use reqwest::{Client, StatusCode, header};
use url::{Position, Url};

use super::{security, xml};

/// For one answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// A larger answer is not read.
const LARGEST: usize = 1 << 20;

/// A user name and a password. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Why a device does not tell. No text holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnvifError {
    #[error("nothing answers as an ONVIF device at {address}: {why}")]
    Unreachable { address: String, why: String },
    #[error("the device at {address} does not answer within {} s", DEADLINE.as_secs())]
    Silent { address: String },
    #[error("the device asks for a user name and a password")]
    NeedsCredentials,
    #[error("the device refused the user name or the password for ONVIF (many have users of their own for it)")]
    Refused,
    #[error("the device answered {0}: it may have no ONVIF, or not at this address")]
    Status(u16),
    #[error("the device says: {0}")]
    Fault(String),
    #[error("the device's answer can't be used: {0}")]
    Answer(String),
    #[error("an HTTP client can't be made: {0}")]
    Client(String),
    #[error("the system gives no random numbers")]
    Randomness,
}

/// How devices are spoken to: never by a proxy, never redirected, never without an end.
pub(super) fn client() -> Result<Client, OnvifError> {
    // TLS has to know by which crypto, also where none is spoken. A second choice is refused.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .timeout(DEADLINE)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| OnvifError::Client(error.to_string()))
}

/// A request: what is asked of which of a device's services.
pub(super) struct Request<'a> {
    pub(super) service: &'a Url,
    /// The service's namespace and the operation, of which the action is made.
    pub(super) namespace: &'a str,
    pub(super) operation: &'a str,
    /// Within the operation's element.
    pub(super) body: &'a str,
}

/// Asks. `created`: the time by the device's clock, if it is known, for who has credentials; without it they are shown by HTTP only.
pub(super) async fn ask(
    client: &Client,
    request: &Request<'_>,
    credentials: Option<(&Credentials, Option<&str>)>,
) -> Result<String, OnvifError> {
    let security = match credentials {
        Some((credentials, Some(created))) => security::header(credentials, created)?,
        Some((_, None)) | None => String::new(),
    };
    let Request { service, namespace, operation, body } = request;
    let envelope = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\">\
         <s:Header>{security}</s:Header><s:Body><{operation} xmlns=\"{namespace}\">{body}</{operation}></s:Body>\
         </s:Envelope>"
    );
    let kind = format!("application/soap+xml; charset=utf-8; action=\"{namespace}/{operation}\"");
    let post = |authorization: Option<String>| {
        let mut post = client.post((*service).clone()).header(header::CONTENT_TYPE, &kind).body(envelope.clone());
        if let Some(authorization) = authorization {
            post = post.header(header::AUTHORIZATION, authorization);
        }
        post.send()
    };
    let address = address_of(service);
    let failed = |error: reqwest::Error| {
        if error.is_timeout() {
            return OnvifError::Silent { address: address.clone() };
        }
        let why = crate::telemetry::chain(&error.without_url()).chars().take(200).collect();
        OnvifError::Unreachable { address: address.clone(), why }
    };
    let mut response = post(None).await.map_err(failed)?;
    // Some want HTTP's own digest beside or instead of what stands in the envelope.
    if response.status() == StatusCode::UNAUTHORIZED {
        let Some((credentials, _)) = credentials else { return Err(OnvifError::NeedsCredentials) };
        if let Some(authorization) = digest(&response, service, credentials) {
            response = post(Some(authorization)).await.map_err(failed)?;
        }
    }
    let status = response.status();
    let text = read(response)
        .await
        .map_err(failed)?
        .ok_or_else(|| OnvifError::Answer(format!("it is larger than {} KiB", LARGEST >> 10)))?;
    // Some answer that all is well, and say within what is not.
    if status.is_success() && !has_fault(&text) {
        return Ok(text);
    }
    Err(refusal(status, &text, credentials.is_some()))
}

fn has_fault(text: &str) -> bool {
    xml::parse(text).is_ok_and(|document| xml::find(document.root(), "Fault").is_some())
}

/// Where a service is, for people: without a path's secrets.
fn address_of(service: &Url) -> String {
    let host = service.host_str().unwrap_or_default();
    service.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The answer to a challenge by HTTP's digest; none: it is no such challenge. A password is never sent in the clear.
fn digest(response: &reqwest::Response, service: &Url, credentials: &Credentials) -> Option<String> {
    let challenges =
        response.headers().get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenge = challenges
        .flat_map(|text| http_auth::parser::ChallengeParser::new(text).flatten().collect::<Vec<_>>())
        .find(|challenge| challenge.scheme.eq_ignore_ascii_case("digest"))?;
    let mut client = http_auth::DigestClient::try_from(&challenge).ok()?;
    let uri = &service[Position::BeforePath..Position::AfterQuery];
    let parameters = http_auth::PasswordParams {
        username: &credentials.username,
        password: &credentials.password,
        uri,
        method: "POST",
        // Digests over the body too (auth-int) the library makes of the body itself instead of its hash: plain ones are chosen.
        body: None,
    };
    client.respond(&parameters).ok()
}

/// None: it is too large.
async fn read(mut response: reqwest::Response) -> Result<Option<String>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > LARGEST {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn refusal(status: StatusCode, text: &str, known: bool) -> OnvifError {
    let unknown = if known { OnvifError::Refused } else { OnvifError::NeedsCredentials };
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return unknown;
    }
    let Ok(document) = xml::parse(text) else { return OnvifError::Status(status.as_u16()) };
    let Some(fault) = xml::find(document.root(), "Fault") else { return OnvifError::Status(status.as_u16()) };
    let codes: Vec<_> = xml::all(fault, "Value").filter_map(|value| value.text()).collect();
    if codes.iter().any(|code| ["NotAuthorized", "FailedAuthentication"].iter().any(|known| code.ends_with(known))) {
        return unknown;
    }
    let reason = xml::text(fault, &["Reason", "Text"]).or_else(|| xml::text(fault, &["faultstring"]));
    OnvifError::Fault(reason.unwrap_or("it can't do that").chars().take(200).collect())
}
