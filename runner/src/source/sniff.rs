//! What a file is, by its first bytes. A file's name is not asked.

use std::io::{Read, Seek, SeekFrom};

use image::ImageFormat;

use super::error::{REENCODE, REMUX, SourceError};

/// What can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mp4,
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
        _ if at(0, b"\x1a\x45\xdf\xa3") => other("a Matroska or WebM file", Some(REMUX)),
        _ if at(0, b"RIFF") && at(8, b"AVI ") => other("an AVI file", Some(REMUX)),
        _ if at(0, b"RIFF") && at(8, b"WEBP") => other("a WebP image", None),
        _ if at(0, b"FLV") => other("an FLV file", Some(REMUX)),
        _ if at(0, b"\x47") && at(188, b"\x47") => other("an MPEG transport stream", Some(REMUX)),
        _ if at(0, b"\0\0\x01\xba") => other("an MPEG program stream", Some(REENCODE)),
        _ if at(0, b"\0\0\0\x01") || at(0, b"\0\0\x01") => {
            other("a bare video stream without a container", Some(REMUX))
        }
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
        for (head, found) in [
            (&b""[..], "an empty file"),
            (b"hello, world\n", "a text file"),
            (b"\x1a\x45\xdf\xa3", "Matroska"),
            (b"\0\0\0\x18ftypheic", "HEIC"),
            (b"\x01\x02\x03", "neither"),
        ] {
            let error = of(head).unwrap_err().to_string();
            assert!(error.contains(found), "{error}");
        }
    }
}
