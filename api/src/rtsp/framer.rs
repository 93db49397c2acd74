//! From bytes to messages (RFC 2326, section 4 and 10.12): what a peer sends, cut into requests, within bounds.
//!
//! What a message means is not told here. Headers are given as text: the crate's own reading of `Transport` panics on some.

use bytes::{Buf, BufMut, BytesMut, buf::Limit};
use rtsp_types::{Message, ParseError, Request};

/// The most bytes of a message, whatever its kind. Nothing that players send comes near.
pub(super) const MOST_BYTES: usize = 64 << 10;
/// The most bytes of what stands before a message's body.
const MOST_HEAD: usize = 16 << 10;
/// Bytes that are read at a time.
const READ: usize = 4 << 10;
const MOST_HEADERS: usize = 64;
/// What begins packets that are sent between messages, and the bytes before such a packet.
pub(super) const INTERLEAVED: u8 = b'$';
const INTERLEAVED_HEAD: usize = 4;
const END: &[u8] = b"\r\n\r\n";

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Request(Box<Request<Vec<u8>>>),
    /// A packet (a player's reports), or an answer to what was never asked: nothing to do.
    Other,
}

/// Nothing that comes behind it can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the message is longer than {} bytes, or its headers than {}", MOST_BYTES, MOST_HEAD)]
    TooLong,
    #[error("the message has more than {} headers", MOST_HEADERS)]
    TooManyHeaders,
    #[error("this is no RTSP message")]
    Malformed,
}

/// Bytes that have come, and are no whole message yet: never more than [`MOST_BYTES`].
#[derive(Debug, Default)]
pub(super) struct Framer {
    buffer: BytesMut,
    /// So many of them hold no end of the headers.
    scanned: usize,
    /// With fewer bytes the message is not whole.
    wanted: usize,
}

impl Framer {
    /// Where the next bytes are put, and how many there is room for: none only if [`next`](Self::next) has not been asked.
    pub(super) fn room(&mut self) -> Limit<&mut BytesMut> {
        let room = MOST_BYTES.saturating_sub(self.buffer.len());
        self.buffer.reserve(room.min(READ));
        (&mut self.buffer).limit(room)
    }

    /// The next message; none: more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, FrameError> {
        // Some players end a message with a line too many.
        while self.scanned == 0 && self.buffer.starts_with(b"\r\n") {
            self.buffer.advance(2);
        }
        if self.buffer[..] == *b"\r" {
            return Ok(None);
        }
        if self.buffer.first() == Some(&INTERLEAVED) {
            return self.packet();
        }
        if self.wanted == 0 {
            let begin = self.scanned.saturating_sub(END.len() - 1);
            let found = self.buffer[begin..].windows(END.len()).position(|window| window == END);
            let Some(end) = found.map(|at| begin + at + END.len()) else {
                self.scanned = self.buffer.len();
                return if self.scanned >= MOST_HEAD { Err(FrameError::TooLong) } else { Ok(None) };
            };
            if end > MOST_HEAD {
                return Err(FrameError::TooLong);
            }
            // The first line, the headers, and the empty line.
            if self.buffer[..end].windows(2).filter(|window| *window == b"\r\n").count() > MOST_HEADERS + 2 {
                return Err(FrameError::TooManyHeaders);
            }
            self.wanted = end;
        }
        if self.buffer.len() < self.wanted {
            return Ok(None);
        }
        match Message::<Vec<u8>>::parse(&self.buffer[..]) {
            Ok((message, length)) => {
                self.take(length);
                Ok(Some(match message {
                    Message::Request(request) => Incoming::Request(Box::new(request)),
                    Message::Response(_) | Message::Data(_) => Incoming::Other,
                }))
            }
            // Its headers are there, so it is the body's length that is told.
            Err(ParseError::Incomplete(Some(missing))) => {
                self.wanted = self.buffer.len().saturating_add(missing.get());
                if self.wanted > MOST_BYTES { Err(FrameError::TooLong) } else { Ok(None) }
            }
            Err(ParseError::Incomplete(None) | ParseError::Error) => Err(FrameError::Malformed),
        }
    }

    fn packet(&mut self) -> Result<Option<Incoming>, FrameError> {
        let Some(&[_, _, high, low]) = self.buffer.first_chunk::<INTERLEAVED_HEAD>() else { return Ok(None) };
        let length = INTERLEAVED_HEAD + usize::from(u16::from_be_bytes([high, low]));
        if length > MOST_BYTES {
            return Err(FrameError::TooLong);
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        self.take(length);
        Ok(Some(Incoming::Other))
    }

    fn take(&mut self, length: usize) {
        self.buffer.advance(length.min(self.buffer.len()));
        (self.scanned, self.wanted) = (0, 0);
    }
}

/// Reads bytes to their end, or to what can't be read: how many messages there were.
pub(super) fn messages_in(mut bytes: &[u8]) -> usize {
    let (mut framer, mut count) = (Framer::default(), 0);
    while !bytes.is_empty() {
        let mut room = framer.room();
        let (now, later) = bytes.split_at(bytes.len().min(room.remaining_mut()));
        room.put_slice(now);
        bytes = later;
        loop {
            match framer.next() {
                Ok(Some(_)) => count += 1,
                Ok(None) => break,
                Err(_) => return count,
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtsp_types::Method;

    use super::*;

    const OPTIONS: &[u8] = b"OPTIONS rtsp://host/gate RTSP/1.0\r\nCSeq: 1\r\n\r\n";

    /// All that comes out of bytes which come in parts; how many bytes were waiting at most.
    fn read(bytes: &[u8], part: usize) -> (Vec<Incoming>, Option<FrameError>, usize) {
        let (mut framer, mut found, mut most) = (Framer::default(), Vec::new(), 0);
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut room = framer.room();
            let (now, later) = rest.split_at(part.min(rest.len()).min(room.remaining_mut()));
            assert!(!now.is_empty(), "there is room, or an error");
            room.put_slice(now);
            rest = later;
            most = most.max(framer.buffer.len());
            loop {
                match framer.next() {
                    Ok(Some(incoming)) => found.push(incoming),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error), most),
                }
            }
        }
        (found, None, most)
    }

    #[test]
    fn messages_and_packets_are_told_apart_however_they_come() {
        let set = b"SET_PARAMETER rtsp://host/gate RTSP/1.0\r\nCSeq: 2\r\nContent-Length: 6\r\n\r\nvolume";
        let all = [OPTIONS, b"$\x01\x00\x03abc", b"\r\n", set, b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n", OPTIONS].concat();
        for part in [1, 7, all.len()] {
            let (found, error, _) = read(&all, part);
            assert_eq!(error, None);
            let methods: Vec<_> = found
                .iter()
                .map(|incoming| match incoming {
                    Incoming::Request(request) => Some((request.method().clone(), request.body().len())),
                    Incoming::Other => None,
                })
                .collect();
            let (options, set) = (Some((Method::Options, 0)), Some((Method::SetParameter, 6)));
            assert_eq!(methods, [options.clone(), None, set, None, options], "{part}");
        }
    }

    #[test]
    fn what_has_no_end_is_ended() {
        let endless_line = vec![b'a'; MOST_BYTES * 2];
        assert_eq!(read(&endless_line, 1000).1, Some(FrameError::TooLong));
        let endless_headers = [&OPTIONS[..OPTIONS.len() - 2], &b"X: y\r\n".repeat(20_000)].concat();
        assert_eq!(read(&endless_headers, 1000).1, Some(FrameError::TooLong));
        let many = [&OPTIONS[..OPTIONS.len() - 2], &b"X: y\r\n".repeat(MOST_HEADERS), b"\r\n"].concat();
        assert_eq!(read(&many, 1000).1, Some(FrameError::TooManyHeaders));
        for length in [MOST_BYTES.to_string(), u64::MAX.to_string()] {
            let huge = format!("OPTIONS * RTSP/1.0\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(read(huge.as_bytes(), 1000).1, Some(FrameError::TooLong), "{length}");
        }
        for garbage in ["GET / HTTP/1.1\r\n\r\n", "\r\n\r\n\x16\x03\x01\r\n\r\n", "OPTIONS gate RTSP/1.0\r\n\r\n"] {
            assert_eq!(read(garbage.as_bytes(), 5).1, Some(FrameError::Malformed), "{garbage}");
        }
        let length = "OPTIONS * RTSP/1.0\r\nContent-Length: -1\r\n\r\n";
        assert_eq!(read(length.as_bytes(), 5).1, Some(FrameError::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000), part in 1_usize..300) {
            prop_assert!(read(&bytes, part).2 <= MOST_BYTES);
        }

        /// Closer to what is understood: lines of words that mean something.
        #[test]
        fn any_words_end_without_a_panic(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "OPTIONS", "SETUP", " ", "*", "rtsp://h/x", "RTSP/1.0", "RTSP/2.0", "200", "\r\n", "\r\n\r\n", "CSeq:", "1",
                    "Content-Length:", "5", "99999", ":", "\t", "\"", "\\", "$", "\0", "é",
                ]),
                0..60,
            ),
            part in 1_usize..40,
        ) {
            let whole = read(words.concat().as_bytes(), usize::MAX);
            let parts = read(words.concat().as_bytes(), part);
            prop_assert_eq!((whole.0, whole.1), (parts.0, parts.1), "however it comes, it is the same");
        }
    }
}
