//! Areas that inference does not see: polygons of the source, filled in the planes of the model's input.

use kadr_shared::{geometry::Letterbox, message::frame::Range};

use super::Seen;
use crate::scale::padding;

/// The rows of all polygons, as spans of samples in planes of one size.
pub(super) struct Masks {
    width: usize,
    height: usize,
    /// Of luma and of chroma: the start in the plane, and the length.
    luma: Vec<(usize, usize)>,
    chroma: Vec<(usize, usize)>,
}

impl Masks {
    pub(super) fn new(polygons: &[Vec<[u32; 2]>], seen: &Seen) -> Self {
        let (width, height) = (seen.fit.input.width() as usize, seen.fit.input.height() as usize);
        let corners: Vec<Vec<[f64; 2]>> =
            polygons.iter().map(|polygon| polygon.iter().map(|corner| in_input(*corner, seen)).collect()).collect();
        let spans = |shift: u32| {
            let scale = f64::from(1u32 << shift);
            let (width, height) = (width >> shift, height >> shift);
            corners.iter().flat_map(|polygon| spans(polygon, scale, width, height)).collect()
        };
        Self { width, height, luma: spans(0), chroma: spans(1) }
    }

    /// Covers them with the grey that lies around a picture.
    pub(super) fn cover(&self, planes: &mut [u8], range: Range) {
        let size = self.width * self.height;
        let (luma, chroma) = planes.split_at_mut(size.min(planes.len()));
        let (first, second) = chroma.split_at_mut((size / 4).min(chroma.len()));
        for (plane, spans, value) in
            [(luma, &self.luma, padding(range)), (first, &self.chroma, 128), (second, &self.chroma, 128)]
        {
            for &(start, length) in spans {
                plane.get_mut(start..start + length).unwrap_or_default().fill(value);
            }
        }
    }
}

/// A corner of the source in the model's input.
fn in_input([x, y]: [u32; 2], seen: &Seen) -> [f64; 2] {
    let Letterbox { source, left, top, width, height, .. } = seen.fit;
    let scaled = |v: u32, origin: u32, length: u32, whole: u32, offset: u32| {
        (f64::from(v) - f64::from(origin)) * f64::from(length) / f64::from(whole.max(1)) + f64::from(offset)
    };
    [scaled(x, seen.left, width, source.width, left), scaled(y, seen.top, height, source.height, top)]
}

/// The samples within a polygon (by the even-odd rule), row by row, in a plane whose samples are `scale` apart.
fn spans(polygon: &[[f64; 2]], scale: f64, width: usize, height: usize) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    for row in 0..height {
        // A sample lies in the middle of what it stands for.
        let y = (row as f64 + 0.5) * scale;
        let edges = polygon.iter().zip(polygon.iter().cycle().skip(1));
        let mut crossings: Vec<f64> = edges
            .filter(|([_, y1], [_, y2])| (*y1 <= y) != (*y2 <= y))
            .map(|([x1, y1], [x2, y2])| x1 + (y - y1) / (y2 - y1) * (x2 - x1))
            .collect();
        crossings.sort_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            let &[from, to] = pair else { continue };
            let sample = |x: f64| ((x / scale - 0.5).ceil().max(0.0) as usize).min(width);
            let (from, to) = (sample(from), sample(to));
            if to > from {
                spans.push((row * width + from, to - from));
            }
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_triangle_is_half_of_its_square() {
        let covered: usize = spans(&[[0.0, 0.0], [64.0, 0.0], [0.0, 64.0]], 1.0, 64, 64).iter().map(|(_, n)| n).sum();
        assert!(covered.abs_diff(64 * 64 / 2) <= 64, "{covered}");
        let square = spans(&[[10.0, 4.0], [20.0, 4.0], [20.0, 6.0], [10.0, 6.0]], 1.0, 64, 64);
        assert_eq!(square, [(4 * 64 + 10, 10), (5 * 64 + 10, 10)]);
        let beyond = spans(&[[-50.0, -50.0], [500.0, -50.0], [500.0, 500.0], [-50.0, 500.0]], 2.0, 32, 32);
        assert_eq!((beyond.len(), beyond[0]), (32, (0, 32)));
    }
}
