use std::io::Cursor;

use proptest::prelude::*;

use super::{super::samples, *};

fn open(bytes: &[u8]) -> Result<Zip<Cursor<Vec<u8>>>, ZipError> {
    Zip::open(Cursor::new(bytes.to_vec()))
}

fn two() -> Vec<u8> {
    samples::zip(&[("a/b", b"hello".to_vec()), ("c", Vec::new())])
}

#[test]
fn entries_are_read_by_name() {
    assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    let mut zip = open(&two()).unwrap();
    assert_eq!(zip.read("a/b", 5).unwrap(), b"hello");
    assert_eq!(zip.read("c", 0).unwrap(), b"");
    assert!(matches!(zip.read("a/b", 4), Err(ZipError::Size { size: 5, most: 4, .. })));
    assert!(matches!(zip.read("d", 9), Err(ZipError::Missing(_))));
}

/// As torch ends its archives: the directory's place in 64 bits, and nothing in the old record.
#[test]
fn a_directory_may_be_told_of_in_64_bits() {
    let small = two();
    let (before, old) = small.split_at(small.len() - 22);
    let wide = |at: usize| u64::from(u32::from_le_bytes(old[at..at + 4].try_into().unwrap())).to_le_bytes();
    let large = [b"PK\x06\x06".as_slice(), &[0; 36], &wide(12), &wide(16)].concat();
    let with = |offset: u64| {
        let locator = [b"PK\x06\x07".as_slice(), &[0; 4], &offset.to_le_bytes(), &[1, 0, 0, 0]].concat();
        let old = [b"PK\x05\x06".as_slice(), &[0; 4], &[0xff; 12], &[0; 2]].concat();
        [before, &large, &locator, &old].concat()
    };
    assert_eq!(open(&with(before.len() as u64)).unwrap().read("a/b", 5).unwrap(), b"hello");
    for wrong in [0, 1 << 20, u64::MAX] {
        assert!(matches!(open(&with(wrong)), Err(ZipError::NoDirectory)), "{wrong}");
    }
}

#[test]
fn every_beginning_of_an_archive_is_refused() {
    let whole = two();
    for length in 0..whole.len() {
        assert!(open(&whole[..length]).is_err(), "{length}");
    }
}

#[test]
fn sizes_that_are_not_there_reserve_nothing() {
    let whole = two();
    let directory = whole.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let end = whole.len() - 22;
    let with = |at: usize, new: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    let huge = 0xf000_0000u32.to_le_bytes();
    let mut zip = open(&with(directory + 20, &[huge, huge].concat())).unwrap();
    assert!(matches!(zip.read("a/b", u64::MAX), Err(ZipError::Outside(_))));
    assert!(matches!(open(&with(end + 12, &huge)), Err(ZipError::LongDirectory(_))));
    assert!(matches!(open(&with(end + 16, &huge)), Err(ZipError::NoDirectory)));
    // Compressed: a bomb would say so.
    let mut zip = open(&with(directory + 10, &8u16.to_le_bytes())).unwrap();
    assert!(matches!(zip.read("a/b", u64::MAX), Err(ZipError::Compressed(_))));
    let mut zip = open(&with(33, b"J")).unwrap();
    assert!(matches!(zip.read("a/b", 5), Err(ZipError::Checksum(_))));
}

#[test]
fn two_entries_of_one_name_are_refused() {
    let bytes = samples::zip(&[("a", vec![1]), ("a", vec![2])]);
    assert!(matches!(open(&bytes), Err(ZipError::Directory(_))));
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = two();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(mut zip) = open(&bytes) {
            let names: Vec<String> = zip.names().map(str::to_owned).collect();
            for name in names {
                let _ = zip.read(&name, u64::MAX);
            }
        }
    }
}
