//! Any bytes as what a camera sends, in pieces of any size: the same messages and the same verdict however it came.
#![no_main]

use kadr_runner::source::framing::{Framing, FramingError, HEAD};

fn heads(stream: &[u8], piece: usize) -> Result<(Vec<Vec<u8>>, bool), FramingError> {
    let (mut framing, mut heads) = (Framing::default(), Vec::new());
    for piece in stream.chunks(piece) {
        framing.push(piece, &mut |head| heads.push(head.to_vec()))?;
    }
    Ok((heads, framing.is_between()))
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [piece, stream @ ..] = bytes else { return };
    let (whole, pieces) = (heads(stream, 1 << 20), heads(stream, usize::from(*piece).max(1)));
    if let Ok((heads, _)) = &whole {
        assert!(heads.iter().all(|head| head.len() <= HEAD && head.ends_with(b"\r\n\r\n")));
        assert!(heads.iter().map(Vec::len).sum::<usize>() <= stream.len());
    }
    assert_eq!(whole, pieces);
});
