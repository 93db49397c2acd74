//! Where objects are between two frames in which they were found: each on a straight line from one box to the other.

use kadr_shared::message::detection::Detection;

/// Boxes of one class that overlap so little are not taken for one object.
const LEAST_OVERLAP: f32 = 0.1;

/// What lies at `part` (0 to 1) of the way from `before` to `after`. An object that is not found again stays where it was; a
/// new one is shown where it is found.
pub(crate) fn between(before: &[Detection], after: &[Detection], part: f32) -> Vec<Detection> {
    let mut pairs: Vec<_> = before
        .iter()
        .enumerate()
        .flat_map(|(from, a)| after.iter().enumerate().map(move |(to, b)| (overlap(a, b), from, to)))
        .filter(|(overlap, ..)| *overlap >= LEAST_OVERLAP)
        .collect();
    // The likeliest first; each box belongs to one pair.
    pairs.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    let mut partner: Vec<Option<usize>> = vec![None; before.len()];
    let mut taken = vec![false; after.len()];
    for (_, from, to) in pairs {
        if let (Some(partner @ None), Some(taken @ false)) = (partner.get_mut(from), taken.get_mut(to)) {
            (*partner, *taken) = (Some(to), true);
        }
    }
    let moved = |(a, partner): (&Detection, &Option<usize>)| {
        let Some(b) = partner.and_then(|to| after.get(to)) else { return a.clone() };
        let mut moved = a.clone();
        moved.bbox.iter_mut().zip(b.bbox).for_each(|(edge, other)| *edge += (other - *edge) * part);
        moved
    };
    before.iter().zip(&partner).map(moved).collect()
}

/// Intersection over union; 0 for different classes, and for boxes with coordinates that are no numbers.
fn overlap(a: &Detection, b: &Detection) -> f32 {
    let ([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) = (a.bbox, b.bbox);
    let common = (ax2.min(bx2) - ax1.max(bx1)).max(0.0) * (ay2.min(by2) - ay1.max(by1)).max(0.0);
    let all = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - common;
    if a.class == b.class && all > 0.0 { common / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(class: usize, left: f32) -> Detection {
        Detection { class, label: String::new(), confidence: 0.5, bbox: [left, 0.0, left + 100.0, 50.0] }
    }

    #[test]
    fn each_goes_to_the_one_that_it_is_likeliest_to_be() {
        let before = [found(2, 0.0), found(2, 60.0), found(7, 0.0), found(2, 900.0)];
        let after = [found(2, 80.0), found(2, 20.0), found(7, 10.0)];
        let lefts: Vec<_> = between(&before, &after, 0.5).iter().map(|found| found.bbox[0]).collect();
        assert_eq!(lefts, [10.0, 70.0, 5.0, 900.0]);
    }

    #[test]
    fn what_is_no_number_stays_where_it_is() {
        let wild = Detection { bbox: [f32::NAN, 0.0, 1.0, f32::INFINITY], ..found(2, 0.0) };
        assert_eq!(between(std::slice::from_ref(&wild), std::slice::from_ref(&wild), 0.5).len(), 1);
    }
}
