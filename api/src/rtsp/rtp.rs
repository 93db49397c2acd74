//! Pictures as packets (RTP, RFC 3550; H.264 by RFC 6184 with packetization-mode=1), each behind the four bytes that set it
//! apart within the connection (RFC 2326, section 10.12).
//!
//! Pure: what is sent, and when, is decided elsewhere.

use kadr_shared::message::video::AccessUnit;

use super::{framer::INTERLEAVED, transport::Channel};

/// Of all payload types that may mean anything, the one that most servers take.
pub(super) const PAYLOAD_TYPE: u8 = 96;
/// Ticks a second (RFC 6184, section 8.2.1).
pub(super) const CLOCK: u32 = 90_000;
/// The most bytes of a packet's payload, so that whoever sends them on by UDP need not cut them.
const MOST_PAYLOAD: usize = 1_400;
/// Of a NAL unit's first byte: how much it matters; its type.
const REFERENCE: u8 = 0x60;
const KIND: u8 = 0x1f;
/// The types of NAL unit that a picture is made of; others are packets' own.
const KINDS: std::ops::RangeInclusive<u8> = 1..=23;
/// The type of a packet that holds a part of a NAL unit, and the marks of its first and its last one.
const PART: u8 = 28;
const FIRST: u8 = 0x80;
const LAST: u8 = 0x40;
const VERSION: u8 = 0x80;
/// Of the last packet of a picture.
const MARKER: u8 = 0x80;

/// What one viewer was sent, and what its next packet is numbered.
#[derive(Debug)]
pub(super) struct Packetizer {
    channel: Channel,
    ssrc: u32,
    sequence: u16,
    packets: u32,
    /// Of payload. Both counts go round, as reports have it.
    octets: u32,
}

impl Packetizer {
    pub(super) const fn new(channel: Channel, ssrc: u32, sequence: u16) -> Self {
        Self { channel, ssrc, sequence, packets: 0, octets: 0 }
    }

    pub(super) const fn channel(&self) -> Channel {
        self.channel
    }

    pub(super) const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Of the next packet.
    pub(super) const fn sequence(&self) -> u16 {
        self.sequence
    }

    /// Packets sent so far, and bytes of their payload.
    pub(super) const fn sent(&self) -> (u32, u32) {
        (self.packets, self.octets)
    }

    /// Appends a picture's packets, all with one timestamp.
    pub(super) fn pack(&mut self, unit: &AccessUnit, timestamp: u32, out: &mut Vec<u8>) {
        let of_pictures = |nal: &&[u8]| nal.first().is_some_and(|head| KINDS.contains(&(head & KIND)));
        let mut nals = unit.nals().filter(of_pictures).peekable();
        while let Some(nal) = nals.next() {
            let end = nals.peek().is_none();
            if nal.len() <= MOST_PAYLOAD {
                self.packet(&[], nal, end, timestamp, out);
                continue;
            }
            let (head, kind) = (nal[0], nal[0] & KIND);
            let mut parts = nal[1..].chunks(MOST_PAYLOAD - 2).peekable();
            let mut mark = FIRST;
            while let Some(part) = parts.next() {
                let last = parts.peek().is_none();
                let header = if last { mark | LAST | kind } else { mark | kind };
                self.packet(&[head & REFERENCE | PART, header], part, end && last, timestamp, out);
                mark = 0;
            }
        }
    }

    fn packet(&mut self, head: &[u8], payload: &[u8], marker: bool, timestamp: u32, out: &mut Vec<u8>) {
        // Bounded by what a payload may be.
        let length = u16::try_from(12 + head.len() + payload.len()).unwrap_or(u16::MAX);
        out.extend([INTERLEAVED, self.channel.video()]);
        out.extend(length.to_be_bytes());
        out.extend([VERSION, PAYLOAD_TYPE | if marker { MARKER } else { 0 }]);
        out.extend(self.sequence.to_be_bytes());
        out.extend(timestamp.to_be_bytes());
        out.extend(self.ssrc.to_be_bytes());
        out.extend(head);
        out.extend(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::from(length - 12));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::testing::*, *};

    struct Packet {
        marker: bool,
        sequence: u16,
        timestamp: u32,
        payload: Vec<u8>,
    }

    /// Takes apart what goes over the connection.
    fn packets(mut bytes: &[u8], channel: u8) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let [b'$', on, high, low, rest @ ..] = bytes {
            assert_eq!(*on, channel);
            let (packet, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            assert_eq!((packet[0], packet[1] & 0x7f, &packet[8..12]), (0x80, 96, &[0, 0, 0, 9][..]));
            packets.push(Packet {
                marker: packet[1] & 0x80 != 0,
                sequence: u16::from_be_bytes([packet[2], packet[3]]),
                timestamp: u32::from_be_bytes(packet[4..8].try_into().unwrap()),
                payload: packet[12..].to_vec(),
            });
            bytes = rest;
        }
        assert!(bytes.is_empty());
        packets
    }

    /// NAL units of packets, as RFC 6184 says that they are put together.
    fn nals(packets: &[Packet]) -> Vec<Vec<u8>> {
        let mut nals: Vec<Vec<u8>> = Vec::new();
        let mut open = false;
        for Packet { payload, .. } in packets {
            if payload[0] & 0x1f != 28 {
                assert!(!open);
                nals.push(payload.clone());
                continue;
            }
            let (first, last) = (payload[1] & 0x80 != 0, payload[1] & 0x40 != 0);
            assert!(first != open && !(first && last), "a part begins, goes on or ends");
            if first {
                nals.push(vec![payload[0] & 0xe0 | payload[1] & 0x1f]);
            }
            nals.last_mut().unwrap().extend(&payload[2..]);
            open = !last;
        }
        assert!(!open);
        nals
    }

    fn packetizer(sequence: u16) -> Packetizer {
        Packetizer::new(Channel::asked_for("RTP/AVP/TCP;interleaved=2-3").unwrap(), 9, sequence)
    }

    fn nal(head: u8, length: usize) -> Vec<u8> {
        let mut nal: Vec<u8> = (0..length).map(|n| n as u8).collect();
        nal[0] = head;
        nal
    }

    #[test]
    fn a_long_nal_unit_goes_in_parts_and_the_last_packet_is_marked() {
        let mut out = Vec::new();
        let unit = key_frame(&[nal(0x65, 3_000)]);
        let mut packetizer = packetizer(u16::MAX - 1);
        packetizer.pack(&unit, 1234, &mut out);
        let packets = packets(&out, 2);
        let lengths: Vec<_> = packets.iter().map(|packet| packet.payload.len()).collect();
        assert_eq!(lengths, [SPS.len(), PPS.len(), 1_400, 1_400, 2_999 - 2 * 1_398 + 2]);
        assert_eq!(packets.iter().map(|p| p.sequence).collect::<Vec<_>>(), [u16::MAX - 1, u16::MAX, 0, 1, 2]);
        assert_eq!(packets.iter().map(|p| p.marker).collect::<Vec<_>>(), [false, false, false, false, true]);
        assert!(packets.iter().all(|packet| packet.timestamp == 1234));
        assert_eq!(&packets[2].payload[..2], [0x7c, 0x85]);
        assert_eq!(packetizer.sent(), (5, lengths.iter().sum::<usize>() as u32));
    }

    #[test]
    fn what_is_no_nal_unit_of_a_picture_is_left_out() {
        let mut out = Vec::new();
        packetizer(0).pack(&picture(&[vec![], nal(0x41, 3), nal(0x1c, 5), nal(0, 5)]), 0, &mut out);
        let packets = packets(&out, 2);
        assert_eq!(nals(&packets), [nal(0x41, 3)]);
        assert!(packets[0].marker, "the last one that is sent");
    }

    proptest! {
        #[test]
        fn nal_units_come_back(
            given in prop::collection::vec((0_u8..4, 1_u8..=23, 1_usize..6_000), 1..6),
            sequence: u16,
            timestamp: u32,
        ) {
            let given: Vec<_> = given.iter().map(|&(matters, kind, length)| nal(matters << 5 | kind, length)).collect();
            let mut out = Vec::new();
            packetizer(sequence).pack(&picture(&given), timestamp, &mut out);
            let packets = packets(&out, 2);
            prop_assert_eq!(nals(&packets), given);
            prop_assert!(packets.iter().all(|p| p.payload.len() <= MOST_PAYLOAD && p.timestamp == timestamp));
            let marked = packets.iter().filter(|packet| packet.marker).count();
            prop_assert!(marked == 1 && packets.last().is_some_and(|packet| packet.marker));
            let numbered = packets.iter().zip(0..).all(|(p, n)| p.sequence == sequence.wrapping_add(n));
            prop_assert!(numbered);
        }

        #[test]
        fn any_body_is_packed_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..4_000)) {
            let unit = AccessUnit { body: body.into(), ..picture(&[]) };
            let mut out = Vec::new();
            packetizer(0).pack(&unit, 0, &mut out);
            nals(&packets(&out, 2));
        }
    }
}
