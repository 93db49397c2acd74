//! The connection to a camera: made by kadr itself, secured where the address says so, and held between the camera and the
//! RTSP library, which opens connections of its own only, knows no TLS, and reads messages of any size.
//!
//! The library is given an address of this machine, where this relay waits for one connection. What the camera sends passes
//! unchanged, measured by [`framing`]; what the library asks is put into the camera's words by [`requests`]. A session by UDP
//! has no relay: its packets come beside the connection, from a peer that the library has to know.
//!
//! Who else is on this machine could connect to that address first. They would not know the random part of the address that
//! stands in the first request, and are refused before a byte of theirs reaches the camera or one of the camera's reaches
//! them; the library then finds nobody, and the session is made anew. Nobody can listen in the relay's place: it has its
//! port before the library is told, and the library, whose own goodbye is turned off, never connects a second time.

mod carry;
pub mod framing;
mod requests;
mod tls;

use std::{fmt::Write, io, net::Ipv4Addr, sync::Arc, time::Duration};

use kadr_shared::settings::{Quirk, Tls};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;
use url::{Host, Position, Url};

use self::{
    carry::{Session, Wire, carry, tell},
    requests::{Names, Requests},
};
use super::{Access, refusal};
use crate::source::SourceError;

/// Until the camera accepts the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Until the library, which is told at once, connects to the relay.
const JOIN: Duration = Duration::from_secs(5);
/// Seconds after each attempt to tell a camera that a session is over: sessions last a minute without a word.
const PAUSES: [u64; 6] = [1, 2, 4, 8, 16, 16];

/// A session's way to its camera. It ends with it: dropped, it tells the camera so, and lets go of all sockets in a second or
/// two, or in a minute or two where the camera has to be told anew.
pub(in crate::source) struct Relay {
    names: Names,
    url: Url,
    session: Arc<Session>,
    _stop: DropGuard,
}

impl Relay {
    /// Connects to the camera, and waits for the library in the background.
    pub(super) async fn open(access: &Access) -> Result<Self, SourceError> {
        let camera = reach(&access.url, access.tls).await?;
        let unable = |what: String| SourceError::Session { what: format!("this machine has no room: {what}") };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| unable(error.to_string()))?;
        let port = listener.local_addr().map_err(|error| unable(error.to_string()))?.port();
        let secret = secret().ok_or_else(|| unable("the system gives no random numbers".to_owned()))?;
        let names = Names {
            relay: format!("rtsp://{}:{port}/{secret}", Ipv4Addr::LOCALHOST),
            camera: access.url[..Position::BeforePath].to_owned(),
        };
        let url = format!("{}{}", names.relay, &access.url[Position::BeforePath..]);
        let url = Url::parse(&url).map_err(|error| unable(error.to_string()))?;
        let session = Requests::new(names.clone(), access.credentials.clone());
        let session = Arc::new(Session::new(session, !access.quirks.contains(&Quirk::NoTeardown)));
        let again = access.quirks.contains(&Quirk::StaleSessions).then(|| (access.url.clone(), access.tls));
        let stop = CancellationToken::new();
        let relay = Self { names, url, session: Arc::clone(&session), _stop: stop.clone().drop_guard() };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                joined = timeout(JOIN, listener.accept()) => {
                    // From here on nobody can come.
                    drop(listener);
                    if let Ok(Ok((library, _))) = joined {
                        let heard = carry(library, camera, &session, &stop).await;
                        if let Some((url, tls)) = again.filter(|_| !heard) {
                            insist(&url, tls, &session).await;
                        }
                    }
                }
            }
        });
        Ok(relay)
    }

    /// What the library is to take for the camera's address.
    pub(super) fn url(&self) -> Url {
        self.url.clone()
    }

    /// The library has made a picture of what came.
    pub(super) fn picture(&self) {
        self.session.picture();
    }

    /// An error of the session, by its real cause, and with the camera's own address in it.
    pub(super) fn explain(&self, error: SourceError) -> SourceError {
        if let Some(broken) = self.session.broken() {
            return SourceError::Session { what: broken.to_string() };
        }
        let named = |what: String| what.replace(&self.names.relay, &self.names.camera);
        match error {
            SourceError::Session { what } => SourceError::Session { what: named(what) },
            SourceError::Refused { status, what } => SourceError::Refused { status, what: named(what) },
            other => other,
        }
    }
}

/// A connection to the camera, secured where its address says so.
async fn reach(url: &Url, tls: Tls) -> Result<Box<dyn Wire>, SourceError> {
    let camera = connect(url).await?;
    Ok(match url.scheme() {
        "rtsps" => Box::new(tls::secure(camera, url, tls).await?),
        _ => Box::new(camera),
    })
}

/// Tells a camera, which would keep the place otherwise, that a session is over, until it has heard: at the address that was
/// given, and never at another one that it names.
async fn insist(url: &Url, tls: Tls, session: &Session) {
    for pause in PAUSES {
        if let Ok(camera) = reach(url, tls).await
            && tell(camera, session).await
        {
            return;
        }
        sleep(Duration::from_secs(pause)).await;
    }
    debug!("the camera does not hear that a session of its is over");
}

async fn connect(url: &Url) -> Result<TcpStream, SourceError> {
    let port = refusal::port(url);
    let connected = async {
        match url.host() {
            Some(Host::Domain(name)) => TcpStream::connect((name, port)).await,
            Some(Host::Ipv4(ip)) => TcpStream::connect((ip, port)).await,
            Some(Host::Ipv6(ip)) => TcpStream::connect((ip, port)).await,
            None => Err(io::ErrorKind::InvalidInput.into()),
        }
    };
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", CONNECT.as_secs())));
    let connected = timeout(CONNECT, connected).await.unwrap_or_else(|_| late());
    let connected = connected.and_then(|connection| connection.set_nodelay(true).map(|()| connection));
    connected.map_err(|error| refusal::unreachable(url, &error.to_string()))
}

/// What nobody guesses.
fn secret() -> Option<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").ok()?;
    }
    Some(text)
}

#[cfg(test)]
mod tests;
