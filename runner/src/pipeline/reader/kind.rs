//! The kinds of live sources, and how a session of each begins.

use kadr_shared::{nats::Nats, settings::SourceUrl, subjects};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::access;
use crate::{
    pipeline::{Job, stop::Stop},
    source::{Access, ImageStream, Live, Published, RtspSource, SourceError},
};

/// What is read.
pub(super) enum Kind {
    /// Its address may be that of a device which tells where.
    Rtsp(Access),
    /// Images over HTTP.
    Http(Access),
    /// Images on a subject of NATS.
    Published(Published),
}

impl Kind {
    /// The job's; none: it is a file.
    pub(super) async fn of(job: &Job, nats: &Nats) -> Result<Option<Self>, Stop> {
        let published = |subject, answered| Published { client: nats.client.clone(), subject, answered };
        Ok(Some(match &job.settings.source.url {
            SourceUrl::File(_) => return Ok(None),
            SourceUrl::Rtsp(url) | SourceUrl::Onvif(url) => Self::Rtsp(access(job, url, nats).await?),
            SourceUrl::Http(url) => Self::Http(access(job, url, nats).await?),
            SourceUrl::Push => Self::Published(published(subjects::pushed(&job.scenario), true)),
            SourceUrl::Nats(subject) => Self::Published(published(subject.clone(), false)),
        }))
    }

    /// Begins a session. Blocks; `stop` ends it early.
    pub(super) fn open(&self, runtime: Handle, stop: CancellationToken) -> Result<Box<dyn Live>, SourceError> {
        Ok(match self {
            Self::Rtsp(access) => Box::new(RtspSource::open(access, runtime, stop)?),
            Self::Http(access) => Box::new(ImageStream::http(access, runtime, stop)?),
            Self::Published(from) => Box::new(ImageStream::published(from, runtime, stop)?),
        })
    }
}
