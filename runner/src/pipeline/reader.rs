//! The reading end: a thread that opens the source, decodes, and scales for the model.
//!
//! A file waits for whoever takes its frames; a camera does not, and each is read in its own way.

mod backoff;
mod camera;
mod file;
mod kind;
mod pacer;
mod take;

use std::{sync::Arc, thread};

use bytes::Bytes;
use kadr_shared::{
    nats::Nats,
    onvif::Wish,
    secret::{self, SecretError},
    settings::{Fps, Record, Recorded, SourceUrl},
    telemetry::chain,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::DropGuard;
use url::Url;

use self::{camera::Camera, file::File, kind::Kind};
use super::{Job, stop::Stop, store::Store};
use crate::{
    archive::{Archive, Storing},
    live::Watchers,
    meter::Meter,
    preprocess::{Preprocessor, Seen, Selection},
    source::{Access, Deadlines, Frame, SourceInfo},
};

/// A frame, and its picture as the model takes it.
pub(super) struct Read {
    pub(super) frame: Frame,
    /// None: it is not to be analysed, or its result is stored already.
    pub(super) seen: Option<(Seen, Bytes)>,
    /// A camera's next frame is taken when this one is done with.
    pub(super) credit: Option<OwnedSemaphorePermit>,
}

/// What the thread says.
pub(super) enum Message {
    Frame(Box<Read>),
    /// A camera's frame that is not analysed: for those who look on.
    Passed {
        frame: Box<Frame>,
        /// What lets the next one come.
        _place: OwnedSemaphorePermit,
    },
    /// There are no more frames; the text tells what is missing.
    End(Option<String>),
    /// The camera is gone; it is tried again.
    Interrupted(String),
    Resumed,
    /// What it sends can't be read, and trying again would not help.
    Refused(String),
}

/// A source that is being read.
pub(super) struct Reader {
    /// Of a file that has an end; a camera's frames tell for themselves.
    pub(super) info: Option<SourceInfo>,
    pub(super) frames: mpsc::Receiver<Message>,
    /// Ends a camera's thread.
    _stop: Option<DropGuard>,
}

/// Begins to read a job's source, behind what is stored.
pub(super) async fn open(
    job: &Job,
    nats: &Nats,
    store: &Store,
    meter: &Arc<Meter>,
    watchers: &Arc<Watchers>,
    storing: &Storing,
) -> Result<Reader, Stop> {
    let preprocessor = Preprocessor::new(&job.settings.analysis, &job.settings.preprocess);
    let selection = Selection::new(&job.settings.preprocess);
    match &job.settings.source.url {
        SourceUrl::File(path) => {
            let file = File::new(path.clone(), &job.settings.source, store.frames());
            let (reader, info) = file.open(preprocessor, selection).await.map_err(Stop::for_good)?;
            meter.source(info.frames, info.frame_rate.hz(), store.frames());
            Ok(reader)
        }
        _ => {
            let Some(kind) = Kind::of(job, nats).await? else {
                return Err(Stop::for_good("no live source".to_owned()));
            };
            if records_untouched(job).is_some() && !matches!(kind, Kind::Rtsp(_)) {
                let error = "outputs.record.what is untouched, but only cameras by RTSP send video: choose annotated";
                return Err(Stop::for_good(error.to_owned()));
            }
            meter.earlier(store.frames());
            let camera = Camera {
                kind,
                selection,
                first: store.frames(),
                shown_from_ms: store.next_shown_ms(),
                inflight: job.limits.inflight,
                model: job.settings.model.clone(),
                workers: job.workers.clone(),
                meter: meter.clone(),
                watchers: watchers.clone(),
                run: job.run,
                archive: records_untouched(job)
                    .map(|record| Archive::open(nats.clone(), job.scenario.clone(), record, meter.clone(), storing)),
            };
            camera.open(preprocessor).map_err(Stop::for_good)
        }
    }
}

/// What is to be recorded of what a camera sends.
fn records_untouched(job: &Job) -> Option<Record> {
    job.settings.outputs.record.filter(|record| record.what == Recorded::Untouched)
}

/// How to get at a camera, its password included.
async fn access(job: &Job, url: &Url, nats: &Nats) -> Result<Access, Stop> {
    let source = &job.settings.source;
    let password = match (&source.secret, &job.secret_key) {
        (None, _) => String::new(),
        (Some(_), None) => {
            let error = "this runner has no key to read passwords with: give all APIs and runners the same \
                         secret_key_file (KADR_SECRET_KEY_FILE)";
            return Err(Stop::for_good(error.to_owned()));
        }
        (Some(name), Some(key)) => secret::read(nats, key, &job.scenario, name).await.map_err(|error| {
            let passes = matches!(error, SecretError::Silent | SecretError::Read(_));
            Stop::Failed { error: chain(&error), retry: passes }
        })?,
    };
    let keep_coded = records_untouched(job).is_some();
    let credentials = source.username.clone().map(|username| (username, password));
    let (transport, tls, deadlines) = (source.transport, source.tls, Deadlines::default());
    let wish = || Wish { size: source.size, fps: source.fps.map(Fps::get), profile: source.profile.clone() };
    let device = matches!(source.url, SourceUrl::Onvif(_)).then(wish);
    Ok(Access {
        url: url.clone(),
        credentials,
        transport,
        tls,
        quirks: source.quirks.clone(),
        deadlines,
        keep_coded,
        device,
    })
}

/// A thread of its own: decoding blocks for as long as the source lives.
fn spawn(read: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let spawned = thread::Builder::new().name("kadr-source".into()).spawn(read);
    spawned.map(drop).map_err(|error| format!("can't start a thread to read the source: {error}"))
}
