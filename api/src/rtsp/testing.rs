//! Pictures for tests, made by hand.

use kadr_shared::{
    id::RunId,
    message::video::{AccessUnit, push_nal},
    time::Timestamp,
};

pub(super) const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 1];
pub(super) const PPS: &[u8] = &[0x68, 0xce];

/// A picture of these NAL units.
pub(super) fn picture(nals: &[Vec<u8>]) -> AccessUnit {
    let mut body = Vec::new();
    nals.iter().for_each(|nal| push_nal(&mut body, nal));
    AccessUnit {
        run: RunId::from_u128(1),
        stream: 7,
        group: 1,
        key: false,
        pts_ms: 0.0,
        captured_at: Timestamp::from_millis(0),
        size: "64x64".parse().unwrap(),
        body: body.into(),
    }
}

/// A key frame: parameter sets, then these.
pub(super) fn key_frame(nals: &[Vec<u8>]) -> AccessUnit {
    let all = [&[SPS.to_vec(), PPS.to_vec()], nals].concat();
    AccessUnit { key: true, ..picture(&all) }
}
