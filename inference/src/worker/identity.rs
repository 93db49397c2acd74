//! Whose frame it is: enough to send an answer to, even where the rest of a frame's headers can't be read.

use std::str::FromStr;

use async_nats::HeaderMap;
use kadr_shared::{
    id::{RunId, ScenarioId},
    message::frame::FrameHeader,
};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Identity {
    pub(super) scenario: ScenarioId,
    pub(super) run: RunId,
    pub(super) fence: u64,
    pub(super) frame: u64,
}

impl Identity {
    pub(super) fn of(header: &FrameHeader) -> Self {
        Self { scenario: header.scenario.clone(), run: header.run, fence: header.fence, frame: header.frame }
    }

    /// `None`: nobody can be answered.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        fn get<T: FromStr>(headers: &HeaderMap, name: &'static str) -> Option<T> {
            headers.get(name)?.as_str().parse().ok()
        }
        Some(Self {
            scenario: get(headers, "Kadr-Scenario")?,
            run: get(headers, "Kadr-Run")?,
            fence: get(headers, "Kadr-Fence")?,
            frame: get(headers, "Kadr-Frame")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::{message::frame::Colour, settings::Ratio, time::Timestamp};

    use super::*;

    #[test]
    fn what_a_sender_writes_is_read_even_if_nothing_else_can_be() {
        let header = FrameHeader {
            scenario: "gate".parse().unwrap(),
            run: RunId::from_u128(7),
            fence: 9,
            frame: 3,
            pts_ms: 0.0,
            captured_at: Timestamp::default(),
            source: "64x32".parse().unwrap(),
            input: "64x32".parse().unwrap(),
            colour: Colour::default(),
            confidence: Ratio::new(0.25).unwrap(),
            iou: Ratio::new(0.7).unwrap(),
            class_agnostic: false,
            classes: Vec::new(),
            patience: None,
        };
        let mut headers = header.to_headers();
        assert_eq!(Identity::read(&headers), Some(Identity::of(&header)));
        headers.insert("Kadr-Format", "png");
        assert!(FrameHeader::parse(&headers, &[]).is_err());
        assert_eq!(Identity::read(&headers), Some(Identity::of(&header)));
        headers.insert("Kadr-Run", "x");
        assert_eq!(Identity::read(&headers), None);
    }
}
