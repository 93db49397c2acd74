//! Which frames are analysed. By the frames' own numbers and times, so that a later attempt chooses the same of a file.

use kadr_shared::settings::Preprocess;

use crate::source::Frame;

/// Frames in which a camera's decoder can be ready again that had nothing to do.
const AHEAD_FRAMES: u64 = 50;
/// The same, in milliseconds.
const AHEAD_MS: f64 = 2_000.0;

/// Chooses from frames in their order.
#[derive(Debug, Clone)]
pub(crate) enum Selection {
    All,
    Every(u64),
    Fps {
        fps: f64,
        /// The span of a frame's length that the last frame lay in.
        last: Option<u64>,
    },
}

impl Selection {
    pub(crate) fn new(settings: &Preprocess) -> Self {
        match (settings.every, settings.fps) {
            (Some(every), _) => Self::Every(every.get().into()),
            (None, Some(fps)) => Self::Fps { fps, last: None },
            (None, None) => Self::All,
        }
    }

    /// Whether the next frame is analysed.
    pub(crate) fn takes(&mut self, frame: &Frame) -> bool {
        match self {
            Self::All => true,
            Self::Every(every) => frame.number.is_multiple_of(*every),
            // The first frame of each span.
            Self::Fps { fps, last } => {
                let span = span(frame.pts_ms, *fps);
                last.replace(span) != Some(span)
            }
        }
    }

    /// Whether one of the next frames is analysed: the next one has this number, the last one was shown then, `interval_ms`
    /// after the one before it. Said early enough to be ready for it.
    pub(crate) fn soon(&self, number: u64, pts_ms: f64, interval_ms: f64) -> bool {
        match self {
            Self::All => true,
            Self::Every(every) => number.next_multiple_of(*every) - number < AHEAD_FRAMES,
            Self::Fps { fps, last } => *last != Some(span(pts_ms + AHEAD_MS.max(2.0 * interval_ms), *fps)),
        }
    }
}

/// Which frame's length this moment lies in. A hair is added: 40 ms times 25 a second is a bit less than 1 in floats.
fn span(pts_ms: f64, fps: f64) -> u64 {
    (pts_ms * fps / 1000.0 + 1e-6) as u64
}

#[cfg(test)]
mod tests {
    use kadr_shared::{geometry::Size, message::frame::Colour};

    use super::*;
    use crate::picture::Picture;

    fn chosen(json: &str, interval_ms: f64) -> Vec<u64> {
        let mut selection = Selection::new(&serde_json::from_str(json).unwrap());
        let picture = Picture::uniform(Size { width: 2, height: 2 }, Colour::default(), [0; 3]).unwrap();
        let frame =
            |number| Frame { number, pts_ms: number as f64 * interval_ms, captured_at: None, picture: picture.clone() };
        (0..25).filter(|&number| selection.takes(&frame(number))).collect()
    }

    #[test]
    fn what_is_analysed_is_known_in_time() {
        let asleep = |json: &str, interval_ms: f64| {
            let mut selection = Selection::new(&serde_json::from_str(json).unwrap());
            let picture = Picture::uniform(Size { width: 2, height: 2 }, Colour::default(), [0; 3]).unwrap();
            let mut asleep = 0;
            for number in 0..2_000 {
                let pts_ms = number as f64 * interval_ms;
                let ready = selection.soon(number, pts_ms - interval_ms, interval_ms);
                let frame = Frame { number, pts_ms, captured_at: None, picture: picture.clone() };
                // What is passed is not asked about.
                let wanted = selection.clone().takes(&frame);
                assert!(ready || !wanted, "{json}: frame {number} was not seen coming");
                if ready {
                    selection.takes(&frame);
                } else {
                    asleep += 1;
                }
            }
            asleep
        };
        assert_eq!(asleep("{}", 40.0), 0);
        assert_eq!(asleep(r#"{"every": 25}"#, 40.0), 0, "there is no rest in between");
        assert_eq!(asleep(r#"{"every": 1000}"#, 40.0), 2 * (1_000 - 50));
        assert_eq!(asleep(r#"{"fps": 5}"#, 40.0), 0);
        assert_eq!(asleep(r#"{"fps": 0.1}"#, 40.0), 8 * (250 - 50));
        assert!(asleep(r#"{"fps": 0.01}"#, 10_000.0) > 1_000, "a slow camera");
    }

    #[test]
    fn so_many_are_chosen_as_are_asked_for() {
        assert_eq!(chosen("{}", 40.0).len(), 25);
        assert_eq!(chosen(r#"{"every": 10}"#, 40.0), [0, 10, 20]);
        assert_eq!(chosen(r#"{"fps": 5}"#, 40.0), [0, 5, 10, 15, 20]);
        assert_eq!(chosen(r#"{"fps": 10}"#, 40.0), [0, 3, 5, 8, 10, 13, 15, 18, 20, 23]);
        assert_eq!(chosen(r#"{"fps": 25}"#, 40.0).len(), 25);
        assert_eq!(chosen(r#"{"fps": 100}"#, 40.0).len(), 25, "no more than there are");
    }
}
