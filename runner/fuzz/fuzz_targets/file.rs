//! Any bytes as a source: reading them ends, without a panic, and gives no more frames than there are bytes.
#![no_main]

use std::io::Cursor;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(mut source) = kadr_runner::source::read(Cursor::new(bytes.to_vec())) else { return };
    let mut frames = 0;
    while let Ok(Some(_)) = source.next_frame() {
        frames += 1;
    }
    assert!(frames <= bytes.len(), "{frames} frames in {} bytes", bytes.len());
});
