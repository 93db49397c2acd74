//! `/v1/scenarios/{id}/live…`: the same video as the camera's, with every object marked, as players and browsers take it.
//!
//! How it is read and packed is in [`video`](crate::video); here are the addresses, and what is said when there is none.

mod page;

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use kadr_shared::{
    id::{RunId, ScenarioId},
    message::video::AccessUnit,
};
use poem::Body;
use poem_openapi::{
    ApiResponse, OpenApi,
    param::Path,
    payload::{Binary, Html, PlainText},
};
use tokio::time::timeout;
use tracing::debug;

use super::{Part, Services, answers::VideoProblems, params::IdParam, pump::pumped};
use crate::{
    problem::{Failure, Problem, ProblemName},
    video::{
        Viewer, fmp4, hls,
        presence::{self, FIRST_PICTURE, SILENCE, ending, while_it_runs},
    },
};

/// What separates images. It is in none.
const BOUNDARY: &str = "kadr-image";

pub(super) struct VideoApi {
    pub(super) services: Arc<Services>,
}

#[derive(ApiResponse)]
enum Mp4Answer {
    /// Fragmented MP4 with H.264, a fragment a picture, for as long as the scenario runs.
    #[oai(status = 200, content_type = "video/mp4")]
    Video(Binary<Body>, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum ImagesAnswer {
    /// JPEG images, each replacing the one before.
    #[oai(status = 200, content_type = "multipart/x-mixed-replace; boundary=kadr-image")]
    Images(Binary<Body>, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum PlaylistAnswer {
    /// A playlist of the last seconds.
    #[oai(status = 200, content_type = "application/vnd.apple.mpegurl")]
    List(PlainText<String>, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum SegmentAnswer {
    /// A part that the playlist names.
    #[oai(status = 200, content_type = "video/mp4")]
    Part(Binary<Vec<u8>>, #[oai(header = "Cache-Control")] String),
}

fn no_store() -> String {
    "no-store".to_owned()
}

#[OpenApi(tag = "Part::Video")]
impl VideoApi {
    /// A page that plays the video
    #[oai(path = "/v1/scenarios/:id/live", method = "get", operation_id = "live_page")]
    async fn page(&self, id: Path<IdParam>) -> Result<Html<String>, Failure<VideoProblems>> {
        let Path(IdParam(id)) = id;
        self.runs(&id).await?;
        Ok(Html(page::of(&id)))
    }

    /// The video with little delay, in one answer
    ///
    /// For Media Source Extensions, ffplay, mpv. It begins with this moment.
    #[oai(path = "/v1/scenarios/:id/live.mp4", method = "get", operation_id = "live_mp4")]
    async fn mp4(&self, id: Path<IdParam>) -> Result<Mp4Answer, Failure<VideoProblems>> {
        let Path(IdParam(id)) = id;
        self.runs(&id).await?;
        let mut viewer = self.services.hub.watch(&id);
        let Ok(first) = timeout(FIRST_PICTURE, viewer.next()).await else {
            return Err(self.no_picture(&id).await.into());
        };
        let first = first.ok_or_else(ending)?;
        let (services, run) = (self.services.clone(), first.run);
        let packer = Packer { next: Some(first), viewer, services, id, run, shown: None, number: 0 };
        let fragments = futures::stream::unfold(packer, |mut packer| async move {
            let bytes = packer.next().await?;
            Some((bytes, packer))
        });
        Ok(Mp4Answer::Video(Binary(self.body(fragments)), no_store()))
    }

    /// The video as a playlist of segments (HLS)
    ///
    /// For every player and Safari; some seconds behind.
    #[oai(path = "/v1/scenarios/:id/live.m3u8", method = "get", operation_id = "live_hls")]
    async fn playlist(&self, id: Path<IdParam>) -> Result<PlaylistAnswer, Failure<VideoProblems>> {
        let Path(IdParam(id)) = id;
        self.runs(&id).await?;
        let channel = self.services.hub.channel(&id);
        channel.list();
        match channel.wait_for(FIRST_PICTURE, hls::playlist).await {
            Some(list) => Ok(PlaylistAnswer::List(PlainText(list), no_store())),
            None => Err(self.no_picture(&id).await.into()),
        }
    }

    /// A part of the playlist
    #[oai(path = "/v1/scenarios/:id/live/:part", method = "get", operation_id = "live_hls_part")]
    async fn part(
        &self,
        id: Path<IdParam>,
        /// As the playlist names it.
        part: Path<String>,
    ) -> Result<SegmentAnswer, Failure<VideoProblems>> {
        let Path(IdParam(id)) = id;
        let gone = || Problem::new(ProblemName::NotFound, "there is no such part any more: read the playlist again");
        let part = hls::Part::parse(&part.0).ok_or_else(gone)?;
        self.runs(&id).await?;
        let channel = self.services.hub.channel(&id);
        channel.list();
        // Another API may have listed it a moment ago.
        let packed = channel.wait_for(SILENCE, |units| part.pack(units)).await.ok_or_else(gone)?;
        let bytes = packed.map_err(|error| {
            debug!(scenario = %id, %error, "a segment can't be packed");
            gone()
        })?;
        Ok(SegmentAnswer::Part(Binary(bytes), "max-age=60".to_owned()))
    }

    /// The video as JPEG images (MJPEG)
    ///
    /// For `<img>`, and whatever knows nothing else. It takes many times the bytes.
    #[oai(path = "/v1/scenarios/:id/live.mjpeg", method = "get", operation_id = "live_mjpeg")]
    async fn images(&self, id: Path<IdParam>) -> Result<ImagesAnswer, Failure<VideoProblems>> {
        let Path(IdParam(id)) = id;
        self.runs(&id).await?;
        let images = self.services.hub.watch_images(&id).await;
        let mut images = images
            .map_err(|error| Problem::new(ProblemName::Unavailable, format!("can't listen for images: {error}")))?;
        let Ok(first) = timeout(FIRST_PICTURE, images.next()).await else {
            return Err(self.no_picture(&id).await.into());
        };
        let first = part_of(&first.ok_or_else(ending)?);
        let begin = [Bytes::from(format!("--{BOUNDARY}\r\n")), first];
        let viewer = (images, self.services.clone(), id);
        let later = futures::stream::unfold(viewer, |(mut images, services, id)| async {
            let image = while_it_runs(&services.model, &id, images.next()).await??;
            Some((part_of(&image), (images, services, id)))
        });
        Ok(ImagesAnswer::Images(Binary(self.body(futures::stream::iter(begin).chain(later))), no_store()))
    }
}

/// An image with what stands before and behind it.
fn part_of(image: &Bytes) -> Bytes {
    let head = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", image.len());
    let end = format!("\r\n--{BOUNDARY}\r\n");
    [head.as_bytes(), image, end.as_bytes()].concat().into()
}

/// Packs picture after picture.
struct Packer {
    next: Option<Arc<AccessUnit>>,
    viewer: Viewer,
    services: Arc<Services>,
    id: ScenarioId,
    /// Another run's times begin anew: it is another video.
    run: RunId,
    /// The encoder and the time of the picture before, and how long that one was shown, in ticks.
    shown: Option<(u64, u64, u64)>,
    number: u32,
}

/// How long the first picture is taken to be shown, in ticks: nobody knows yet. A twenty-fifth of a second.
const FIRST_SHOWN: u64 = 3_600;
/// No picture is taken to be shown longer, in ticks: a second.
const LONGEST_SHOWN: u64 = 90_000;

impl Packer {
    async fn next(&mut self) -> Option<Bytes> {
        let unit = match self.next.take() {
            Some(unit) => unit,
            None => while_it_runs(&self.services.model, &self.id, self.viewer.next()).await??,
        };
        if unit.run != self.run {
            return None;
        }
        let at = fmp4::ticks(unit.pts_ms);
        let before = self.shown.filter(|(stream, ..)| *stream == unit.stream);
        // A picture goes out as it comes, before it is known how long it is shown: as long as the one before, it seems.
        let span = before.map_or(FIRST_SHOWN, |(_, then, _)| at.saturating_sub(then).clamp(1, LONGEST_SHOWN));
        let mut bytes = Vec::new();
        if before.is_none() {
            match fmp4::beginning(&unit) {
                Ok(beginning) => bytes = beginning,
                Err(error) => {
                    debug!(scenario = %self.id, %error, "a video can't begin");
                    return Some(Bytes::new());
                }
            }
        }
        self.shown = Some((unit.stream, at, span));
        self.number = self.number.wrapping_add(1);
        match fmp4::fragment(&[unit], self.number, at + span) {
            Ok(fragment) => bytes.extend(fragment),
            Err(error) => debug!(scenario = %self.id, %error, "a picture can't be packed"),
        }
        Some(bytes.into())
    }
}

impl VideoApi {
    /// For as long as the caller takes it.
    fn body(&self, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
        let pieces = pumped(pieces, self.services.closing.clone());
        Body::from_bytes_stream(pieces.map(Ok::<_, std::io::Error>))
    }

    async fn runs(&self, id: &ScenarioId) -> Result<(), Problem> {
        presence::runs(&self.services.model, id).await
    }

    async fn no_picture(&self, id: &ScenarioId) -> Problem {
        presence::no_picture(&self.services.model, &self.services.live, id).await
    }
}
