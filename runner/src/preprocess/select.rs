//! Which frames are analysed. By the frames' own numbers and times, so that a later attempt chooses the same of a file.

use kadr_shared::settings::Preprocess;

use crate::source::Frame;

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
            Self::Fps { fps, last } => {
                // The first frame of each span. A hair is added: 40 ms times 25 a second is a bit less than 1 in floats.
                let span = (frame.pts_ms * *fps / 1000.0 + 1e-6) as u64;
                last.replace(span) != Some(span)
            }
        }
    }
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
    fn so_many_are_chosen_as_are_asked_for() {
        assert_eq!(chosen("{}", 40.0).len(), 25);
        assert_eq!(chosen(r#"{"every": 10}"#, 40.0), [0, 10, 20]);
        assert_eq!(chosen(r#"{"fps": 5}"#, 40.0), [0, 5, 10, 15, 20]);
        assert_eq!(chosen(r#"{"fps": 10}"#, 40.0), [0, 3, 5, 8, 10, 13, 15, 18, 20, 23]);
        assert_eq!(chosen(r#"{"fps": 25}"#, 40.0).len(), 25);
        assert_eq!(chosen(r#"{"fps": 100}"#, 40.0).len(), 25, "no more than there are");
    }
}
