//! A few seconds of recorded video: one message, so that it is there whole or not at all.
//!
//! The headers tell what it holds, so that a list of what there is needs no video. The body is the length of an index in four
//! bytes, the index as JSON, and the pictures one after another, as [`AccessUnit`]s have them.

use std::{fmt::Display, str::FromStr};

use async_nats::HeaderMap;
use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use super::video::AccessUnit;
use crate::{geometry::Size, id::RunId, time::Timestamp};

/// What a recorded message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// When its first and its last picture were taken.
    pub from: Timestamp,
    pub to: Timestamp,
}

/// A recorded message that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("the recording has no header {0}, or one that can't be read")]
    Header(&'static str),
    #[error("the recording's index can't be read")]
    Index(#[from] serde_json::Error),
    #[error("the recording is shorter than its index says")]
    Short,
}

const FROM: &str = "Kadr-From";
const TO: &str = "Kadr-To";

#[derive(Serialize, Deserialize)]
struct Index {
    run: RunId,
    stream: u64,
    group: u64,
    width: u32,
    height: u32,
    pictures: Vec<Picture>,
}

#[derive(Serialize, Deserialize)]
struct Picture {
    bytes: usize,
    key: bool,
    pts_ms: f64,
    captured_at: Timestamp,
}

impl Span {
    /// Of pictures in the order in which they are coded. `None`: there are none.
    pub fn of(units: &[AccessUnit]) -> Option<Self> {
        let times = || units.iter().map(|unit| unit.captured_at);
        Some(Self { from: times().min()?, to: times().max()? })
    }

    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &dyn Display| headers.insert(name, value.to_string());
        put(FROM, &self.from);
        put(TO, &self.to);
        headers
    }

    pub fn parse(headers: &HeaderMap) -> Result<Self, RecordingError> {
        let read = |name: &'static str| {
            let text = headers.get(name).ok_or(RecordingError::Header(name))?;
            Timestamp::from_str(text.as_str()).map_err(|_| RecordingError::Header(name))
        };
        Ok(Self { from: read(FROM)?, to: read(TO)? })
    }
}

/// The body of a message that holds these pictures, which are of one encoder and begin with a key frame. `None`: there are none.
pub fn pack(units: &[AccessUnit]) -> Result<Option<Bytes>, RecordingError> {
    let Some(first) = units.first() else { return Ok(None) };
    let picture = |unit: &AccessUnit| Picture {
        bytes: unit.body.len(),
        key: unit.key,
        pts_ms: unit.pts_ms,
        captured_at: unit.captured_at,
    };
    let index = serde_json::to_vec(&Index {
        run: first.run,
        stream: first.stream,
        group: first.group,
        width: first.size.width,
        height: first.size.height,
        pictures: units.iter().map(picture).collect(),
    })?;
    let mut body = Vec::with_capacity(4 + index.len() + units.iter().map(|unit| unit.body.len()).sum::<usize>());
    body.extend(u32::try_from(index.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend(index);
    units.iter().for_each(|unit| body.extend_from_slice(&unit.body));
    Ok(Some(body.into()))
}

/// The pictures of a message.
pub fn unpack(mut body: Bytes) -> Result<Vec<AccessUnit>, RecordingError> {
    let take = |body: &mut Bytes, length: usize| {
        if body.len() < length { Err(RecordingError::Short) } else { Ok(body.split_to(length)) }
    };
    let length = take(&mut body, 4)?.get_u32();
    let index = take(&mut body, usize::try_from(length).unwrap_or(usize::MAX))?;
    let Index { run, stream, group, width, height, pictures } = serde_json::from_slice(&index)?;
    let size = Size { width, height };
    let unit = |Picture { bytes, key, pts_ms, captured_at }: Picture| {
        let body = take(&mut body, bytes)?;
        Ok(AccessUnit { run, stream, group, key, pts_ms, captured_at, size, body })
    };
    pictures.into_iter().map(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units() -> Vec<AccessUnit> {
        let unit = |n: u8| AccessUnit {
            run: RunId::from_u128(7),
            stream: 9,
            group: 3,
            key: n == 0,
            pts_ms: f64::from(n) * 40.0,
            captured_at: Timestamp::from_millis(i64::from(n) * 40),
            size: "64x32".parse().unwrap(),
            body: vec![n; usize::from(n) + 1].into(),
        };
        (0..3).map(unit).collect()
    }

    #[test]
    fn what_is_packed_comes_back() {
        let units = units();
        let span = Span::of(&units).unwrap();
        assert_eq!(Span::parse(&span.headers()).unwrap(), span);
        assert_eq!(span.to.since(span.from).as_millis(), 80);
        assert_eq!(unpack(pack(&units).unwrap().unwrap()).unwrap(), units);
        assert!(pack(&[]).unwrap().is_none());
    }

    #[test]
    fn what_is_cut_off_is_told() {
        let whole = pack(&units()).unwrap().unwrap();
        for length in [0, 3, 10, whole.len() - 1] {
            assert!(unpack(whole.slice(..length)).is_err(), "{length}");
        }
        assert!(unpack(Bytes::from_static(&[255; 8])).is_err());
    }
}
