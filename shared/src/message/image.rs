//! Images that somebody sends to be analysed: the header beside them, and what their sender hears.

use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// When an image was taken (RFC 3339). Optional: without it the time counts when it came.
pub const CAPTURED_AT: &str = "Kadr-Captured-At";

/// What became of an image that was sent to a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageReply {
    /// It is the run's frame of this number. Whether there is room to analyse it is another thing.
    Taken { frame: u64 },
    /// It is no image, or a damaged one.
    Unreadable { error: String },
    /// Newer ones came before it could be decoded.
    Busy,
}

/// When an image was taken, if its header says so in a way that can be read.
pub fn captured_at(headers: &HeaderMap) -> Option<Timestamp> {
    headers.get(CAPTURED_AT)?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_read_from_the_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(captured_at(&headers), None);
        headers.insert(CAPTURED_AT, "2026-01-31T12:00:00.250Z");
        assert_eq!(captured_at(&headers).unwrap().to_string(), "2026-01-31T12:00:00.250Z");
        headers.insert(CAPTURED_AT, "yesterday");
        assert_eq!(captured_at(&headers), None);
    }
}
