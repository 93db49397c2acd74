//! Any bytes from a player: reading them ends, without a panic, and gives no more messages than there are bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let messages = kadr_api::messages_in(bytes);
    assert!(messages <= bytes.len(), "{messages} messages in {} bytes", bytes.len());
});
