//! What a player asks of the way that packets come to it (RFC 2326, section 12.39).

/// The channel for video packets; reports come on the one behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Channel(u8);

impl Channel {
    pub(super) const fn video(self) -> u8 {
        self.0
    }

    pub(super) const fn reports(self) -> u8 {
        self.0 + 1
    }

    /// The first way of those that a header names which is packets in this connection, if it names one.
    pub(super) fn asked_for(header: &str) -> Option<Self> {
        header.split(',').find_map(Self::of_one)
    }

    fn of_one(way: &str) -> Option<Self> {
        let mut parts = way.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case("RTP/AVP/TCP") {
            return None;
        }
        let mut channel = 0;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name.to_ascii_lowercase().as_str() {
                "interleaved" => channel = value.split('-').next()?.parse().ok()?,
                "multicast" => return None,
                "mode" if !value.trim_matches('"').eq_ignore_ascii_case("play") => return None,
                _ => {}
            }
        }
        // The next one must be there, too.
        (channel < u8::MAX).then_some(Self(channel))
    }

    /// As an answer says it.
    pub(super) fn header(self, ssrc: u32) -> String {
        let [video, reports] = [self.video(), self.reports()];
        format!("RTP/AVP/TCP;unicast;interleaved={video}-{reports};ssrc={ssrc:08X}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_way_within_the_connection_is_taken() {
        let of = |header: &str| Channel::asked_for(header).map(Channel::video);
        assert_eq!(of("RTP/AVP/TCP;unicast;interleaved=0-1"), Some(0));
        assert_eq!(
            of("RTP/AVP;unicast;client_port=5000-5001,RTP/AVP/TCP;unicast;interleaved=4-5;mode=\"PLAY\""),
            Some(4)
        );
        assert_eq!(of("rtp/avp/tcp ; interleaved=2"), Some(2));
        assert_eq!(of("RTP/AVP/TCP"), Some(0));
        for other in [
            "RTP/AVP;unicast;client_port=5000-5001",
            "RTP/AVP/UDP;unicast",
            "RTP/AVP/TCP;multicast",
            "RTP/AVP/TCP;interleaved=255-256",
            "RTP/AVP/TCP;interleaved=",
            "RTP/AVP/TCP;mode=RECORD",
            "RTP/AVP/TCP;mode=\"",
            ";;,=\"\\",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(Channel(0).header(0xab), "RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=000000AB");
    }
}
