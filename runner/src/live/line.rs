//! Frames that wait to be shown, in their order, each until it is known what to draw on it. Pure: the time is given.
//!
//! A frame that is analysed waits for its result, a live one not for ever; one that is not is shown with what was found around
//! it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use kadr_shared::{message::detection::Detection, settings::Between};

use super::between::between;
use crate::source::Frame;

/// What was found is shown on later frames for so long, in milliseconds of the video: objects move on.
const HELD_MS: f64 = 2_000.0;

/// More is not kept waiting, in bytes of pictures: the first one is shown as it is.
const MOST_BYTES: usize = 128 << 20;

/// Frames on their way to the screen.
pub(super) struct Line {
    /// How long a frame waits for what to draw; `None`: until it comes.
    patience: Option<Duration>,
    between: Between,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// What was found last before the first one that waits.
    before: Option<Found>,
}

struct Waiting {
    frame: Frame,
    came: Instant,
    result: Result,
}

enum Result {
    Coming,
    /// It was not analysed, or in vain.
    None,
    Found(Vec<Detection>),
}

/// What was found in a frame.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) pts_ms: f64,
    pub(super) detections: Vec<Detection>,
}

impl Line {
    /// `before`: what was found last, if anything was.
    pub(super) const fn new(patience: Option<Duration>, between: Between, before: Option<Found>) -> Self {
        Self { patience, between, waiting: VecDeque::new(), bytes: 0, before }
    }

    /// The next frame; `analysed`: a result of it will come.
    pub(super) fn enter(&mut self, frame: Frame, analysed: bool, came: Instant) {
        let result = if analysed { Result::Coming } else { Result::None };
        self.bytes += frame.picture.bytes().len();
        self.waiting.push_back(Waiting { frame, came, result });
    }

    pub(super) fn found(&mut self, found: Found) {
        match self.waiting.iter_mut().find(|waiting| waiting.frame.number == found.number) {
            Some(waiting) => waiting.result = Result::Found(found.detections),
            // It was shown without: what was found holds for those behind it.
            None if self.before.as_ref().is_none_or(|before| before.number < found.number) => self.before = Some(found),
            None => {}
        }
    }

    pub(super) fn lost(&mut self, number: u64) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.frame.number == number) {
            waiting.result = Result::None;
        }
    }

    /// When the first frame is shown at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        Some(self.waiting.front()?.came + self.patience?)
    }

    /// The next frame that is to be shown now, and what is drawn on it.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Frame, Vec<Detection>)> {
        let overdue = self.bytes > MOST_BYTES || self.due().is_some_and(|due| due <= now);
        self.take(overdue)
    }

    /// The next frame, as it is: nothing more will be known.
    pub(super) fn rest(&mut self) -> Option<(Frame, Vec<Detection>)> {
        self.take(true)
    }

    fn take(&mut self, overdue: bool) -> Option<(Frame, Vec<Detection>)> {
        let Waiting { frame, result, .. } = self.waiting.front()?;
        let detections = match result {
            Result::Found(_) => Vec::new(),
            Result::Coming if overdue => self.held(frame.pts_ms),
            Result::Coming => return None,
            Result::None if self.between == Between::Hold => self.held(frame.pts_ms),
            Result::None => match self.after() {
                After::Found(pts_ms, detections) => self.moved(frame.pts_ms, pts_ms, detections),
                After::Coming if !overdue => return None,
                After::Coming => self.held(frame.pts_ms),
            },
        };
        let Waiting { frame, result, .. } = self.waiting.pop_front()?;
        self.bytes -= frame.picture.bytes().len();
        match result {
            Result::Found(found) => {
                self.before = Some(Found { number: frame.number, pts_ms: frame.pts_ms, detections: found.clone() });
                Some((frame, found))
            }
            Result::Coming | Result::None => Some((frame, detections)),
        }
    }

    fn held(&self, pts_ms: f64) -> Vec<Detection> {
        let recent = self.before.as_ref().filter(|before| pts_ms - before.pts_ms <= HELD_MS);
        recent.map_or(Vec::new(), |before| before.detections.clone())
    }

    /// What the next frame that is analysed gives, behind the first one.
    fn after(&self) -> After<'_> {
        let later = self.waiting.iter().skip(1).find_map(|waiting| match &waiting.result {
            Result::Found(detections) => Some(After::Found(waiting.frame.pts_ms, detections)),
            Result::Coming => Some(After::Coming),
            Result::None => None,
        });
        later.unwrap_or(After::Coming)
    }

    fn moved(&self, at_ms: f64, after_ms: f64, after: &[Detection]) -> Vec<Detection> {
        match &self.before {
            Some(before) if after_ms > before.pts_ms && at_ms - before.pts_ms <= HELD_MS => {
                let part = ((at_ms - before.pts_ms) / (after_ms - before.pts_ms)).clamp(0.0, 1.0);
                between(&before.detections, after, part as f32)
            }
            _ => self.held(at_ms),
        }
    }
}

enum After<'a> {
    Found(f64, &'a [Detection]),
    Coming,
}

#[cfg(test)]
mod tests {
    use kadr_shared::{geometry::Size, message::frame::Colour};

    use super::*;
    use crate::picture::Picture;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn frame(number: u64) -> Frame {
        let picture = Picture::uniform(Size { width: 2, height: 2 }, Colour::default(), [0; 3]).unwrap();
        Frame { number, pts_ms: number as f64 * 40.0, captured_at: None, picture }
    }

    fn car(left: f32) -> Vec<Detection> {
        vec![Detection { class: 2, label: "car".into(), confidence: 0.5, bbox: [left, 0.0, left + 100.0, 50.0] }]
    }

    fn found(number: u64, pts_ms: f64, left: f32) -> Found {
        Found { number, pts_ms, detections: car(left) }
    }

    /// The numbers and left edges of what is shown now.
    fn shown(line: &mut Line, now: Instant) -> Vec<(u64, Option<f32>)> {
        let left = |detections: Vec<Detection>| detections.first().map(|found| found.bbox[0]);
        std::iter::from_fn(|| line.next(now)).map(|(frame, found)| (frame.number, left(found))).collect()
    }

    #[test]
    fn frames_between_show_what_was_found_before_them() {
        let (mut line, now) = (Line::new(Some(PATIENCE), Between::Hold, None), Instant::now());
        (0..4).for_each(|number| line.enter(frame(number), number % 2 == 0, now));
        assert_eq!(shown(&mut line, now), []);
        line.found(found(0, 0.0, 10.0));
        assert_eq!(shown(&mut line, now), [(0, Some(10.0)), (1, Some(10.0))]);
        line.found(found(2, 80.0, 20.0));
        assert_eq!(shown(&mut line, now), [(2, Some(20.0)), (3, Some(20.0))]);
        line.enter(frame(4), true, now);
        line.lost(4);
        assert_eq!(shown(&mut line, now), [(4, Some(20.0))], "in vain");
        line.enter(frame(80), false, now);
        assert_eq!(shown(&mut line, now), [(80, None)], "too long ago");
        let mut later = Line::new(Some(PATIENCE), Between::Hold, Some(found(2, 80.0, 20.0)));
        later.enter(frame(3), false, now);
        assert_eq!(shown(&mut later, now), [(3, Some(20.0))], "found before anybody looked on");
    }

    #[test]
    fn a_live_frame_does_not_wait_for_ever_and_a_files_does() {
        let now = Instant::now();
        let mut line = Line::new(Some(PATIENCE), Between::Hold, None);
        line.enter(frame(0), true, now);
        line.enter(frame(1), false, now);
        assert_eq!(line.due(), Some(now + PATIENCE));
        assert_eq!(shown(&mut line, now + PATIENCE), [(0, None), (1, None)]);
        line.found(found(0, 0.0, 10.0));
        line.enter(frame(2), false, now);
        assert_eq!(shown(&mut line, now), [(2, Some(10.0))], "late, but not in vain");

        let mut file = Line::new(None, Between::Hold, None);
        file.enter(frame(0), true, now);
        assert_eq!((file.due(), shown(&mut file, now + 100 * PATIENCE)), (None, vec![]));
        assert!(file.rest().is_some() && file.rest().is_none(), "at its end it is shown as it is");
    }

    #[test]
    fn boxes_move_from_one_result_to_the_next() {
        let (mut line, now) = (Line::new(Some(PATIENCE), Between::Interpolate, None), Instant::now());
        (0..5).for_each(|number| line.enter(frame(number), number % 4 == 0, now));
        line.found(found(0, 0.0, 10.0));
        assert_eq!(shown(&mut line, now), [(0, Some(10.0))], "the others wait");
        line.found(found(4, 160.0, 50.0));
        let moved = [(1, Some(20.0)), (2, Some(30.0)), (3, Some(40.0)), (4, Some(50.0))];
        assert_eq!(shown(&mut line, now), moved);
        line.enter(frame(5), false, now);
        assert_eq!(shown(&mut line, now), []);
        assert_eq!(shown(&mut line, now + PATIENCE), [(5, Some(50.0))]);
    }
}
