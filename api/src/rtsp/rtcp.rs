//! What a viewer is told of the packets it is sent (RTCP, RFC 3550, section 6): the wall clock's time of a timestamp, counts,
//! and the end.

use kadr_shared::time::Timestamp;

use super::{framer::INTERLEAVED, rtp::Packetizer};

/// Types of packet.
const SENDER_REPORT: u8 = 200;
const DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
/// Version 2; and with one part.
const VERSION: u8 = 0x80;
const ONE: u8 = 1;
/// The part of a description that names the sender.
const NAME: u8 = 1;
/// From 1900 to 1970, in seconds.
const NTP_TO_UNIX: i64 = 2_208_988_800;

/// A timestamp, and when what bears it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) timestamp: u32,
    pub(super) taken: Timestamp,
}

/// Appends a report; `last`: and that nothing comes any more.
pub(super) fn report(packetizer: &Packetizer, at: Moment, last: bool, out: &mut Vec<u8>) {
    let ssrc = packetizer.ssrc().to_be_bytes();
    let (packets, octets) = packetizer.sent();
    let mut body = Vec::with_capacity(64);
    put(&mut body, 0, SENDER_REPORT, |body| {
        body.extend(ssrc);
        body.extend(ntp(at.taken).to_be_bytes());
        body.extend([at.timestamp, packets, octets].map(u32::to_be_bytes).as_flattened());
    });
    put(&mut body, ONE, DESCRIPTION, |body| {
        body.extend(ssrc);
        let name = format!("kadr-{:08x}", packetizer.ssrc());
        body.extend([NAME, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        body.extend(name.as_bytes());
        // At least one zero ends the list, and it ends at a whole word.
        body.push(0);
        body.resize(body.len().next_multiple_of(4), 0);
    });
    if last {
        put(&mut body, ONE, BYE, |body| body.extend(ssrc));
    }
    out.extend([INTERLEAVED, packetizer.channel().reports()]);
    out.extend(u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(body);
}

/// A packet; its length is told in words of four bytes, without the first one.
fn put(out: &mut Vec<u8>, count: u8, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend([VERSION | count, kind, 0, 0]);
    write(out);
    let words = u16::try_from((out.len() - begin) / 4 - 1).unwrap_or(u16::MAX);
    out[begin + 2..begin + 4].copy_from_slice(&words.to_be_bytes());
}

/// Seconds since 1900 in 32 bits, which go round in 2036, and their fraction in 32 more.
fn ntp(time: Timestamp) -> u64 {
    let (seconds, millis) = (time.as_millis().div_euclid(1000), time.as_millis().rem_euclid(1000));
    let seconds = u64::try_from(seconds + NTP_TO_UNIX).unwrap_or_default() & u64::from(u32::MAX);
    // Rounded up, so that whoever cuts it off at milliseconds gets the same one.
    let fraction = (u64::try_from(millis).unwrap_or_default() << 32).div_ceil(1000);
    seconds << 32 | fraction
}

#[cfg(test)]
mod tests {
    use super::{
        super::{testing::picture, transport::Channel},
        *,
    };

    #[test]
    fn a_report_tells_the_wall_clock_and_the_end() {
        let mut packetizer =
            Packetizer::new(Channel::asked_for("RTP/AVP/TCP;interleaved=0-1").unwrap(), 0x0102_0304, 5);
        packetizer.pack(&picture(&[vec![0x41, 1, 2]]), 0, &mut Vec::new());
        let at = Moment { timestamp: 0x0a0b_0c0d, taken: Timestamp::from_millis(1_500) };
        let mut out = Vec::new();
        report(&packetizer, at, true, &mut out);
        let seconds = (2_208_988_801_u32).to_be_bytes();
        let name = b"\x01\x0dkadr-01020304\0";
        let wanted = [
            &[b'$', 1, 0, 28 + 24 + 8, 0x80, 200, 0, 6, 1, 2, 3, 4][..],
            &seconds,
            &[0x80, 0, 0, 0, 10, 11, 12, 13, 0, 0, 0, 1, 0, 0, 0, 3],
            &[0x81, 202, 0, 5, 1, 2, 3, 4],
            name,
            &[0x81, 203, 0, 1, 1, 2, 3, 4],
        ]
        .concat();
        assert_eq!(out, wanted);
        let mut short = Vec::new();
        report(&packetizer, at, false, &mut short);
        assert_eq!(short[4..], wanted[4..wanted.len() - 8]);
    }

    #[test]
    fn milliseconds_come_back() {
        for millis in [0, 1, 999, 1_769_860_800_123] {
            let ntp = ntp(Timestamp::from_millis(millis));
            let fraction = ((ntp & u64::from(u32::MAX)) * 1000) >> 32;
            assert_eq!(fraction, millis as u64 % 1000);
        }
    }
}
