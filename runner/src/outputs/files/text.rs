//! A file of lines that is gone on with: whatever a crash left at its end, it holds whole lines, and all of a frame or none.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use kadr_shared::{message::detection::FrameDetections, settings::TextFormat, time::Timestamp};

/// How much of a file's end is looked at first; more, if that does not suffice.
const LOOK: u64 = 64 << 10;

/// Where a file ends.
#[derive(Debug, PartialEq)]
pub(super) struct End {
    /// The frame to go on with.
    pub(super) next: u64,
    /// When a frame was taken that lies shortly before it.
    pub(super) taken: Option<Timestamp>,
    pub(super) is_empty: bool,
}

/// Opens a file, or makes it, and cuts off what is not whole. Nobody else writes to it while it is open.
pub(super) fn open(path: &Path, format: TextFormat) -> io::Result<(File, End)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    // An attempt that is on its way out may still have it.
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => io::Error::other("somebody else writes to it"),
        std::fs::TryLockError::Error(error) => error,
    })?;
    let length = file.seek(SeekFrom::End(0))?;
    let mut look = LOOK;
    loop {
        let from = length.saturating_sub(look);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        Read::by_ref(&mut file).take(length - from).read_to_end(&mut tail)?;
        if let Some((keep, end)) = end_of(&tail, from == 0, format) {
            file.set_len(from + keep as u64)?;
            return Ok((file, end));
        }
        look = look.saturating_mul(4);
    }
}

/// What a line says of its frame: its number, and when it was taken.
type Mark = (u64, Timestamp);

/// How much of a file's end is kept, and where it ends then; none: more of it has to be seen. `whole`: it is all of it.
fn end_of(tail: &[u8], whole: bool, format: TextFormat) -> Option<(usize, End)> {
    let mut lines = Vec::new();
    let mut begin = 0;
    for (at, _) in tail.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        lines.push((begin, at + 1));
        begin = at + 1;
    }
    if !whole && !lines.is_empty() {
        // Its beginning was not seen.
        lines.remove(0);
    }
    let read = |&(begin, end): &(usize, usize)| tail.get(begin..end).and_then(|line| mark(line, format));
    let empty = (0, End { next: 0, taken: None, is_empty: true });
    let Some(last) = lines.iter().rposition(|line| read(line).is_some()) else { return whole.then_some(empty) };
    let (frame, taken) = lines.get(last).and_then(read)?;
    let taken = Some(taken);
    match format {
        TextFormat::Jsonl => {
            let keep = lines.get(last).map_or(0, |(_, end)| *end);
            Some((keep, End { next: frame + 1, taken, is_empty: false }))
        }
        // Whether all of the last frame's lines are there can't be seen: it is written again.
        TextFormat::Csv => {
            let other = |line: &(usize, usize)| read(line).is_none_or(|(number, _)| number != frame);
            match lines.get(..last)?.iter().rev().find(|line| other(line)) {
                Some((_, end)) => Some((*end, End { next: frame, taken, is_empty: false })),
                None => whole.then_some(empty),
            }
        }
    }
}

fn mark(line: &[u8], format: TextFormat) -> Option<Mark> {
    let line = str::from_utf8(line).ok()?;
    match format {
        TextFormat::Jsonl => {
            serde_json::from_str(line).ok().map(|result: FrameDetections| (result.frame, result.captured_at))
        }
        TextFormat::Csv => {
            let mut fields = line.split(',').skip(2);
            Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use kadr_shared::csv;

    use super::*;

    fn result(frame: u64, objects: usize) -> FrameDetections {
        let found = serde_json::json!({"class": 0, "label": "a, b", "confidence": 0.5, "box": [1.0, 2.0, 3.0, 4.0]});
        serde_json::from_value(serde_json::json!({
            "scenario": "gate", "run": "00000000-0000-0000-0000-000000000001", "frame": frame, "pts_ms": 40.0,
            "captured_at": "2026-01-31T12:00:00.000Z", "width": 64, "height": 48, "detections": vec![found; objects],
            "model": {"name": "tiny", "sha256": "0", "precision": "f32"}, "timing_ms": {"queue": 0.0, "inference": 0.0},
        }))
        .unwrap()
    }

    fn text(format: TextFormat, frames: std::ops::Range<u64>) -> String {
        let lines = frames.map(|frame| match format {
            TextFormat::Jsonl => serde_json::to_string(&result(frame, 2)).unwrap() + "\n",
            TextFormat::Csv => csv::lines(&result(frame, 2)),
        });
        let header = if format == TextFormat::Csv { csv::HEADER } else { "" };
        header.to_owned() + &lines.collect::<String>()
    }

    #[test]
    fn wherever_it_was_cut_it_goes_on_to_be_the_same() {
        let folder = tempfile::tempdir().unwrap();
        for format in [TextFormat::Jsonl, TextFormat::Csv] {
            let all = text(format, 0..4);
            for cut in 0..=all.len() {
                let path = folder.path().join("some").join("results");
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &all.as_bytes()[..cut]).unwrap();
                let (mut file, end) = open(&path, format).unwrap();
                let rest = text(format, end.next..4);
                let rest = if end.is_empty { &rest } else { rest.strip_prefix(csv::HEADER).unwrap_or(&rest) };
                file.write_all(rest.as_bytes()).unwrap();
                assert_eq!(std::fs::read_to_string(&path).unwrap(), all, "{format:?} cut at {cut}");
                let taken: Timestamp = "2026-01-31T12:00:00.000Z".parse().unwrap();
                assert!(end.is_empty || end.taken == Some(taken));
            }
        }
    }

    #[test]
    fn a_long_file_is_read_at_its_end_and_what_the_disk_made_up_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results");
        for format in [TextFormat::Jsonl, TextFormat::Csv] {
            let mut all = text(format, 0..3000).into_bytes();
            assert!(all.len() as u64 > 3 * LOOK);
            all.extend([0; 5000]);
            all.push(b'\n');
            std::fs::write(&path, &all).unwrap();
            let (_, end) = open(&path, format).unwrap();
            assert_eq!(end.next, if format == TextFormat::Csv { 2999 } else { 3000 });
            // One frame that is longer than what is looked at first.
            let long = csv::lines(&result(8, 2000));
            std::fs::write(&path, text(TextFormat::Csv, 0..8) + &long).unwrap();
            let (_, end) = open(&path, TextFormat::Csv).unwrap();
            assert_eq!((end.next, end.is_empty), (8, false));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text(TextFormat::Csv, 0..8));
        }
    }

    #[test]
    fn two_do_not_write_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results");
        let held = open(&path, TextFormat::Jsonl).unwrap();
        assert!(open(&path, TextFormat::Jsonl).unwrap_err().to_string().contains("somebody else"));
        drop(held);
        assert!(open(&path, TextFormat::Jsonl).is_ok());
    }
}
