//! Images that come one by one, from a camera over HTTP or from whoever sends them: one session.
//!
//! Somebody receives them ([`http`], [`published`]) and this decodes: each may have another size, and one that can't be read
//! is left out and counted. When it came is when it is shown.

mod http;
mod mailbox;
mod published;

use std::{
    io::Cursor,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kadr_shared::{message::image::ImageReply, telemetry::chain};
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::mailbox::{Arrived, Mailbox};
pub use self::published::Published;
use super::{
    Access, Frame, Source, SourceError, image,
    live::{self, Came, Live, Losses, until},
    sniff::{self, Kind},
};
use crate::picture::Picture;

/// Where nothing has to come, this long is waited for at a time.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// Images of one session.
pub struct ImageStream {
    runtime: Handle,
    stop: CancellationToken,
    mailbox: Mailbox,
    /// Receives them; ends with the session.
    receiver: JoinHandle<()>,
    /// The longest silence; none: nobody has to send anything.
    idle: Option<Duration>,
    /// Who is told what became of an image.
    client: Option<async_nats::Client>,
    /// The first picture, read while the session was made.
    first: Option<(Arrived, Picture)>,
    /// Whose number is not known yet.
    unanswered: Option<async_nats::Subject>,
    began: Option<Instant>,
    /// Since when a picture is waited for, and why the last image was none.
    waiting: Option<(Instant, Option<SourceError>)>,
    given: u64,
    busy: Arc<AtomicU64>,
    unreadable: u64,
}

impl ImageStream {
    /// Connects to a camera that sends images over HTTP, and waits for the first one. Blocks; `stop` ends it early.
    pub fn http(access: &Access, runtime: Handle, stop: CancellationToken) -> Result<Self, SourceError> {
        let answer = access.deadlines.answer;
        let answered = until(&runtime, &stop, answer, http::connect(access)).ok_or(SourceError::Stopped)?;
        let answered = answered.unwrap_or(Err(SourceError::Silent { what: "answer", after: answer }))?;
        let (mailbox, busy) = (Mailbox::default(), Arc::<AtomicU64>::default());
        let receiver = runtime.spawn(http::receive(answered, mailbox.clone(), busy.clone()));
        let mut stream = Self::new(runtime, stop, mailbox, receiver, busy);
        stream.idle = Some(access.deadlines.idle);
        loop {
            stream.first = stream.next_picture(Some(access.deadlines.first_frame))?;
            if stream.first.is_some() {
                return Ok(stream);
            }
        }
    }

    /// Begins to listen for images that somebody sends. Does not wait for any.
    pub fn published(from: &Published, runtime: Handle, stop: CancellationToken) -> Result<Self, SourceError> {
        let deadline = published::DEADLINE;
        let subscribed = until(&runtime, &stop, deadline, from.subscribe()).ok_or(SourceError::Stopped)?;
        let subscriber =
            subscribed.unwrap_or_else(|| Err(SourceError::Session { what: "NATS does not answer".into() }))?;
        let (mailbox, busy) = (Mailbox::default(), Arc::<AtomicU64>::default());
        let receiver = runtime.spawn(from.clone().receive(subscriber, mailbox.clone(), busy.clone()));
        let mut stream = Self::new(runtime, stop, mailbox, receiver, busy);
        stream.client = from.answers().cloned();
        Ok(stream)
    }

    fn new(
        runtime: Handle,
        stop: CancellationToken,
        mailbox: Mailbox,
        receiver: JoinHandle<()>,
        busy: Arc<AtomicU64>,
    ) -> Self {
        Self {
            runtime,
            stop,
            mailbox,
            receiver,
            idle: None,
            client: None,
            first: None,
            unanswered: None,
            began: None,
            waiting: None,
            given: 0,
            busy,
            unreadable: 0,
        }
    }

    /// The next one; none: it can't be read. An error if there was none that can be for so long.
    fn next_picture(&mut self, deadline: Option<Duration>) -> Result<Option<(Arrived, Picture)>, SourceError> {
        let (since, last) = self.waiting.take().unwrap_or_else(|| (Instant::now(), None));
        let left = deadline.map_or(FOR_EVER, |deadline| deadline.saturating_sub(since.elapsed()));
        // Also where others like it wait already.
        if left.is_zero()
            && let Some(why) = last
        {
            return Err(SourceError::NoImage { source: Box::new(why) });
        }
        let next = until(&self.runtime, &self.stop, left, self.mailbox.next()).ok_or(SourceError::Stopped)?;
        let mut arrived = match (next, deadline) {
            (Some(next), _) => next?,
            (None, None) => return Ok(None),
            (None, Some(after)) => {
                let silent = SourceError::Silent { what: "send an image", after };
                return Err(last.map_or(silent, |why| SourceError::NoImage { source: Box::new(why) }));
            }
        };
        match decode(&arrived.body) {
            Ok(picture) => Ok(Some((arrived, picture))),
            Err(error) => {
                debug!(error = chain(&error), "an image can't be read");
                self.unreadable += 1;
                self.answer(arrived.reply.take(), &ImageReply::Unreadable { error: chain(&error) });
                self.waiting = Some((since, Some(error)));
                Ok(None)
            }
        }
    }

    fn answer(&self, to: Option<async_nats::Subject>, reply: &ImageReply) {
        if let (Some(client), Some(to)) = (&self.client, to) {
            published::answer(&self.runtime, client, to, reply);
        }
    }
}

impl Source for ImageStream {
    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        live::next_frame(self)
    }
}

impl Live for ImageStream {
    fn rate(&self) -> Option<f64> {
        None
    }

    fn receive(&mut self, _wanted: bool) -> Result<Came, SourceError> {
        let next = match self.first.take() {
            Some(first) => Some(first),
            None => self.next_picture(self.idle)?,
        };
        let Some((mut arrived, picture)) = next else { return Ok(Came::Nothing) };
        self.unanswered = arrived.reply.take();
        let began = *self.began.get_or_insert(arrived.at);
        let number = self.given;
        self.given += 1;
        let pts_ms = arrived.at.saturating_duration_since(began).as_secs_f64() * 1000.0;
        Ok(Came::Frame(Frame { number, pts_ms, captured_at: arrived.taken, picture }))
    }

    fn losses(&mut self) -> Losses {
        let busy = self.busy.swap(0, Ordering::Relaxed);
        Losses { busy, unreadable: std::mem::take(&mut self.unreadable) }
    }

    fn numbered(&mut self, number: u64) {
        let to = self.unanswered.take();
        self.answer(to, &ImageReply::Taken { frame: number });
    }
}

impl Drop for ImageStream {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}

/// A JPEG or a PNG, by what it holds.
fn decode(body: &[u8]) -> Result<Picture, SourceError> {
    let mut reader = Cursor::new(body);
    match sniff::kind(&mut reader)? {
        Kind::Image(format) => image::decode(reader, format),
        Kind::Mp4 | Kind::Matroska | Kind::AnnexB => Err(SourceError::NotAnImage { found: "a video" }),
    }
}
