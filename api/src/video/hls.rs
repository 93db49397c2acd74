//! HTTP Live Streaming (RFC 8216): the last seconds of a video as a playlist of segments, each from a key frame to the next.
//!
//! A segment's address is made of what its pictures carry, and so is its number in the list: every API makes the same list
//! of the same pictures, and a player may ask one for the list and another for the segments.

use std::{fmt::Write, sync::Arc};

use kadr_shared::message::video::AccessUnit;

use super::fmp4::{self, PackError};

/// The year 2026 began then.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// Segments in a playlist, at most.
const LISTED: usize = 8;

/// No segment of a usual camera is longer, and the longest must not change from one playlist to the next: browsers give up then.
const USUAL_SECONDS: f64 = 2.0;

/// Segments to begin with, at least.
const FEWEST: usize = 3;

/// The pictures of one segment, whole: another key frame has come behind them, and it is the next one.
struct Segment<'a> {
    units: &'a [Arc<AccessUnit>],
    stream: u64,
    group: u64,
    /// When the next one begins, in ticks.
    end: u64,
}

impl<'a> Segment<'a> {
    /// That which begins with the first of these pictures. `None`: it begins with no key frame, or is not whole.
    fn first_of(units: &'a [Arc<AccessUnit>]) -> Option<Self> {
        let first = units.first().filter(|unit| unit.key)?;
        let (stream, group) = (first.stream, first.group);
        let (units, rest) = units.split_at(units.iter().position(|unit| (unit.stream, unit.group) != (stream, group))?);
        let next = rest.first().filter(|unit| unit.key && (unit.stream, unit.group) == (stream, group + 1))?;
        Some(Self { units, stream, group, end: fmp4::ticks(next.pts_ms) })
    }

    fn seconds(&self) -> f64 {
        let begin = self.units.first().map_or(self.end, |unit| fmp4::ticks(unit.pts_ms));
        self.end.saturating_sub(begin) as f64 / f64::from(fmp4::TIMESCALE.get())
    }

    /// Whether this one is the next behind another.
    const fn follows(&self, before: &Self) -> bool {
        self.stream == before.stream && self.group == before.group + 1
    }
}

fn segments(units: &[Arc<AccessUnit>]) -> Vec<Segment<'_>> {
    (0..units.len()).filter_map(|at| Segment::first_of(units.get(at..)?)).collect()
}

/// The segments that a player may begin with: those up to the present, without a hole. What another encoder coded before has other
/// times; and where pictures are missing (nobody watched for a while, or they were lost) the list begins anew, since players
/// count segments by their places in it.
fn latest(units: &[Arc<AccessUnit>]) -> Vec<Segment<'_>> {
    let mut segments = segments(units);
    let goes_on = |last: &Segment<'_>| {
        units.last().is_some_and(|unit| (unit.stream, unit.group) == (last.stream, last.group + 1))
    };
    if !segments.last().is_some_and(goes_on) {
        return Vec::new();
    }
    let hole = segments.windows(2).rposition(|two| matches!(two, [before, next] if !next.follows(before)));
    segments.drain(..hole.map_or(0, |at| at + 1));
    segments
}

/// The playlist of a video; `None`: there are not enough whole segments yet.
pub(crate) fn playlist(units: &[Arc<AccessUnit>]) -> Option<String> {
    let segments = latest(units);
    // Browsers take a shorter one for damaged. A camera that sends few pictures has long segments instead.
    if segments.len() < FEWEST && segments.iter().map(Segment::seconds).sum::<f64>() < 2.0 * USUAL_SECONDS {
        return None;
    }
    let listed = segments.get(segments.len().saturating_sub(LISTED)..)?;
    let Segment { stream, group, .. } = *listed.first()?;
    let longest = listed.iter().map(Segment::seconds).fold(USUAL_SECONDS, f64::max).round();
    let mut list = String::new();
    // Encoders are numbered by milliseconds; some players keep a number of this kind in 31 bits, which are enough until 2039.
    let encoder = stream.saturating_sub(EPOCH_MS) / 200;
    // Writing into a String does not fail.
    let _ = write!(
        list,
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{longest}\n#EXT-X-MEDIA-SEQUENCE:{group}\n\
         #EXT-X-DISCONTINUITY-SEQUENCE:{encoder}\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"live/{stream}.mp4\"\n"
    );
    for segment in listed {
        let Some(captured_at) = segment.units.first().map(|unit| unit.captured_at) else { continue };
        let (seconds, group) = (segment.seconds(), segment.group);
        let _ =
            write!(list, "#EXT-X-PROGRAM-DATE-TIME:{captured_at}\n#EXTINF:{seconds:.3},\nlive/{stream}-{group}.m4s\n");
    }
    Some(list)
}

/// A part of a video, as its address names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// `{stream}.mp4`
    Beginning { stream: u64 },
    /// `{stream}-{group}.m4s`
    Segment { stream: u64, group: u64 },
}

impl Part {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name.strip_suffix(".mp4") {
            Some(stream) => Some(Self::Beginning { stream: stream.parse().ok()? }),
            None => {
                let (stream, group) = name.strip_suffix(".m4s")?.split_once('-')?;
                Some(Self::Segment { stream: stream.parse().ok()?, group: group.parse().ok()? })
            }
        }
    }

    /// Its bytes, if its pictures are (still) among these.
    pub(crate) fn pack(self, units: &[Arc<AccessUnit>]) -> Option<Result<Vec<u8>, PackError>> {
        match self {
            Self::Beginning { stream } => {
                units.iter().find(|unit| unit.key && unit.stream == stream).map(|key| fmp4::beginning(key))
            }
            Self::Segment { stream, group } => {
                let is_it = |unit: &Arc<AccessUnit>| (unit.stream, unit.group) == (stream, group);
                let segment = Segment::first_of(units.get(units.iter().position(is_it)?..)?)?;
                // A fragment's number only has to go up.
                let number = u32::try_from(group % u64::from(u32::MAX)).unwrap_or_default();
                Some(fmp4::fragment(segment.units, number, segment.end))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::{id::RunId, message::video::push_nal, time::Timestamp};

    use super::*;

    fn unit(stream: u64, group: u64, pts_ms: f64, key: bool) -> Arc<AccessUnit> {
        let mut body = Vec::new();
        if key {
            [&[0x67, 0x42, 0xc0, 0x1f, 9][..], &[0x68, 4]].iter().for_each(|nal| push_nal(&mut body, nal));
        }
        push_nal(&mut body, &[if key { 0x65 } else { 0x41 }, 5, 6]);
        let size = "64x64".parse().unwrap();
        let (run, captured_at) = (RunId::from_u128(1), Timestamp::from_millis(0));
        Arc::new(AccessUnit { run, stream, group, key, pts_ms, captured_at, size, body: body.into() })
    }

    const OLD: u64 = EPOCH_MS + 5_000;
    const NEW: u64 = EPOCH_MS + 6_000;

    /// An encoder's three whole segments and the beginning of a fourth, after another one's.
    fn video() -> Vec<Arc<AccessUnit>> {
        let groups = [(OLD, 90, 0.0), (OLD, 91, 1000.0), (NEW, 7, 2500.0), (NEW, 8, 3500.0), (NEW, 9, 5000.0)];
        let units = groups.into_iter().chain([(NEW, 10, 6000.0)]);
        let group = |(stream, group, at)| [unit(stream, group, at, true), unit(stream, group, at + 500.0, false)];
        units.flat_map(group).collect()
    }

    #[test]
    fn a_list_names_whole_segments_of_one_encoder() {
        let list = playlist(&video()).unwrap();
        let time = Timestamp::from_millis(0);
        let wanted = format!(
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n\
             #EXT-X-DISCONTINUITY-SEQUENCE:30\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"live/{NEW}.mp4\"\n\
             #EXT-X-PROGRAM-DATE-TIME:{time}\n#EXTINF:1.000,\nlive/{NEW}-7.m4s\n\
             #EXT-X-PROGRAM-DATE-TIME:{time}\n#EXTINF:1.500,\nlive/{NEW}-8.m4s\n\
             #EXT-X-PROGRAM-DATE-TIME:{time}\n#EXTINF:1.000,\nlive/{NEW}-9.m4s\n"
        );
        assert_eq!(list, wanted);
        assert_eq!(playlist(&video()[..10]), None, "too short for browsers");
    }

    #[test]
    fn what_is_listed_can_be_had() {
        let video = video();
        for line in playlist(&video).unwrap().lines().filter(|line| line.starts_with("live/")) {
            let part = Part::parse(line.trim_start_matches("live/")).unwrap();
            let bytes = part.pack(&video).unwrap().unwrap();
            assert_eq!(&bytes[4..8], b"moof", "{line}");
        }
        assert_eq!(&Part::Beginning { stream: NEW }.pack(&video).unwrap().unwrap()[4..8], b"ftyp");
        assert!(Part::Segment { stream: NEW, group: 10 }.pack(&video).is_none(), "not whole yet");
        for bad in ["", "5", "5.m4s", "x-1.m4s", "-1.mp4", "../5.mp4"] {
            assert_eq!(Part::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_hole_begins_the_list_anew_and_takes_nothing_away_that_was_listed() {
        let video = |groups: &[u64]| -> Vec<_> {
            let group = |&group: &u64| {
                let at = group as f64 * 1000.0;
                [unit(NEW, group, at, true), unit(NEW, group, at + 500.0, false)]
            };
            groups.iter().flat_map(group).collect()
        };
        let names = |units: &[Arc<AccessUnit>]| {
            let list = playlist(units)?;
            let groups = list.lines().filter_map(|line| line.strip_suffix(".m4s")?.rsplit_once('-')?.1.parse().ok());
            Some(groups.collect::<Vec<u64>>())
        };
        let before = [1, 2, 3, 4];
        assert_eq!(names(&video(&before)), Some(vec![1, 2, 3]));
        // The key frame of the fifth is lost; or nobody watched up to the twentieth.
        let lost: Vec<_> = video(&[1, 2, 3, 4, 5]).into_iter().filter(|unit| unit.group < 5 || !unit.key).collect();
        for video in [lost, video(&[1, 2, 3, 4, 20, 21])] {
            assert_eq!(names(&video), None);
            let had = |group: u64| Part::Segment { stream: NEW, group }.pack(&video).is_some();
            assert!(had(1) && had(3) && !had(4), "the fourth may lack its end");
        }
        assert_eq!(names(&video(&[1, 2, 3, 4, 20, 21, 22, 23])), Some(vec![20, 21, 22]));
    }
}
