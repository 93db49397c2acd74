//! A picture of live video on its way to viewers: one coded picture as the body, everything else in headers.
//!
//! The body is one access unit of H.264: NAL units, each behind its length in four bytes. A key frame's begins with its
//! parameter sets, so that whoever comes in there can decode. How it is packed for a player is not told here.

use std::{fmt::Display, str::FromStr};

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{geometry::Size, id::RunId, time::Timestamp};

/// A coded picture, and when and where it belongs.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessUnit {
    pub run: RunId,
    /// Another encoder, another number: its parameter sets and its size are its own.
    pub stream: u64,
    /// Key frames so far, this one included. It goes on from one encoder to the next, so that it names a part of the video
    /// whoever packs it.
    pub group: u64,
    /// It needs no other picture.
    pub key: bool,
    /// When it is shown, in milliseconds after the run's first frame.
    pub pts_ms: f64,
    /// When it was taken.
    pub captured_at: Timestamp,
    /// Of the picture, both sides even.
    pub size: Size,
    pub body: Bytes,
}

/// Said by whoever shows a scenario's video, for as long as somebody watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// As H.264.
    #[serde(default)]
    pub video: bool,
    /// As JPEG images.
    #[serde(default)]
    pub images: bool,
    /// Somebody came new: a key frame is wanted.
    #[serde(default)]
    pub key: bool,
}

/// A message of video that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VideoError {
    #[error("the picture has no header {0}")]
    Missing(&'static str),
    #[error("the picture's header {0} can't be read")]
    Bad(&'static str),
}

const RUN: &str = "Kadr-Run";
const STREAM: &str = "Kadr-Stream";
const GROUP: &str = "Kadr-Group";
const KEY: &str = "Kadr-Key";
const PTS_MS: &str = "Kadr-Pts-Ms";
const CAPTURED_AT: &str = "Kadr-Captured-At";
const SIZE: &str = "Kadr-Size";

/// Bytes before each NAL unit.
pub const NAL_LENGTH: usize = 4;
/// Types of NAL unit (ITU-T H.264, table 7-1).
const SPS: u8 = 7;
const PPS: u8 = 8;

impl AccessUnit {
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &dyn Display| headers.insert(name, value.to_string());
        put(RUN, &self.run);
        put(STREAM, &self.stream);
        put(GROUP, &self.group);
        put(KEY, &u8::from(self.key));
        put(PTS_MS, &self.pts_ms);
        put(CAPTURED_AT, &self.captured_at);
        put(SIZE, &self.size);
        headers
    }

    pub fn parse(headers: &HeaderMap, body: Bytes) -> Result<Self, VideoError> {
        fn read<T: FromStr>(headers: &HeaderMap, name: &'static str) -> Result<T, VideoError> {
            let text = headers.get(name).ok_or(VideoError::Missing(name))?;
            text.as_str().parse().map_err(|_| VideoError::Bad(name))
        }
        let pts_ms: f64 = read(headers, PTS_MS)?;
        if !(0.0..1e15).contains(&pts_ms) {
            return Err(VideoError::Bad(PTS_MS));
        }
        Ok(Self {
            run: read(headers, RUN)?,
            stream: read(headers, STREAM)?,
            group: read(headers, GROUP)?,
            key: read::<u8>(headers, KEY)? == 1,
            pts_ms,
            captured_at: read(headers, CAPTURED_AT)?,
            size: read(headers, SIZE)?,
            body,
        })
    }

    /// Its NAL units, without their lengths. One that is cut off ends them.
    pub fn nals(&self) -> impl Iterator<Item = &[u8]> {
        nals(&self.body)
    }

    /// Its sequence and picture parameter sets, if it brings both.
    pub fn parameter_sets(&self) -> Option<(&[u8], &[u8])> {
        let find = |wanted| self.nals().find(|nal| nal.first().is_some_and(|head| head & 0x1f == wanted));
        Some((find(SPS)?, find(PPS)?))
    }
}

/// The NAL units of a body, each behind its length in [`NAL_LENGTH`] bytes.
pub fn nals(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_at_checked(NAL_LENGTH)?;
        let length = length.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
        let (nal, behind) = behind.split_at_checked(length)?;
        rest = behind;
        Some(nal)
    })
}

/// Appends a NAL unit to a body.
pub fn push_nal(body: &mut Vec<u8>, nal: &[u8]) {
    // A NAL unit of 4 GB is beyond every level.
    body.extend(u32::try_from(nal.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend(nal);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> AccessUnit {
        let mut body = Vec::new();
        [&[0x67, 1, 2, 3][..], &[0x68, 4], &[0x65, 5, 6]].iter().for_each(|nal| push_nal(&mut body, nal));
        AccessUnit {
            run: RunId::from_u128(7),
            stream: 9,
            group: 3,
            key: true,
            pts_ms: 40.5,
            captured_at: Timestamp::from_millis(5),
            size: "1280x720".parse().unwrap(),
            body: body.into(),
        }
    }

    #[test]
    fn a_picture_comes_back() {
        let unit = unit();
        assert_eq!(AccessUnit::parse(&unit.headers(), unit.body.clone()).unwrap(), unit);
        assert_eq!(unit.parameter_sets(), Some((&[0x67, 1, 2, 3][..], &[0x68, 4][..])));
        assert_eq!(unit.nals().count(), 3);
    }

    #[test]
    fn what_is_cut_off_or_wrong_does_no_harm() {
        let whole = unit();
        let cut = AccessUnit { body: whole.body.slice(..whole.body.len() - 1), ..whole.clone() };
        assert_eq!(cut.nals().count(), 2);
        let mut headers = whole.headers();
        headers.insert(PTS_MS, "NaN");
        assert_eq!(AccessUnit::parse(&headers, Bytes::new()), Err(VideoError::Bad(PTS_MS)));
        assert_eq!(AccessUnit::parse(&HeaderMap::new(), Bytes::new()), Err(VideoError::Missing(PTS_MS)));
    }
}
