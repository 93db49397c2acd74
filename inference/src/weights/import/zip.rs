//! A zip archive as torch writes it: entries lie in it as they are, uncompressed.
//!
//! Only the directory and the entries asked for are read, each of at most the size that the caller allows. Compressed
//! entries are refused, so that no small file can become a large one. Which entries there are is not known here.

use std::{
    collections::HashMap,
    io::{self, Read, Seek, SeekFrom},
};

/// The longest directory: torch writes some hundred entries of about a hundred bytes.
const MOST_DIRECTORY: u64 = 4 << 20;
/// The end's record, and the longest comment behind it.
const LONGEST_TAIL: u64 = 22 + 65_535;

/// An archive's directory, and where to read its entries.
#[derive(Debug)]
pub(super) struct Zip<R> {
    reader: R,
    length: u64,
    entries: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Of its own header.
    offset: u64,
    size: u64,
    crc: u32,
    method: u16,
}

/// An archive that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    #[error("the archive can't be read")]
    Read(#[from] io::Error),
    #[error("the archive has no directory at its end: is the file complete?")]
    NoDirectory,
    #[error("the archive's directory is damaged at entry {0}")]
    Directory(usize),
    #[error("the archive's directory has {0} bytes, at most {MOST_DIRECTORY} are read")]
    LongDirectory(u64),
    #[error("there is no entry {0} in the archive")]
    Missing(String),
    #[error("entry {0} is compressed: torch writes entries as they are")]
    Compressed(String),
    #[error("entry {name} has {size} bytes, at most {most} are expected")]
    Size { name: String, size: u64, most: u64 },
    #[error("entry {0} does not lie in the file: is it complete?")]
    Outside(String),
    #[error("entry {0} is damaged: its checksum is another one")]
    Checksum(String),
}

impl<R: Read + Seek> Zip<R> {
    pub(super) fn open(mut reader: R) -> Result<Self, ZipError> {
        let length = reader.seek(SeekFrom::End(0))?;
        let tail_at = length.saturating_sub(LONGEST_TAIL);
        let tail = read_at(&mut reader, tail_at, length - tail_at)?;
        let (at, end) = (0..tail.len().saturating_sub(21))
            .rev()
            .find_map(|at| tail.get(at..at + 22).filter(|end| end.starts_with(b"PK\x05\x06")).map(|end| (at, end)))
            .ok_or(ZipError::NoDirectory)?;
        let mut directory = (u64::from(number32(end, 16)?), u64::from(number32(end, 12)?));
        // Where the numbers are too small for the archive, larger ones stand before: torch always writes both.
        let locator = at.checked_sub(20).and_then(|from| tail.get(from..at)).filter(|l| l.starts_with(b"PK\x06\x07"));
        if let Some(locator) = locator {
            let end = read_within(&mut reader, length, number64(locator, 8)?, 56)?.ok_or(ZipError::NoDirectory)?;
            if !end.starts_with(b"PK\x06\x06") {
                return Err(ZipError::NoDirectory);
            }
            directory = (number64(&end, 48)?, number64(&end, 40)?);
        }
        let (offset, size) = directory;
        if size > MOST_DIRECTORY {
            return Err(ZipError::LongDirectory(size));
        }
        let bytes = read_within(&mut reader, length, offset, size)?.ok_or(ZipError::NoDirectory)?;
        Ok(Self { reader, length, entries: entries(&bytes)? })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(super) fn size(&self, name: &str) -> Result<u64, ZipError> {
        Ok(self.entry(name)?.size)
    }

    fn entry(&self, name: &str) -> Result<Entry, ZipError> {
        self.entries.get(name).copied().ok_or_else(|| ZipError::Missing(shortened(name)))
    }

    /// An entry of at most `most` bytes.
    pub(super) fn read(&mut self, name: &str, most: u64) -> Result<Vec<u8>, ZipError> {
        let Entry { offset, size, crc, method } = self.entry(name)?;
        let name = || shortened(name);
        if method != 0 {
            return Err(ZipError::Compressed(name()));
        }
        if size > most {
            return Err(ZipError::Size { name: name(), size, most });
        }
        let outside = || ZipError::Outside(name());
        let header = read_within(&mut self.reader, self.length, offset, 30)?.ok_or_else(outside)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(outside());
        }
        let skipped = 30 + u64::from(number16(&header, 26)?) + u64::from(number16(&header, 28)?);
        let bytes = read_within(&mut self.reader, self.length, offset + skipped, size)?.ok_or_else(outside)?;
        if checksum(&bytes) != crc {
            return Err(ZipError::Checksum(name()));
        }
        Ok(bytes)
    }
}

fn entries(mut bytes: &[u8]) -> Result<HashMap<String, Entry>, ZipError> {
    let mut entries = HashMap::new();
    while !bytes.is_empty() {
        let (name, entry, rest) = entry(bytes).ok_or(ZipError::Directory(entries.len()))?;
        // Two entries of one name are read as one thing by some and as another by others.
        if entries.insert(name, entry).is_some() {
            return Err(ZipError::Directory(entries.len()));
        }
        bytes = rest;
    }
    Ok(entries)
}

/// The first entry of a directory, and what follows it.
fn entry(bytes: &[u8]) -> Option<(String, Entry, &[u8])> {
    let (header, rest) = bytes.split_at_checked(46)?;
    if !header.starts_with(b"PK\x01\x02") {
        return None;
    }
    let length = |at: usize| number16(header, at).ok().map(usize::from);
    let (name, rest) = rest.split_at_checked(length(28)?)?;
    let (extra, rest) = rest.split_at_checked(length(30)?)?;
    let (_comment, rest) = rest.split_at_checked(length(32)?)?;
    let number = |at: usize| number32(header, at).ok();
    let (packed, size, offset) = (number(20)?, number(24)?, number(42)?);
    // What does not fit into 32 bits stands in an extra field, in this order.
    let mut large = large(extra);
    let mut whole = |small: u32| match small {
        u32::MAX => {
            let (number, rest) = large.split_first_chunk::<8>()?;
            large = rest;
            Some(u64::from_le_bytes(*number))
        }
        small => Some(small.into()),
    };
    let (size, packed, offset) = (whole(size)?, whole(packed)?, whole(offset)?);
    let method = number16(header, 10).ok()?;
    // As it is, it can't have two sizes.
    if method == 0 && size != packed {
        return None;
    }
    let name = str::from_utf8(name).ok()?.to_owned();
    Some((name, Entry { offset, size, crc: number(16)?, method }, rest))
}

/// The extra field of large numbers.
fn large(mut extra: &[u8]) -> &[u8] {
    while let Some((&[a, b, c, d], rest)) = extra.split_first_chunk::<4>() {
        let Some((field, rest)) = rest.split_at_checked(u16::from_le_bytes([c, d]).into()) else { break };
        if u16::from_le_bytes([a, b]) == 1 {
            return field;
        }
        extra = rest;
    }
    &[]
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ZipError> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(ZipError::NoDirectory)
}

fn number16(bytes: &[u8], at: usize) -> Result<u16, ZipError> {
    number(bytes, at).map(u16::from_le_bytes)
}

fn number32(bytes: &[u8], at: usize) -> Result<u32, ZipError> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn number64(bytes: &[u8], at: usize) -> Result<u64, ZipError> {
    number(bytes, at).map(u64::from_le_bytes)
}

/// `None`: not all of it lies in the file.
fn read_within<R: Read + Seek>(reader: &mut R, length: u64, from: u64, size: u64) -> io::Result<Option<Vec<u8>>> {
    match from.checked_add(size) {
        Some(end) if end <= length => read_at(reader, from, size).map(Some),
        _ => Ok(None),
    }
}

/// The caller knows that so much is there.
fn read_at<R: Read + Seek>(reader: &mut R, from: u64, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.seek(SeekFrom::Start(from))?;
    reader.take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

pub(super) fn shortened(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}

/// CRC-32 as zip and PNG have it.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0u32, |crc, &byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ TABLE.get(usize::from(low ^ byte)).copied().unwrap_or(0)
    })
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests;
