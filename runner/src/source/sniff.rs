//! What a file is, by its first bytes. A file's name is not asked.

use std::io::{Read, Seek, SeekFrom};

use image::ImageFormat;

use super::error::{REENCODE, REMUX, SourceError};

/// What can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mp4,
    Matroska,
    /// H.264 without a container.
    AnnexB,
    Image(ImageFormat),
}

/// Bytes that tell: an MPEG transport stream repeats its mark after 188.
const HEAD: u64 = 189;

/// Looks at the beginning of `reader` and leaves it there.
pub(super) fn kind<R: Read + Seek>(reader: &mut R) -> Result<Kind, SourceError> {
    let mut head = Vec::new();
    let failed = |source| SourceError::Read { position: 0, source };
    reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    reader.by_ref().take(HEAD).read_to_end(&mut head).map_err(failed)?;
    reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    of(&head)
}

fn of(head: &[u8]) -> Result<Kind, SourceError> {
    let at = |offset: usize, mark: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(mark));
    let other = |found, convert| Err(SourceError::NotAVideo { found, convert });
    match head {
        [] => other("an empty file", None),
        _ if at(0, b"\xff\xd8\xff") => Ok(Kind::Image(ImageFormat::Jpeg)),
        _ if at(0, b"\x89PNG\r\n\x1a\n") => Ok(Kind::Image(ImageFormat::Png)),
        _ if at(4, b"ftypheic") || at(4, b"ftypmif1") => other("a HEIC image", None),
        _ if at(4, b"ftypavif") => other("an AVIF image", None),
        _ if [&b"ftyp"[..], b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide"].iter().any(|b| at(4, b)) => {
            Ok(Kind::Mp4)
        }
        _ if at(0, b"\x1a\x45\xdf\xa3") => Ok(Kind::Matroska),
        _ if at(0, b"RIFF") && at(8, b"AVI ") => other("an AVI file", Some(REMUX)),
        _ if at(0, b"RIFF") && at(8, b"WEBP") => other("a WebP image", None),
        _ if at(0, b"FLV") => other("an FLV file", Some(REMUX)),
        _ if at(0, b"\x47") && at(188, b"\x47") => other("an MPEG transport stream", Some(REMUX)),
        _ if at(0, b"\0\0\x01\xba") => other("an MPEG program stream", Some(REENCODE)),
        [0, 0, 0, 1, unit, ..] | [0, 0, 1, unit, ..] => match unit {
            // A parameter set, which others refer to, or a remark or a delimiter, which nobody does (ITU-T H.264, 7.4.1).
            0x27 | 0x47 | 0x67 | 0x28 | 0x48 | 0x68 | 0x06 | 0x09 => Ok(Kind::AnnexB),
            // VPS, SPS, PPS, a delimiter and a remark of H.265.
            0x40 | 0x42 | 0x44 | 0x46 | 0x4e => other("H.265 without a container", Some(REENCODE)),
            0xb0 | 0xb3 | 0xb5 | 0xb6 => other("MPEG video without a container", Some(REENCODE)),
            _ => other("a bare video stream of an unknown kind", Some(REENCODE)),
        },
        _ if at(0, b"OggS") => other("an Ogg file", Some(REENCODE)),
        _ if at(0, b"GIF8") => other("a GIF", Some(REENCODE)),
        _ if at(0, b"BM") => other("a BMP image", None),
        _ if at(0, b"II*\0") || at(0, b"MM\0*") => other("a TIFF image", None),
        _ if head.iter().all(|&b| b >= b' ' || matches!(b, b'\t' | b'\r' | b'\n')) => other("a text file", None),
        _ => other("neither a video nor an image of a known kind", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contents_tell() {
        assert_eq!(of(b"\0\0\0\x18ftypisom").unwrap(), Kind::Mp4);
        assert_eq!(of(b"\xff\xd8\xff\xe0").unwrap(), Kind::Image(ImageFormat::Jpeg));
        assert_eq!(of(b"\x1a\x45\xdf\xa3").unwrap(), Kind::Matroska);
        for stream in [&b"\0\0\0\x01\x67"[..], b"\0\0\x01\x67", b"\0\0\0\x01\x09\xf0", b"\0\0\x01\x06\x05"] {
            assert_eq!(of(stream).unwrap(), Kind::AnnexB);
        }
        for (head, found) in [
            (&b""[..], "an empty file"),
            (b"hello, world\n", "a text file"),
            (b"\0\0\0\x01\x40\x01\x0c", "H.265"),
            (b"\0\0\x01\xb3", "MPEG"),
            (b"\0\0\x01\x65", "unknown kind"),
            (b"\0\0\0\x18ftypheic", "HEIC"),
            (b"\x01\x02\x03", "neither"),
        ] {
            let error = of(head).unwrap_err().to_string();
            assert!(error.contains(found), "{error}");
        }
    }
}
