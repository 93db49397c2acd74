//! A stream of images in one HTTP answer (`multipart/x-mixed-replace`), cut into its parts. Pure: bytes go in, parts come out.
//!
//! Written for what cameras send: with and without `Content-Length`, with a wrong one, with bare line feeds, with a boundary
//! that is announced with its dashes or not announced at all. Nothing grows without a bound.

/// All header lines of a part.
const HEADERS_MOST: usize = 16 << 10;
/// A line that is no boundary is skipped; one that is longer than this is skipped in pieces.
const LINE_MOST: usize = 1 << 10;
/// The longest boundary (RFC 2046, section 5.1.1, says 70).
const BOUNDARY_MOST: usize = 200;
/// The largest part: a JPEG of 64 million pixels that nobody has compressed much.
pub const PART_MOST: usize = 16 << 20;

/// A stream that is no row of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    #[error("a part's header has more than 16 KB")]
    Headers,
    #[error("an image of the stream is larger than 16 MB")]
    Part,
}

/// Cuts a stream into parts.
#[derive(Debug)]
pub struct Parts {
    /// Without the dashes before it, of which some announce two more and some send two more; none: the first line that looks
    /// like one.
    boundary: Option<Vec<u8>>,
    buffer: Vec<u8>,
    /// What was done with at the buffer's front: it goes when more comes, once for all.
    done: usize,
    /// Up to where the rest was searched in vain.
    searched: usize,
    at: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a boundary: whatever comes is skipped.
    Between,
    Headers,
    /// In a part that says how long it is, or goes on to the next boundary.
    Body(Option<usize>),
    End,
}

impl Parts {
    /// `boundary` as the answer's header announces it, if it does.
    pub fn new(boundary: Option<&str>) -> Self {
        let boundary = boundary.map(|text| text.trim_start_matches('-').as_bytes().to_vec());
        Self {
            boundary: boundary.filter(|boundary| (1..=BOUNDARY_MOST).contains(&boundary.len())),
            buffer: Vec::new(),
            done: 0,
            searched: 0,
            at: Place::Between,
        }
    }

    /// Takes what came. To be called when [`next_part`](Self::next_part) gave none: then little is left in the buffer.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.done.min(self.buffer.len()));
        self.done = 0;
        self.buffer.extend_from_slice(bytes);
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.done..).unwrap_or_default()
    }

    /// Whether the stream said that it is over.
    pub const fn is_over(&self) -> bool {
        matches!(self.at, Place::End)
    }

    /// The next whole part; none: more has to come.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>, MultipartError> {
        loop {
            let went_on = match self.at {
                Place::Between => self.between(),
                Place::Headers => self.headers()?,
                Place::Body(Some(length)) => {
                    if self.rest().len() < length {
                        return Ok(None);
                    }
                    return Ok(Some(self.part(length, length)));
                }
                Place::Body(None) => {
                    let Some((end, behind)) = self.next_boundary() else {
                        return if self.rest().len() > PART_MOST { Err(MultipartError::Part) } else { Ok(None) };
                    };
                    return Ok(Some(self.part(end, behind)));
                }
                Place::End => {
                    self.drop_front(self.rest().len());
                    false
                }
            };
            if !went_on {
                return Ok(None);
            }
        }
    }

    /// Skips lines up to a boundary.
    fn between(&mut self) -> bool {
        while let Some((line, behind)) = line(self.rest(), self.searched) {
            let (text, dashes) = without_dashes(line);
            let mut found = self.boundary.as_deref().filter(|_| dashes >= 2).and_then(|core| text.strip_prefix(core));
            let learned = self.boundary.is_none() && dashes >= 2 && (1..=BOUNDARY_MOST).contains(&text.len());
            if learned {
                found = Some(b"");
            }
            let place = match found.map(<[u8]>::trim_ascii) {
                Some(b"") => Place::Headers,
                Some(b"--") => Place::End,
                _ => Place::Between,
            };
            if learned {
                self.boundary = Some(text.to_vec());
            }
            self.at = place;
            self.drop_front(behind);
            if self.at != Place::Between {
                return true;
            }
        }
        // The end of a line may lie across.
        self.searched = self.rest().len();
        if self.searched > LINE_MOST {
            self.drop_front(self.searched);
        }
        false
    }

    /// Reads a part's header lines; all but its length are of no interest.
    fn headers(&mut self) -> Result<bool, MultipartError> {
        let (mut at, mut length) = (0, None);
        while let Some((line, behind)) = line_from(self.rest(), at) {
            if line.is_empty() {
                self.at = Place::Body(length);
                self.drop_front(behind);
                return if length.is_some_and(|length| length > PART_MOST) {
                    Err(MultipartError::Part)
                } else {
                    Ok(true)
                };
            }
            if let Some(value) = value_of(line, b"content-length") {
                // What is no number is as good as none.
                length =
                    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).filter(|&length| length > 0);
            }
            at = behind;
            if at > HEADERS_MOST {
                return Err(MultipartError::Headers);
            }
        }
        if self.rest().len() > HEADERS_MOST { Err(MultipartError::Headers) } else { Ok(false) }
    }

    /// Where the part ends that goes on to the next boundary, and where that begins. The line break before a boundary is its
    /// own.
    fn next_boundary(&mut self) -> Option<(usize, usize)> {
        let core = self.boundary.as_deref()?;
        let rest = self.buffer.get(self.done..).unwrap_or_default();
        let mut at = self.searched;
        while let Some(found) = find(rest.get(at..)?, core) {
            let before = rest.get(..at + found).unwrap_or_default();
            let dashes = before.iter().rev().take_while(|&&byte| byte == b'-').count();
            let start = before.len() - dashes;
            if dashes >= 2 && start == 0 {
                return Some((0, 0));
            }
            if dashes >= 2
                && let Some(part) = rest.get(..start).unwrap_or_default().strip_suffix(b"\n")
            {
                return Some((part.strip_suffix(b"\r").unwrap_or(part).len(), start));
            }
            at += found + 1;
        }
        self.searched = rest.len().saturating_sub(core.len()).max(self.searched);
        None
    }

    /// Takes the part out that ends at `end`; `behind` is what is looked at next.
    fn part(&mut self, end: usize, behind: usize) -> Vec<u8> {
        let part = self.rest().get(..end).unwrap_or_default().to_vec();
        self.drop_front(behind);
        self.at = Place::Between;
        part
    }

    fn drop_front(&mut self, count: usize) {
        self.done += count.min(self.rest().len());
        self.searched = 0;
    }
}

/// A line without the dashes that it begins with, and how many these are.
fn without_dashes(line: &[u8]) -> (&[u8], usize) {
    let dashes = line.iter().take_while(|&&byte| byte == b'-').count();
    (line.get(dashes..).unwrap_or_default(), dashes)
}

/// The line that `buffer` begins with, without its end, and where the next one begins; `searched` bytes have no end in them.
fn line(buffer: &[u8], searched: usize) -> Option<(&[u8], usize)> {
    let end = buffer.get(searched..)?.iter().position(|&byte| byte == b'\n')? + searched;
    let line = buffer.get(..end)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

/// The line that begins at `at`.
fn line_from(buffer: &[u8], at: usize) -> Option<(&[u8], usize)> {
    line(buffer.get(at..)?, 0).map(|(line, behind)| (line, at + behind))
}

/// The value of a header line, if it has this name (in lower case).
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (head, value) = line.split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name).then_some(())?;
    value.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii)
}

fn find(buffer: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut at = 0;
    loop {
        at += buffer.get(at..)?.iter().position(|&byte| byte == first)?;
        if buffer.get(at..)?.starts_with(wanted) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All parts of a stream that comes in pieces of this size.
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

    const TWO: [&[u8]; 2] = [b"\xff\xd8one\r\n\xff\xd9", b"two--b\r\nx"];

    #[test]
    fn parts_come_whole_in_any_pieces() {
        let known =
            b"ignored\r\n--b\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\n\xff\xd8one\r\n\xff\xd9\r\n\
                      --b\r\ncontent-length:9\r\n\r\ntwo--b\r\nx\r\n--b--\r\n";
        let unknown =
            b"--b\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8one\r\n\xff\xd9\r\n--b\r\n\r\ntwo--b\r\nx\r\n--b--\r\n";
        let bare = b"--b\n\n\xff\xd8one\r\n\xff\xd9\n--b\nX: y\n\ntwo--b\r\nx\n--b--\n";
        for piece in [1, 2, 3, 7, 1000] {
            for (boundary, stream) in
                [(Some("b"), &known[..]), (None, known), (Some("--b"), known), (Some("b"), unknown), (Some("b"), bare)]
            {
                assert_eq!(parts(boundary, stream, piece).unwrap(), TWO, "{boundary:?}, pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_boundary_may_have_dashes_of_its_own() {
        let stream = b"----my\r\nContent-Length: 3\r\n\r\none\r\n----my\r\n\r\ntwo\r\n----my--\r\n";
        for boundary in [Some("--my"), Some("my"), Some("----my"), None] {
            assert_eq!(parts(boundary, stream, 4).unwrap(), [b"one", b"two"], "{boundary:?}");
        }
    }

    #[test]
    fn a_wrong_length_costs_a_part_and_no_more() {
        let stream = b"--b\r\nContent-Length: 2\r\n\r\nlonger\r\n--b\r\nContent-Length: 30\r\n\r\nshorter\r\n--b\r\n\r\nlost\r\n\
                       --b\r\nContent-Length: none\r\n\r\nin the part before\r\n--b\r\n\r\nfine\r\n--b\r\n";
        let parts = parts(Some("b"), stream, 5).unwrap();
        assert_eq!((parts[0].as_slice(), parts.last().unwrap().as_slice()), (&b"lo"[..], &b"fine"[..]));
    }

    #[test]
    fn nothing_grows_without_a_bound() {
        let headers = [b"--b\r\n".to_vec(), b"X: y\r\n".repeat(4_000)].concat();
        assert_eq!(parts(Some("b"), &headers, 100), Err(MultipartError::Headers));
        let header = [b"--b\r\n".to_vec(), vec![b'x'; 20_000]].concat();
        assert_eq!(parts(Some("b"), &header, 100), Err(MultipartError::Headers));
        assert_eq!(parts(Some("b"), b"--b\r\nContent-Length: 99999999\r\n\r\n", 100), Err(MultipartError::Part));
        let body = [b"--b\r\n\r\n".to_vec(), vec![b'x'; PART_MOST + 10]].concat();
        assert_eq!(parts(Some("b"), &body, 1 << 16), Err(MultipartError::Part));
        let mut cut = Parts::new(None);
        for _ in 0..100 {
            cut.push(&[b'-'; 1_000]);
            assert_eq!(cut.next_part(), Ok(None));
            assert!(cut.rest().len() <= LINE_MOST, "what is no boundary is not kept");
        }
    }

    #[test]
    fn what_comes_after_the_end_is_nothing() {
        let mut cut = Parts::new(Some("b"));
        cut.push(b"--b\r\n\r\nx\r\n--b--\r\n--b\r\n\r\ny\r\n--b\r\n");
        assert_eq!(cut.next_part().unwrap().as_deref(), Some(&b"x"[..]));
        assert_eq!((cut.next_part(), cut.is_over()), (Ok(None), true));
    }

    proptest! {
        /// Whatever comes, it ends, and gives no more than it got.
        #[test]
        fn any_stream_ends(
            words in prop::collection::vec(prop::sample::select(vec![
                "--b", "\r\n", "\n", "--b--", "Content-Length: 3", "Content-Length:", "x", "--", ": ", "\r",
            ]), 0..60),
            piece in 1..20_usize,
        ) {
            let stream = words.concat().into_bytes();
            if let Ok(parts) = parts(Some("b"), &stream, piece) {
                prop_assert!(parts.iter().map(Vec::len).sum::<usize>() <= stream.len());
                prop_assert_eq!(Ok(parts), super::tests::parts(Some("b"), &stream, 1_000));
            }
        }
    }
}
