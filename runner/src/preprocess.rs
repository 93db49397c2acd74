//! From a frame to what inference sees of it: whether it sees it at all ([`select`]), which part, with what covered ([`mask`]).
//!
//! Boxes come back in the pixels of the part; [`Seen::place`] brings them to where they are in the whole frame.

mod mask;
mod select;

use bytes::Bytes;
use kadr_shared::{
    geometry::{InputSize, Letterbox, Size},
    message::detection::Detection,
    settings::{Analysis, Preprocess, Region},
};

use self::mask::Masks;
pub(crate) use self::select::Selection;
use crate::{
    picture::Picture,
    scale::{ScaleError, Scaler},
};

/// A frame that can't be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PreprocessError {
    #[error("the region to crop to (preprocess.crop) lies outside the picture, which is {0}")]
    Outside(Size),
    #[error(transparent)]
    Scale(#[from] ScaleError),
}

/// What inference sees of frames.
pub(crate) struct Preprocessor {
    input: Option<InputSize>,
    settings: Preprocess,
    scaler: Scaler,
    /// For frames of one size, which most are.
    masks: Option<(Seen, Masks)>,
}

/// The part of a frame that is seen, and how it lies in the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its upper left corner, both even.
    pub(crate) left: u32,
    pub(crate) top: u32,
    pub(crate) fit: Letterbox,
}

impl Seen {
    /// Of a picture of this size. `None`: nothing of the part lies within it.
    fn of(size: Size, crop: Option<Region>, input: Option<InputSize>) -> Option<Self> {
        let (left, top, width, height) = match crop {
            None => (0, 0, size.width, size.height),
            Some(Region { left, top, width, height }) => {
                // On even pixels, where a chroma sample begins.
                let (left, top) = (left / 2 * 2, top / 2 * 2);
                let width = width.get().min(size.width.checked_sub(left)?);
                let height = height.get().min(size.height.checked_sub(top)?);
                (left, top, width, height)
            }
        };
        let part = Size { width, height };
        let input = input.unwrap_or_else(|| InputSize::fitting(part));
        (width > 0 && height > 0).then(|| Self { left, top, fit: Letterbox::fit(part, input) })
    }

    /// Moves boxes from the part to the whole frame.
    pub(crate) fn place(&self, detections: &mut [Detection]) {
        let (x, y) = (self.left as f32, self.top as f32);
        for found in detections {
            found.bbox.iter_mut().zip([x, y, x, y]).for_each(|(edge, by)| *edge += by);
        }
    }
}

impl Preprocessor {
    pub(crate) fn new(analysis: &Analysis, settings: &Preprocess) -> Self {
        Self { input: analysis.input_size, settings: settings.clone(), scaler: Scaler::new(), masks: None }
    }

    /// How frames of a size are seen.
    pub(crate) fn seen(&self, size: Size) -> Result<Seen, PreprocessError> {
        Seen::of(size, self.settings.crop, self.input).ok_or(PreprocessError::Outside(size))
    }

    /// The planes of the model's input.
    pub(crate) fn prepare(&mut self, picture: &Picture) -> Result<(Seen, Bytes), PreprocessError> {
        let seen = self.seen(picture.size())?;
        let mut planes = self.scaler.letterbox_part(picture, (seen.left, seen.top), &seen.fit)?;
        if !self.settings.masks.is_empty() {
            let known = self.masks.take().filter(|(of, _)| *of == seen);
            let masks = known.map_or_else(|| Masks::new(&self.settings.masks, &seen), |(_, masks)| masks);
            masks.cover(&mut planes, picture.colour().range);
            self.masks = Some((seen, masks));
        }
        if self.settings.grey {
            let luma = seen.fit.input.width() as usize * seen.fit.input.height() as usize;
            // Neutral chroma in either range.
            planes.get_mut(luma..).unwrap_or_default().fill(128);
        }
        Ok((seen, planes.into()))
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::message::frame::Colour;

    use super::*;

    fn with(json: &str) -> Preprocessor {
        let analysis = Analysis { input_size: Some("64x32".parse().unwrap()), ..Analysis::default() };
        Preprocessor::new(&analysis, &serde_json::from_str(json).unwrap())
    }

    /// 128x64, red on the left half, blue on the right.
    fn picture() -> Picture {
        let mut picture = Picture::uniform(Size { width: 128, height: 64 }, Colour::default(), [81, 90, 240]).unwrap();
        for (plane, value) in picture.planes_mut().into_iter().zip([41, 240, 110]) {
            plane.data.chunks_mut(plane.width).for_each(|row| row[plane.width / 2..].fill(value));
        }
        picture
    }

    #[test]
    fn a_part_fills_the_input_and_its_boxes_come_back() {
        let (seen, planes) =
            with(r#"{"crop": {"left": 65, "top": 0, "width": 200, "height": 32}}"#).prepare(&picture()).unwrap();
        assert_eq!((seen.left, seen.fit.source), (64, Size { width: 64, height: 32 }));
        assert!(planes[..64 * 32].iter().all(|&y| y == 41), "blue only");
        let mut found = [Detection { class: 0, label: String::new(), confidence: 1.0, bbox: [0.0, 1.0, 2.0, 3.0] }];
        seen.place(&mut found);
        assert_eq!(found[0].bbox, [64.0, 1.0, 66.0, 3.0]);
        let outside = with(r#"{"crop": {"left": 128, "top": 0, "width": 9, "height": 9}}"#).prepare(&picture());
        assert!(matches!(outside, Err(PreprocessError::Outside(_))));
    }

    #[test]
    fn grey_has_no_colours() {
        let (_, planes) = with(r#"{"grey": true}"#).prepare(&picture()).unwrap();
        assert!(planes[64 * 32..].iter().all(|&chroma| chroma == 128));
        assert_eq!((planes[0], planes[63]), (81, 41));
    }

    #[test]
    fn what_is_masked_is_not_seen() {
        let left_half = r#"{"masks": [[[0, 0], [64, 0], [64, 64], [0, 64]]]}"#;
        let (_, planes) = with(left_half).prepare(&picture()).unwrap();
        let row = &planes[64 * 16..64 * 17];
        assert!(row[..32].iter().all(|&y| y == 114) && row[33..].iter().all(|&y| y == 41), "{row:?}");
        let chroma = &planes[64 * 32 + 32 * 8..64 * 32 + 32 * 9];
        assert!(chroma[..16].iter().all(|&u| u == 128) && chroma[17..].iter().all(|&u| u == 240), "{chroma:?}");
    }
}
