//! What goes between a camera and the library, both ways, until one of them ends.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    framing::{Framing, FramingError},
    requests::{RequestError, Requests, asks},
};

/// For the last words to either side, once the other one is gone.
const GOODBYE: Duration = Duration::from_secs(1);
/// What is read at a time.
const PIECE: usize = 64 << 10;
/// What a camera has to say before it is told to play, in bytes: some answers of some thousands each.
const PREFACE: u64 = 4 << 20;
/// What comes from one picture to the next: the library keeps all of it until the picture is whole. The largest that is
/// decoded has some megabytes.
const PICTURE: u64 = 32 << 20;

/// A connection, secured or not.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum RelayError {
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

/// What both directions, and whoever reads the pictures, know of a session.
pub(super) struct Session {
    requests: Mutex<Requests>,
    /// The library has shown that it is the one.
    known: Notify,
    /// How many the library has made of what came.
    pictures: AtomicU64,
    /// Why it ended, if neither side ended it by itself.
    broken: OnceLock<RelayError>,
    /// The camera bears being told that it is over.
    polite: bool,
}

impl Session {
    pub(super) fn new(requests: Requests, polite: bool) -> Self {
        let (requests, known) = (Mutex::new(requests), Notify::new());
        Self { requests, known, pictures: AtomicU64::new(0), broken: OnceLock::new(), polite }
    }

    pub(super) fn picture(&self) {
        self.pictures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn broken(&self) -> Option<&RelayError> {
        self.broken.get()
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a session ends.
enum End {
    /// The library has let go of it.
    Left,
    /// The camera has ended it.
    Gone,
    Broken(RelayError),
}

/// Carries both ways until one side ends, and says whether the camera has heard of it, or never played. None of the waits here has
/// a deadline of its own: the session's are those of [`Deadlines`](crate::source::Deadlines), and whoever misses one drops the
/// relay, which is the stop.
pub(super) async fn carry(
    library: TcpStream,
    camera: Box<dyn Wire>,
    session: &Session,
    stop: &CancellationToken,
) -> bool {
    // Requests are small, and packets are waited for: without it either would be held back, and is only slower.
    let _ = library.set_nodelay(true);
    let (mut from_camera, mut to_camera) = tokio::io::split(camera);
    let (mut from_library, mut to_library) = library.into_split();
    let mut framing = Framing::default();
    let end = tokio::select! {
        () = stop.cancelled() => End::Left,
        end = ask(&mut from_library, &mut to_camera, session) => end,
        end = answer(&mut from_camera, &mut to_library, &mut framing, session) => end,
    };
    match end {
        End::Left => {
            drop((from_library, to_library));
            let left = timeout(GOODBYE, leave(&mut from_camera, &mut to_camera, &mut framing, session)).await;
            let _ = timeout(GOODBYE, to_camera.shutdown()).await;
            matches!(left, Ok(Ok(true)))
        }
        End::Gone => {
            // What it asks just now would be answered by a reset, which takes away what it has not read yet.
            let _ = to_library.shutdown().await;
            let rest = async { while from_library.read(&mut [0; 512]).await.is_ok_and(|length| length > 0) {} };
            tokio::select! {
                () = stop.cancelled() => {}
                _ = timeout(GOODBYE, rest) => {}
            }
            !session.requests().plays()
        }
        End::Broken(error) => {
            debug!(%error, "the camera's connection is given up");
            // Told before the library can see that its connection ends.
            let _ = session.broken.set(error);
            !session.requests().plays()
        }
    }
}

/// Tells a camera anew, by another connection. Whether it has heard.
pub(super) async fn tell(camera: Box<dyn Wire>, session: &Session) -> bool {
    let (mut from, mut to) = tokio::io::split(camera);
    let told = timeout(GOODBYE, leave(&mut from, &mut to, &mut Framing::default(), session)).await;
    matches!(told, Ok(Ok(true)))
}

/// Carries what the library asks.
async fn ask(library: &mut OwnedReadHalf, camera: &mut WriteHalf<Box<dyn Wire>>, session: &Session) -> End {
    let mut piece = vec![0; 4 << 10];
    loop {
        let length = match library.read(&mut piece).await {
            Ok(0) | Err(_) => return End::Left,
            Ok(length) => length,
        };
        let came = piece.get(..length).unwrap_or_default();
        let pushed = session.requests().push(came);
        let request = match pushed {
            Ok(request) => request,
            Err(error) => return End::Broken(error.into()),
        };
        if !request.is_empty() {
            session.known.notify_one();
        }
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
    session: &Session,
) -> End {
    session.known.notified().await;
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
            let mut requests = session.requests();
            (framing.push(came, &mut |head| requests.answered(head)), requests.plays())
        };
        let reached = plays.then(|| session.pictures.load(Ordering::Relaxed));
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

/// Ends the session at the camera, so that it has its place back, and waits for its word or for its end. Whether it has
/// heard, or there is nothing to tell.
async fn leave(
    camera: &mut ReadHalf<Box<dyn Wire>>,
    to: &mut WriteHalf<Box<dyn Wire>>,
    framing: &mut Framing,
    session: &Session,
) -> io::Result<bool> {
    let teardown = session.polite.then(|| session.requests().teardown()).flatten();
    let Some(teardown) = teardown else { return Ok(true) };
    send(to, &teardown).await?;
    let mut piece = vec![0; PIECE];
    loop {
        let length = camera.read(&mut piece).await?;
        let came = piece.get(..length).unwrap_or_default();
        let mut heard = None;
        let whole = framing.push(came, &mut |head| {
            let mut requests = session.requests();
            requests.answered(head);
            // What it says of something else may come before.
            if requests.answers_last(head) {
                heard = Some(!asks(head));
            }
        });
        match heard {
            Some(heard) => return Ok(heard),
            None if whole.is_err() || came.is_empty() => return Ok(false),
            None => {}
        }
    }
}

async fn send(camera: &mut WriteHalf<Box<dyn Wire>>, bytes: &[u8]) -> io::Result<()> {
    camera.write_all(bytes).await?;
    camera.flush().await
}
