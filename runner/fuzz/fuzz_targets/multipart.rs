//! Any bytes as a stream of parts, in pieces of any size: cutting it ends, keeps little, and gives the same parts however it came.
#![no_main]

use kadr_runner::source::multipart::{MultipartError, Parts};

fn parts(boundary: Option<&str>, stream: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, MultipartError> {
    let (mut cut, mut all) = (Parts::new(boundary), Vec::new());
    for piece in stream.chunks(piece) {
        cut.push(piece);
        while let Some(part) = cut.next_part()? {
            all.push(part);
        }
    }
    Ok(all)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [kind, piece, stream @ ..] = bytes else { return };
    let boundary = (kind % 2 == 0).then_some("b");
    let (whole, pieces) = (parts(boundary, stream, 1 << 16), parts(boundary, stream, usize::from(*piece).max(1)));
    if let Ok(parts) = &whole {
        assert!(parts.iter().map(Vec::len).sum::<usize>() <= stream.len());
    }
    // Without an announced boundary, a line longer than any boundary is skipped in pieces.
    if boundary.is_some() {
        assert_eq!(whole, pieces);
    }
});
