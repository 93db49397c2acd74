use proptest::prelude::*;

use super::*;

/// The heads in what came in such pieces, and whether the last message was whole; or what was wrong.
fn pushed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<Vec<u8>>, bool), FramingError> {
    let (mut framing, mut heads) = (Framing::default(), Vec::new());
    for piece in pieces {
        framing.push(piece, &mut |head| heads.push(head.to_vec()))?;
    }
    assert!(framing.head.len() <= HEAD);
    Ok((heads, framing.is_between()))
}

fn whole(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, bool), FramingError> {
    pushed([bytes])
}

fn answer(headers: &str, body: &str) -> Vec<u8> {
    format!("RTSP/1.0 200 OK\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn messages_and_packets_are_told_apart() {
    let mut bytes = answer("CSeq: 1\r\nContent-Length: 6\r\n", "\r\n\r\n$$");
    bytes.extend(b"$\x01\x00\x05\r\n\r\nx$\x00\x00\x00\r\n\r\n");
    bytes.extend(b"ANNOUNCE rtsp://cam/1 RTSP/1.0\r\ncontent-LENGTH:  1 \t\r\n\r\n$");
    let (heads, whole) = whole(&bytes).unwrap();
    let firsts: Vec<_> = heads.iter().map(|head| head.split(|byte| *byte == b'\r').next().unwrap()).collect();
    assert_eq!(firsts, [&b"RTSP/1.0 200 OK"[..], b"ANNOUNCE rtsp://cam/1 RTSP/1.0"]);
    assert!(whole);
}

#[test]
fn each_part_has_its_bound() {
    let of =
        |length: usize| [b"RTSP/1.0 200 OK\r\nX: ".to_vec(), vec![b'x'; length - 24], b"\r\n\r\n".to_vec()].concat();
    assert_eq!(of(HEAD).len(), HEAD);
    assert!(whole(&of(HEAD)).is_ok_and(|(heads, _)| heads.len() == 1));
    assert_eq!(whole(&of(HEAD + 1)), Err(FramingError::Head));
    assert_eq!(whole(&vec![b'x'; HEAD + 1]), Err(FramingError::Head));
    assert_eq!(whole(&b"\r\n".repeat(HEAD)), Err(FramingError::Head), "empty lines for ever");
    let of = |length: u64| answer(&format!("Content-Length: {length}\r\n"), "");
    assert!(whole(&of(BODY)).is_ok_and(|(_, whole)| !whole));
    for length in [BODY + 1, u64::MAX] {
        assert_eq!(whole(&of(length)), Err(FramingError::Body { length }));
    }
}

#[test]
fn a_length_can_be_read_in_one_way_only() {
    for lines in ["Content-Length: x\r\n", "Content-Length: -1\r\n", "Content-Length:\r\n", "Content-Length: 1, 1\r\n"]
    {
        assert_eq!(whole(&answer(lines, "")), Err(FramingError::Length), "{lines}");
    }
    let twice = "Content-Length: 1\r\ncontent-length: 1\r\n";
    assert_eq!(whole(&answer(twice, "")), Err(FramingError::Length));
    // The library takes no such line end for one: what follows belongs to the line.
    let (heads, _) = whole(b"RTSP/1.0 200 O\n\n$\0\xff\xffK\r\nContent-Length: 3\r\n\r\nabc").unwrap();
    assert_eq!(heads.len(), 1);
}

#[test]
fn errors_say_which_bound_it_was() {
    assert_eq!(FramingError::Head.to_string(), "the camera's answer has more than 65536 bytes of headers");
    assert!(FramingError::Body { length: 7 << 30 }.to_string().contains("7516192768 bytes, and 1048576 are the most"));
}

/// Pieces of what cameras send, and of what they should not.
fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(channel, data)| {
            [&[MARK, channel, 0, u8::try_from(data.len()).unwrap()][..], &data].concat()
        }),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|body| {
            let head = format!("RTSP/1.0 200 OK\r\nCSeq: 3\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.as_bytes(), &body].concat()
        }),
        Just(b"\r\n".to_vec()),
        Just(b"RTSP/1.0 401 No\r\nContent-Length: 1048577\r\n\r\n".to_vec()),
        Just(vec![b'y'; HEAD / 2]),
        proptest::collection::vec(any::<u8>(), 0..12),
    ]
}

proptest! {
    #[test]
    fn it_is_the_same_however_it_comes(
        parts in proptest::collection::vec(part(), 0..12),
        cuts in proptest::collection::vec(1..5_000_usize, 1..9),
    ) {
        let bytes = parts.concat();
        let (mut rest, mut pieces) = (&bytes[..], Vec::new());
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(pushed(pieces), whole(&bytes));
        prop_assert_eq!(pushed(bytes.chunks(1)), whole(&bytes));
    }

    #[test]
    fn what_is_whole_is_found_whole(parts in proptest::collection::vec((any::<u8>(), 0..90_u8, any::<bool>()), 0..20)) {
        let (mut bytes, mut heads) = (Vec::new(), Vec::new());
        for (fill, length, message) in parts {
            let body = vec![fill; usize::from(length)];
            if message {
                let head = format!("RTSP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
                bytes.extend_from_slice(&head);
                heads.push(head);
            } else {
                bytes.extend([MARK, fill, 0, length]);
            }
            bytes.extend(body);
        }
        prop_assert_eq!(whole(&bytes), Ok((heads, true)));
    }
}
