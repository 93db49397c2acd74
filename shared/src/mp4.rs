//! How MP4 tells that pictures are H.264. Files and fragments are written by those who have the pictures.

use std::num::NonZeroU16;

use shiguredo_mp4::{
    Uint,
    boxes::{Avc1Box, AvccBox, SampleEntry, VisualSampleEntryFields},
};

use crate::geometry::Size;

/// The entry for pictures of a size with these parameter sets, each NAL unit behind its length in four bytes. `None`: the
/// sequence parameter set is none, or a side has more than 16 bits.
pub fn avc1(sps: &[u8], pps: &[u8], size: Size) -> Option<SampleEntry> {
    let &[_, profile, compatibility, level, ..] = sps else { return None };
    // These profiles tell how samples are; kadr takes 4:2:0 with 8 bits only.
    let high = matches!(profile, 100 | 110 | 122 | 144);
    let side = |length: u32| u16::try_from(length).ok();
    Some(SampleEntry::Avc1(Avc1Box {
        visual: VisualSampleEntryFields {
            data_reference_index: NonZeroU16::MIN,
            width: side(size.width)?,
            height: side(size.height)?,
            horizresolution: VisualSampleEntryFields::DEFAULT_HORIZRESOLUTION,
            vertresolution: VisualSampleEntryFields::DEFAULT_VERTRESOLUTION,
            frame_count: 1,
            compressorname: [0; 32],
            depth: VisualSampleEntryFields::DEFAULT_DEPTH,
        },
        avcc_box: AvccBox {
            avc_profile_indication: profile,
            profile_compatibility: compatibility,
            avc_level_indication: level,
            length_size_minus_one: Uint::new(3),
            sps_list: vec![sps.to_vec()],
            pps_list: vec![pps.to_vec()],
            chroma_format: high.then_some(Uint::new(1)),
            bit_depth_luma_minus8: high.then_some(Uint::new(0)),
            bit_depth_chroma_minus8: high.then_some(Uint::new(0)),
            sps_ext_list: Vec::new(),
        },
        unknown_boxes: Vec::new(),
    }))
}

#[cfg(test)]
mod tests {
    use shiguredo_mp4::Encode;

    use super::*;

    #[test]
    fn every_profile_can_be_written() {
        let size = Size { width: 1280, height: 720 };
        for profile in [66, 77, 100] {
            let entry = avc1(&[0x67, profile, 0, 31, 9], &[0x68, 1], size).unwrap();
            assert!(entry.encode_to_vec().is_ok(), "{profile}");
        }
        assert!(avc1(&[0x67], &[], size).is_none());
        assert!(avc1(&[0x67, 66, 0, 31], &[], Size { width: 70_000, height: 2 }).is_none());
    }
}
