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

pub mod framing;
mod requests;
mod tls;

use std::{
    fmt::Write,
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;
use url::{Host, Position, Url};

use self::{
    framing::{Framing, FramingError},
    requests::{Names, RequestError, Requests},
};
use super::{Access, refusal};
use crate::source::SourceError;

/// Until the camera accepts the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Until the library, which is told at once, connects to the relay.
const JOIN: Duration = Duration::from_secs(5);
/// For the last words to either side, once the other one is gone.
const GOODBYE: Duration = Duration::from_secs(1);
/// What is read at a time.
const PIECE: usize = 64 << 10;
/// What a camera has to say before it is told to play, in bytes: some answers of some thousands each.
const PREFACE: u64 = 4 << 20;
/// What comes from one picture to the next: the library keeps all of it until the picture is whole. The largest that is
/// decoded has some megabytes.
const PICTURE: u64 = 32 << 20;

/// A session's way to its camera. It ends with it: dropped, it tells the camera so, and lets go of all sockets in a second or
/// two.
pub(in crate::source) struct Relay {
    names: Names,
    url: Url,
    /// Why it ended, if neither side ended the session by itself.
    broken: Arc<OnceLock<RelayError>>,
    /// How many the library has made of what came.
    pictures: Arc<AtomicU64>,
    _stop: DropGuard,
}

#[derive(Debug, Clone, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the camera has sent more than {PREFACE} bytes before it was told to play")]
    Preface,
    #[error("the camera has sent more than {PICTURE} bytes without a picture in them")]
    Picture,
    #[error("the connection to the camera broke off ({0})")]
    Broken(String),
}

/// A connection, secured or not.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

impl Relay {
    /// Connects to the camera, and waits for the library in the background.
    pub(super) async fn open(access: &Access) -> Result<Self, SourceError> {
        let camera = connect(&access.url).await?;
        let camera: Box<dyn Wire> = match access.url.scheme() {
            "rtsps" => Box::new(tls::secure(camera, &access.url, access.tls).await?),
            _ => Box::new(camera),
        };
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
        let (stop, broken, pictures) = (CancellationToken::new(), Arc::default(), Arc::<AtomicU64>::default());
        let requests = Mutex::new(Requests::new(names.clone(), access.credentials.clone()));
        let guard = stop.clone().drop_guard();
        let relay = Self { names, url, broken: Arc::clone(&broken), pictures: pictures.clone(), _stop: guard };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                joined = timeout(JOIN, listener.accept()) => {
                    // From here on nobody can come.
                    drop(listener);
                    if let Ok(Ok((library, _))) = joined {
                        carry(library, camera, &requests, &pictures, &stop, &broken).await;
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
        self.pictures.fetch_add(1, Ordering::Relaxed);
    }

    /// An error of the session, by its real cause, and with the camera's own address in it.
    pub(super) fn explain(&self, error: SourceError) -> SourceError {
        if let Some(broken) = self.broken.get() {
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

/// How a session ends.
enum End {
    /// The library has let go of it.
    Left,
    /// The camera has ended it.
    Gone,
    Broken(RelayError),
}

/// Carries both ways until one side ends. None of the waits here has a deadline of its own: the session's are those of
/// [`Deadlines`](super::Deadlines), and whoever misses one drops the relay, which is the stop.
async fn carry(
    library: TcpStream,
    camera: Box<dyn Wire>,
    requests: &Mutex<Requests>,
    pictures: &AtomicU64,
    stop: &CancellationToken,
    broken: &OnceLock<RelayError>,
) {
    // Requests are small, and packets are waited for: without it either would be held back, and is only slower.
    let _ = library.set_nodelay(true);
    let (mut from_camera, mut to_camera) = tokio::io::split(camera);
    let (mut from_library, mut to_library) = library.into_split();
    let mut framing = Framing::default();
    let end = tokio::select! {
        () = stop.cancelled() => End::Left,
        end = ask(&mut from_library, &mut to_camera, requests) => end,
        end = answer(&mut from_camera, &mut to_library, &mut framing, requests, pictures) => end,
    };
    match end {
        End::Left => {
            let teardown = requests.lock().unwrap_or_else(PoisonError::into_inner).teardown();
            drop((from_library, to_library));
            if let Some(teardown) = teardown {
                let _ = timeout(GOODBYE, leave(&mut from_camera, &mut to_camera, &mut framing, &teardown)).await;
            }
            let _ = timeout(GOODBYE, to_camera.shutdown()).await;
        }
        End::Gone => {
            // What it asks just now would be answered by a reset, which takes away what it has not read yet.
            let _ = to_library.shutdown().await;
            let rest = async { while from_library.read(&mut [0; 512]).await.is_ok_and(|length| length > 0) {} };
            tokio::select! {
                () = stop.cancelled() => {}
                _ = timeout(GOODBYE, rest) => {}
            }
        }
        End::Broken(error) => {
            debug!(%error, "the camera's connection is given up");
            // Told before the library can see that its connection ends.
            let _ = broken.set(error);
        }
    }
}

/// Carries what the library asks.
async fn ask(library: &mut OwnedReadHalf, camera: &mut WriteHalf<Box<dyn Wire>>, requests: &Mutex<Requests>) -> End {
    let mut piece = vec![0; 4 << 10];
    loop {
        let length = match library.read(&mut piece).await {
            Ok(0) | Err(_) => return End::Left,
            Ok(length) => length,
        };
        let came = piece.get(..length).unwrap_or_default();
        let pushed = requests.lock().unwrap_or_else(PoisonError::into_inner).push(came);
        let request = match pushed {
            Ok(request) => request,
            Err(error) => return End::Broken(error.into()),
        };
        if send(camera, &request).await.is_err() {
            // Its last answer may be on its way, and says more than that it takes no request.
            std::future::pending::<()>().await;
        }
    }
}

/// Carries what the camera sends, once it is known to be within bounds.
async fn answer(
    camera: &mut ReadHalf<Box<dyn Wire>>,
    library: &mut OwnedWriteHalf,
    framing: &mut Framing,
    requests: &Mutex<Requests>,
    pictures: &AtomicU64,
) -> End {
    let mut piece = vec![0; PIECE];
    // Bytes since the beginning, or the last picture.
    let (mut since, mut last) = (0, None);
    loop {
        let length = match camera.read(&mut piece).await {
            Ok(0) => return End::Gone,
            // Many leave TLS without a word.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return End::Gone,
            Err(error) => return End::Broken(RelayError::Broken(error.to_string())),
            Ok(length) => length,
        };
        let came = piece.get(..length).unwrap_or_default();
        let (within, plays) = {
            let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
            (framing.push(came, &mut |head| requests.answered(head)), requests.plays())
        };
        let reached = plays.then(|| pictures.load(Ordering::Relaxed));
        since = if reached == last { since } else { 0 } + came.len() as u64;
        last = reached;
        match within {
            Err(error) => return End::Broken(error.into()),
            Ok(()) if !plays && since > PREFACE => return End::Broken(RelayError::Preface),
            Ok(()) if since > PICTURE => return End::Broken(RelayError::Picture),
            Ok(()) => {}
        }
        if library.write_all(came).await.is_err() {
            return End::Left;
        }
    }
}

/// Ends the session at the camera, so that it has its place back, and waits for its word or for its end.
async fn leave(
    camera: &mut ReadHalf<Box<dyn Wire>>,
    to: &mut WriteHalf<Box<dyn Wire>>,
    framing: &mut Framing,
    teardown: &[u8],
) -> io::Result<()> {
    send(to, teardown).await?;
    let (mut piece, mut answered) = (vec![0; PIECE], false);
    while !answered {
        let length = camera.read(&mut piece).await?;
        let came = piece.get(..length).unwrap_or_default();
        let whole = framing.push(came, &mut |_| answered = true);
        answered |= whole.is_err() || came.is_empty();
    }
    Ok(())
}

async fn send(camera: &mut WriteHalf<Box<dyn Wire>>, bytes: &[u8]) -> io::Result<()> {
    camera.write_all(bytes).await?;
    camera.flush().await
}
