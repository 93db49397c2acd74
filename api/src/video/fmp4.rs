//! Pictures packed as fragmented MP4 (ISO/IEC 14496-12, 8.8): a beginning that tells how they are coded, then fragments.
//!
//! Times are the run's own in 1/90,000 s, so that fragments fit together whoever made them, and whenever. Pictures may come
//! in another order than they are shown in (a camera's own with B-frames do).

use std::num::NonZeroU32;

use kadr_shared::{message::video::AccessUnit, mp4};
use shiguredo_mp4::{
    Encode, SampleFlags, TrackKind,
    boxes::{MfhdBox, MoofBox, SampleEntry, TfdtBox, TfhdBox, TrafBox, TrunBox, TrunSample},
    mux::{Fmp4SegmentMuxer, MuxError, Sample},
};

/// Ticks a second.
pub(crate) const TIMESCALE: NonZeroU32 = NonZeroU32::MIN.saturating_add(89_999);
/// The only track's number, as the beginning has it.
const TRACK: u32 = 1;
/// Flags of a sample: others depend on it and it on none; it depends on others (ISO/IEC 14496-12, 8.8.3.1).
const KEY: SampleFlags = SampleFlags::new(0x0200_0000);
const OTHER: SampleFlags = SampleFlags::new(0x0101_0000);

/// Pictures that can't be packed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    #[error("a key frame without parameter sets can't begin a video")]
    NoParameters,
    #[error("there are no pictures to pack")]
    Empty,
    #[error("pictures can't be packed")]
    Mux(#[from] MuxError),
    #[error("pictures can't be packed")]
    Encode(#[from] shiguredo_mp4::Error),
}

/// The beginning of a video whose key frames are like this one.
pub(crate) fn beginning(key: &AccessUnit) -> Result<Vec<u8>, PackError> {
    let mut muxer = Fmp4SegmentMuxer::new()?;
    // The library learns the track from a sample; the fragment that it makes of it is not used.
    muxer.create_media_segment_metadata(&[Sample {
        track_kind: TrackKind::Video,
        sample_entry: Some(sample_entry(key).ok_or(PackError::NoParameters)?),
        keyframe: true,
        timescale: TIMESCALE,
        duration: 1,
        composition_time_offset: None,
        data_offset: 0,
        data_size: 1,
    }])?;
    Ok(muxer.init_segment_bytes()?)
}

fn sample_entry(key: &AccessUnit) -> Option<SampleEntry> {
    let (sps, pps) = key.parameter_sets()?;
    mp4::avc1(sps, pps, key.size)
}

/// A time in ticks.
pub(crate) fn ticks(ms: f64) -> u64 {
    // Casting saturates; times are checked where they come in.
    (ms * f64::from(TIMESCALE.get()) / 1000.0).round() as u64
}

/// One fragment of pictures, the last of which is shown until `end` (in ticks; what comes next begins there).
pub(crate) fn fragment<U: AsRef<AccessUnit>>(units: &[U], number: u32, end: u64) -> Result<Vec<u8>, PackError> {
    // Coded order is not the order of times: the sorted times are when pictures are decoded, and each one's own is told
    // as its distance from that.
    let shown: Vec<u64> = units.iter().map(|unit| ticks(unit.as_ref().pts_ms)).collect();
    let mut decoded = shown.clone();
    decoded.sort_unstable();
    let &[first, ..] = decoded.as_slice() else { return Err(PackError::Empty) };
    let nexts = decoded.iter().skip(1).copied().chain([end]);
    let mut samples = Vec::with_capacity(units.len());
    for (((unit, shown), at), next) in units.iter().zip(&shown).zip(&decoded).zip(nexts) {
        let unit = unit.as_ref();
        samples.push(TrunSample {
            // A pause of more than 32 bits of ticks is shortened to that.
            duration: Some(u32::try_from(next.saturating_sub(*at).max(1)).unwrap_or(u32::MAX)),
            size: Some(u32::try_from(unit.body.len()).unwrap_or(u32::MAX)),
            flags: Some(if unit.key { KEY } else { OTHER }),
            composition_time_offset: Some(shown.cast_signed() - at.cast_signed()),
        });
    }
    if samples.iter().all(|sample| sample.composition_time_offset == Some(0)) {
        samples.iter_mut().for_each(|sample| sample.composition_time_offset = None);
    }
    let head = |data_offset: i32| MoofBox {
        mfhd_box: MfhdBox { sequence_number: number },
        traf_boxes: vec![TrafBox {
            tfhd_box: TfhdBox {
                track_id: TRACK,
                base_data_offset: None,
                sample_description_index: None,
                default_sample_duration: None,
                default_sample_size: None,
                default_sample_flags: None,
                duration_is_empty: false,
                default_base_is_moof: true,
            },
            tfdt_box: Some(TfdtBox { version: 1, base_media_decode_time: first }),
            trun_boxes: vec![TrunBox {
                data_offset: Some(data_offset),
                first_sample_flags: None,
                samples: samples.clone(),
            }],
            unknown_boxes: Vec::new(),
        }],
        unknown_boxes: Vec::new(),
    };
    // Its own length does not depend on the offset in it.
    const MDAT_HEAD: usize = 8;
    let offset = head(0).encode_to_vec()?.len() + MDAT_HEAD;
    let mut packed = head(i32::try_from(offset).unwrap_or(i32::MAX)).encode_to_vec()?;
    let length = units.iter().map(|unit| unit.as_ref().body.len()).sum::<usize>() + MDAT_HEAD;
    packed.reserve(length);
    packed.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    packed.extend(b"mdat");
    units.iter().for_each(|unit| packed.extend_from_slice(&unit.as_ref().body));
    Ok(packed)
}
