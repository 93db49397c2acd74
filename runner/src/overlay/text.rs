//! A line of text as a mask: how densely each pixel is covered.
//!
//! The font is Hack Regular as `epaint_default_fonts` carries it: Copyright 2018 Source Foundry Authors, MIT licence,
//! with parts from Bitstream Vera (Bitstream Vera licence). It is monospaced, so that a confidence does not make its
//! label jump. A character that it lacks is shown as the font's empty box.

use std::collections::HashMap;

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};
use epaint_default_fonts::HACK_REGULAR;

/// Glyphs kept; labels in a script of thousands of characters must not fill the memory.
const MAX_GLYPHS: usize = 1024;

/// Sets lines in one size.
pub(super) struct Typesetter {
    font: FontRef<'static>,
    scale: PxScale,
    glyphs: HashMap<char, Drawn>,
    mask: Mask,
}

/// How densely each pixel of a rectangle is covered, 0 to 255, row by row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mask {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) coverage: Vec<u8>,
}

/// One glyph, drawn.
struct Drawn {
    mask: Mask,
    /// From the pen to the mask's left edge, from the line's top to its upper edge.
    left: i32,
    top: i32,
}

impl Mask {
    /// 0 outside.
    pub(super) fn at(&self, x: u32, y: u32) -> u8 {
        let within = x < self.width && y < self.height;
        self.coverage.get(y as usize * self.width as usize + x as usize).copied().filter(|_| within).unwrap_or(0)
    }
}

impl Typesetter {
    #[expect(clippy::expect_used, reason = "a font that is part of the program, which every test here reads")]
    pub(super) fn new() -> Self {
        let font = FontRef::try_from_slice(HACK_REGULAR).expect("the built-in font is well-formed");
        Self { font, scale: PxScale::from(0.0), glyphs: HashMap::new(), mask: Mask::default() }
    }

    /// The height of following lines in pixels.
    pub(super) fn set_size(&mut self, pixels: f32) {
        let scale = PxScale::from(pixels);
        if scale != self.scale {
            self.scale = scale;
            self.glyphs.clear();
        }
    }

    /// Draws `text`, which is one line.
    pub(super) fn set(&mut self, text: &str) -> &Mask {
        if self.glyphs.len() > MAX_GLYPHS {
            self.glyphs.clear();
        }
        let scaled = self.font.as_scaled(self.scale);
        let advance = scaled.h_advance(scaled.glyph_id('0')).round().max(1.0) as u32;
        let height = scaled.height().ceil().max(1.0) as u32;
        let count = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let width = advance.saturating_mul(count);
        self.mask.width = width;
        self.mask.height = height;
        self.mask.coverage.clear();
        self.mask.coverage.resize(width as usize * height as usize, 0);
        for (index, character) in (0i32..).zip(text.chars()) {
            let (font, scale) = (&self.font, self.scale);
            let drawn = self.glyphs.entry(character).or_insert_with(|| Drawn::new(font, scale, character));
            drawn.put(&mut self.mask, index.saturating_mul(advance as i32));
        }
        &self.mask
    }
}

impl Drawn {
    fn new(font: &FontRef<'_>, scale: PxScale, character: char) -> Self {
        let baseline = font.as_scaled(scale).ascent().round();
        let glyph: Glyph = font.glyph_id(character).with_scale_and_position(scale, point(0.0, baseline));
        let Some(outline) = font.outline_glyph(glyph) else {
            return Self { mask: Mask::default(), left: 0, top: 0 };
        };
        let bounds = outline.px_bounds();
        let (width, height) = (bounds.width().ceil() as u32, bounds.height().ceil() as u32);
        let mut mask = Mask { width, height, coverage: vec![0; width as usize * height as usize] };
        outline.draw(|x, y, coverage| {
            if x < width
                && let Some(pixel) = mask.coverage.get_mut(y as usize * width as usize + x as usize)
            {
                *pixel = (coverage * 255.0).round() as u8;
            }
        });
        Self { mask, left: bounds.min.x as i32, top: bounds.min.y as i32 }
    }

    /// Puts it into `line` with the pen at `pen`; what does not fit is cut.
    fn put(&self, line: &mut Mask, pen: i32) {
        for y in 0..self.mask.height {
            for x in 0..self.mask.width {
                let (to_x, to_y) = (pen + self.left + x as i32, self.top + y as i32);
                let (Ok(to_x), Ok(to_y)) = (u32::try_from(to_x), u32::try_from(to_y)) else { continue };
                if to_x < line.width
                    && let Some(pixel) = line.coverage.get_mut(to_y as usize * line.width as usize + to_x as usize)
                {
                    *pixel = (*pixel).max(self.mask.at(x, y));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_long_as_its_characters() {
        let mut typesetter = Typesetter::new();
        typesetter.set_size(20.0);
        let one = typesetter.set("7").clone();
        let four = typesetter.set("7.77").clone();
        assert_eq!((four.width, four.height), (4 * one.width, one.height));
        assert!(one.coverage.iter().any(|&v| v > 200) && one.coverage.contains(&0));
    }

    #[test]
    fn every_character_can_be_set() {
        let mut typesetter = Typesetter::new();
        typesetter.set_size(16.0);
        for text in ["", " ", "автобус", "車", "\u{1f697}", "e\u{301}", "\u{10ffff}", "\n\t"] {
            let mask = typesetter.set(text);
            assert_eq!(mask.coverage.len(), (mask.width * mask.height) as usize, "{text:?}");
        }
        assert!(typesetter.set("車").coverage.iter().any(|&v| v > 0), "an empty box stands for it");
    }
}
