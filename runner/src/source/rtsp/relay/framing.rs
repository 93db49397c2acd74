//! Where a camera's messages end, found as their bytes come, and how large each may be: the library that reads them takes
//! what it gets. Pure; it keeps one head and nothing else.
//!
//! Ends are found exactly where the library finds them. Were a line end, or a length that is given twice, read in another
//! way here, a hostile camera could hide a message of any size in one that looks small.

/// Bytes of a message's first line and headers; as many of empty lines before it.
pub const HEAD: usize = 64 << 10;
/// Bytes of what follows them: a description (SDP) has some thousands.
pub const BODY: u64 = 1 << 20;

/// What ends a head.
const END: &[u8] = b"\r\n\r\n";
/// What begins a packet between messages (RFC 2326, section 10.12), and how long its own head is: with channel and length.
const MARK: u8 = b'$';
const MARKED: usize = 4;

/// What a camera may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("the camera's answer has more than {HEAD} bytes of headers")]
    Head,
    #[error("the camera's answer is to have a body of {length} bytes, and {BODY} are the most")]
    Body { length: u64 },
    #[error("the camera's answer has a Content-Length that is no number")]
    Length,
}

/// What has come so far.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    /// Of a message, or of a packet, while it comes.
    head: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// Between messages, behind so many bytes of empty lines.
    #[default]
    Between,
    Blank(usize),
    Head,
    Packet,
    /// Of a body or a packet: so many bytes are still to come.
    Rest(u64),
}

impl Framing {
    /// Takes what comes next, in pieces of any size. `heads` is given the head of each message as soon as it is whole, its
    /// body's length being within bounds.
    ///
    /// # Errors
    /// If a message is larger than it may be. Nothing that comes then is of use.
    pub fn push(&mut self, mut bytes: &[u8], heads: &mut dyn FnMut(&[u8])) -> Result<(), FramingError> {
        while let Some(&first) = bytes.first() {
            let taken = match self.state {
                State::Between => {
                    self.state = match first {
                        MARK => State::Packet,
                        b'\r' | b'\n' => State::Blank(0),
                        _ => State::Head,
                    };
                    0
                }
                State::Blank(before) => {
                    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                    let before = before.saturating_add(blank);
                    if before > HEAD {
                        return Err(FramingError::Head);
                    }
                    self.state = match bytes.get(blank) {
                        None => State::Blank(before),
                        Some(&MARK) => State::Packet,
                        Some(_) => State::Head,
                    };
                    blank
                }
                State::Head => self.head(bytes, heads)?,
                State::Packet => self.packet(bytes),
                State::Rest(left) => {
                    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    self.rest(left - taken as u64);
                    taken
                }
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Whether all that came is whole.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Between)
    }

    fn rest(&mut self, left: u64) {
        self.state = if left == 0 { State::Between } else { State::Rest(left) };
    }

    /// Takes of a head what is there, and says how much that was.
    fn head(&mut self, bytes: &[u8], heads: &mut dyn FnMut(&[u8])) -> Result<usize, FramingError> {
        let before = self.head.len();
        let room = HEAD - before;
        self.head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        // The end may have begun in an earlier piece.
        let from = before.saturating_sub(END.len() - 1);
        let end = self.head.get(from..).and_then(|new| new.windows(END.len()).position(|window| window == END));
        let Some(end) = end.map(|at| from + at + END.len()) else {
            return if bytes.len() > room { Err(FramingError::Head) } else { Ok(bytes.len()) };
        };
        self.head.truncate(end);
        let length = length(&self.head)?;
        if length > BODY {
            return Err(FramingError::Body { length });
        }
        heads(&self.head);
        self.head.clear();
        self.rest(length);
        Ok(end - before)
    }

    /// The same of a packet's.
    fn packet(&mut self, bytes: &[u8]) -> usize {
        let taken = (MARKED - self.head.len()).min(bytes.len());
        self.head.extend(bytes.iter().take(taken));
        if let [_, _, high, low] = *self.head {
            self.head.clear();
            self.rest(u16::from_be_bytes([high, low]).into());
        }
        taken
    }
}

/// The headers of a head, and what they say; lines that are none are left out.
pub(super) fn headers(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = head;
    let lines = std::iter::from_fn(move || {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let line = rest.get(..end)?;
        rest = rest.get(end + 2..)?;
        Some(line)
    });
    lines.skip(1).filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((line.get(..colon)?, line.get(colon + 1..)?.trim_ascii()))
    })
}

fn length(head: &[u8]) -> Result<u64, FramingError> {
    let mut found = None;
    for (_, value) in headers(head).filter(|(name, _)| name.eq_ignore_ascii_case(b"content-length")) {
        let value = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        if found.replace(value.ok_or(FramingError::Length)?).is_some() {
            return Err(FramingError::Length);
        }
    }
    Ok(found.unwrap_or(0))
}

#[cfg(test)]
mod tests;
