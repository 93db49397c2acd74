//! Marks what was detected on a full frame: a box a object, and a label with its confidence; and in a corner the scenario's
//! name and the time.
//!
//! Everything is drawn on the YUV planes; the frame is never converted. Lines and labels begin and end on even
//! pixels, where a chroma sample covers exactly the pixels that it colours, so that edges stay sharp. What is drawn is
//! given: nothing is filtered, tracked or counted here.

mod canvas;
mod caption;
mod palette;
mod text;

use std::fmt::Write;

use kadr_shared::{geometry::Size, message::detection::Detection, settings};

pub(crate) use self::caption::caption;
use self::{
    canvas::{Canvas, Rect},
    palette::Paint,
    text::{Mask, Typesetter},
};
use crate::picture::Picture;

/// No class has a name near as long; what is longer is cut.
const MAX_LABEL_CHARS: usize = 40;
/// A scenario's name and a time are not longer.
const MAX_CAPTION_CHARS: usize = 100;
/// Smaller letters can't be read.
const LEAST_FONT: f32 = 8.0;

/// Draws frame after frame; keeps its glyphs between them.
pub struct Overlay {
    wanted: settings::Overlay,
    typesetter: Typesetter,
    /// The label being set.
    text: String,
}

/// How large things are drawn on a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Style {
    line: u32,
    font: f32,
    /// Between a label's text and its edges.
    margin: u32,
}

impl Style {
    /// Follows the shorter side, so that an upright picture looks like the same one lying. `scale` times as large as usual.
    fn of(size: Size, scale: f32) -> Self {
        let side = size.width.min(size.height) as f32;
        let even = |length: f32| (((length / 2.0).round() as u32) * 2).max(2);
        let font = ((side * 0.026).round().max(13.0) * scale).max(LEAST_FONT);
        Self { line: even(side / 220.0 * scale), font, margin: even(font * 0.25) }
    }
}

impl Default for Overlay {
    fn default() -> Self {
        Self::new(settings::Overlay::default())
    }
}

impl Overlay {
    pub fn new(wanted: settings::Overlay) -> Self {
        Self { wanted, typesetter: Typesetter::new(), text: String::new() }
    }

    /// Writes a line into the lower left corner, on a dark ground, if captions are wanted.
    pub fn caption(&mut self, picture: &mut Picture, line: &str) {
        if !self.wanted.caption {
            return;
        }
        let (size, colour) = (picture.size(), picture.colour());
        let style = Style::of(size, self.wanted.scale.get());
        self.typesetter.set_size(style.font);
        let line: String = line.chars().take(MAX_CAPTION_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = self.typesetter.set(&line);
        let (width, height) = (text.width + 2 * style.margin, text.height.next_multiple_of(2));
        let top = size.height.saturating_sub(height) / 2 * 2;
        let plate = Rect { left: 0, top, right: width, bottom: size.height }.even(size);
        let mut canvas = Canvas::new(picture);
        canvas.fill(plate, Paint::BLACK.in_yuv(colour));
        canvas.blend(style.margin, plate.top, plate, text, Paint::WHITE.in_yuv(colour));
    }

    /// Draws `detections`, whose boxes are in `picture`'s own pixels, the surest on top.
    ///
    /// Boxes are clipped to the picture; one that lies outside it or has a coordinate that is no number is left out.
    pub fn draw(&mut self, picture: &mut Picture, detections: &[Detection]) {
        let (size, colour) = (picture.size(), picture.colour());
        let style = Style::of(size, self.wanted.scale.get());
        let named = self.wanted.labels || self.wanted.confidence;
        self.typesetter.set_size(style.font);
        let mut marked: Vec<_> =
            detections.iter().filter_map(|found| Some((found, visible(found.bbox, size)?))).collect();
        marked.sort_by(|(a, _), (b, _)| b.confidence.total_cmp(&a.confidence));
        // The surest has the first choice of a place for its label.
        let mut plates = Vec::with_capacity(marked.len());
        for (found, frame) in &marked {
            let text = self.set(found);
            plates.push(plate(size, *frame, (text.width, text.height), style, &plates));
        }
        let mut canvas = Canvas::new(picture);
        for (found, frame) in marked.iter().rev().filter(|_| self.wanted.boxes) {
            canvas.outline(*frame, style.line, Paint::of_class(found.class).in_yuv(colour));
        }
        // After all boxes: no line crosses a label.
        for ((found, _), plate) in marked.iter().zip(&plates).rev().filter(|_| named) {
            let paint = Paint::of_class(found.class);
            let text = self.set(found);
            canvas.fill(*plate, paint.in_yuv(colour));
            canvas.blend(plate.left + style.margin, plate.top, *plate, text, paint.contrast().in_yuv(colour));
        }
    }

    /// The label of a detection, such as "car 0.87".
    fn set(&mut self, found: &Detection) -> &Mask {
        self.text.clear();
        if self.wanted.labels {
            self.text.extend(found.label.chars().take(MAX_LABEL_CHARS).map(|c| if c.is_control() { ' ' } else { c }));
        }
        if self.wanted.confidence && found.confidence.is_finite() {
            let between = if self.text.is_empty() { "" } else { " " };
            // Writing into a String does not fail.
            let _ = write!(self.text, "{between}{:.2}", found.confidence);
        }
        self.typesetter.set(&self.text)
    }
}

/// The part of a box that lies within the picture, on whole pixels.
fn visible(bbox: [f32; 4], size: Size) -> Option<Rect> {
    let [x1, y1, x2, y2] = bbox;
    if bbox.iter().any(|v| v.is_nan()) {
        return None;
    }
    let span = |a: f32, b: f32, limit: u32| {
        let (low, high) = (a.min(b), a.max(b));
        // Casting a float saturates, so that an infinite edge is the picture's.
        (low < limit as f32 && high > 0.0).then(|| (low as u32, (high.ceil() as u32).min(limit)))
    };
    let (left, right) = span(x1, x2, size.width)?;
    let (top, bottom) = span(y1, y2, size.height)?;
    Some(Rect { left, top, right, bottom }.even(size))
}

/// Where a label of `text` pixels lies: on the box's upper edge, or beneath that edge if there is no room above; away
/// from the labels that are `taken` if one or two rows further are enough for that.
fn plate(size: Size, frame: Rect, text: (u32, u32), style: Style, taken: &[Rect]) -> Rect {
    let (width, height) = (text.0 + 2 * style.margin, text.1.next_multiple_of(2));
    // Pushed to the left where it would leave the picture; cut on the right only if it is wider than that.
    let left = frame.left.min(size.width.saturating_sub(width.next_multiple_of(2)) / 2 * 2);
    let row = |index: u32| {
        let top = match (frame.top + style.line).checked_sub(height) {
            Some(above) => above.checked_sub(index * height)? / 2 * 2,
            None => frame.top + index * height,
        };
        Some(Rect { left, top, right: left + width, bottom: top + height }.even(size))
    };
    let first = row(0).unwrap_or(frame);
    (0..3).filter_map(row).find(|place| !taken.iter().any(|other| place.overlaps(other))).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use kadr_shared::message::frame::Colour;
    use proptest::prelude::*;

    use super::{palette::Ink, *};

    const SIZE: Size = Size { width: 640, height: 272 };

    fn grey(size: Size) -> Picture {
        Picture::uniform(size, Colour::default(), [90, 128, 128]).unwrap()
    }

    fn found(class: usize, label: &str, confidence: f32, bbox: [f32; 4]) -> Detection {
        Detection { class, label: label.into(), confidence, bbox }
    }

    fn drawn(size: Size, detections: &[Detection]) -> Picture {
        let mut picture = grey(size);
        Overlay::default().draw(&mut picture, detections);
        picture
    }

    /// Pixels of luma that differ from the empty picture.
    fn changed(picture: &Picture) -> Vec<(u32, u32)> {
        let [luma, ..] = picture.planes();
        let at = |index: usize| ((index % luma.width) as u32, (index / luma.width) as u32);
        luma.data.iter().enumerate().filter(|(_, v)| **v != 90).map(|(index, _)| at(index)).collect()
    }

    #[test]
    fn only_the_lines_and_the_label_change() {
        let picture = drawn(SIZE, &[found(2, "car", 0.87, [200.0, 100.0, 400.0, 200.0])]);
        let style = Style::of(SIZE, 1.0);
        for (x, y) in changed(&picture) {
            let within = (200..400).contains(&x) && (100..200).contains(&y);
            let inner =
                (200 + style.line..400 - style.line).contains(&x) && (100 + style.line..200 - style.line).contains(&y);
            let label = (200..320).contains(&x) && (80..100 + style.line).contains(&y);
            assert!(within && !inner || label, "{x},{y}");
        }
        let Ink { y, u, v } = Paint::of_class(2).in_yuv(Colour::default());
        let [luma, first, second] = picture.planes();
        // The right line, where no label is.
        assert_eq!((luma.data[150 * 640 + 399], first.data[75 * 320 + 199], second.data[75 * 320 + 199]), (y, u, v));
    }

    #[test]
    fn a_label_stays_within_the_picture() {
        for bbox in [[600.0, 0.0, 640.0, 40.0], [0.0, 0.0, 30.0, 272.0], [630.0, 260.0, 700.0, 300.0]] {
            let frame = visible(bbox, SIZE).unwrap();
            let place = plate(SIZE, frame, (80, 16), Style::of(SIZE, 1.0), &[]);
            assert!(place.right <= 640 && place.bottom <= 272 && place.right - place.left >= 84, "{place:?}");
        }
        let low = plate(SIZE, visible([10.0, 4.0, 90.0, 90.0], SIZE).unwrap(), (80, 16), Style::of(SIZE, 1.0), &[]);
        assert_eq!(low.top, 4, "no room above: below the edge");
    }

    #[test]
    fn labels_of_one_object_are_stacked() {
        let frame = visible([100.0, 100.0, 300.0, 200.0], SIZE).unwrap();
        let style = Style::of(SIZE, 1.0);
        let mut taken = vec![plate(SIZE, frame, (80, 16), style, &[])];
        for _ in 0..2 {
            let next = plate(SIZE, frame, (60, 16), style, &taken);
            assert!(!taken.iter().any(|other| next.overlaps(other)), "{next:?} and {taken:?}");
            taken.push(next);
        }
    }

    #[test]
    fn what_can_not_be_seen_is_left_out() {
        let nan = f32::NAN;
        for bbox in [[nan, 0.0, 9.0, 9.0], [-9.0, -9.0, 0.0, 0.0], [640.0, 0.0, 700.0, 9.0], [0.0, 300.0, 9.0, 400.0]] {
            assert_eq!(changed(&drawn(SIZE, &[found(0, "x", 0.5, bbox)])), [], "{bbox:?}");
        }
        let whole = visible([f32::NEG_INFINITY, -1e30, f32::INFINITY, 1e30], SIZE).unwrap();
        assert_eq!((whole.left, whole.top, whole.right, whole.bottom), (0, 0, 640, 272));
    }

    #[test]
    fn sizes_follow_the_picture() {
        let style = |width, height| Style::of(Size { width, height }, 1.0);
        assert_eq!((style(640, 272).line, style(640, 272).font), (2, 13.0));
        assert!(style(1280, 720).font > style(640, 272).font && style(3840, 2160).line > style(1280, 720).line);
        assert_eq!(style(720, 1280), style(1280, 720));
    }

    #[test]
    fn what_is_not_wanted_is_not_drawn() {
        let car = [found(2, "car", 0.87, [200.0, 100.0, 400.0, 200.0])];
        let with = |json: &str| {
            let mut picture = grey(SIZE);
            let mut overlay = Overlay::new(serde_json::from_str(json).unwrap());
            overlay.draw(&mut picture, &car);
            overlay.caption(&mut picture, "gate");
            changed(&picture)
        };
        assert_eq!(with(r#"{"boxes": false, "labels": false, "confidence": false, "caption": false}"#), []);
        let lines = with(r#"{"labels": false, "confidence": false, "caption": false}"#);
        assert!(lines.iter().all(|(_, y)| (100..200).contains(y)) && !lines.is_empty());
        let caption = with(r#"{"boxes": false, "labels": false, "confidence": false}"#);
        assert!(caption.iter().all(|(x, y)| *x < 60 && *y > 250) && !caption.is_empty());
        let large = with(r#"{"boxes": false, "labels": false, "confidence": false, "scale": 2}"#);
        assert!(large.len() > 2 * caption.len());
    }

    proptest! {
        #[test]
        fn nothing_that_is_detected_panics(
            width in 1u32..200, height in 1u32..200,
            boxes in prop::collection::vec((prop::array::uniform4(prop::num::f32::ANY), -50.0f32..250.0, prop::num::f32::ANY, any::<usize>(), ".{0,50}"), 0..5),
        ) {
            let detections: Vec<_> = boxes
                .iter()
                .flat_map(|(wild, tame, confidence, class, label)| {
                    let near = [*tame, *tame / 2.0, tame + 40.0, tame + 20.0];
                    [found(*class, label, *confidence, *wild), found(*class, label, *confidence, near)]
                })
                .collect();
            let mut picture = drawn(Size { width, height }, &detections);
            Overlay::default().caption(&mut picture, "gate\u{7} 2026-01-31");
        }
    }
}
