//! Which candidates are objects: threshold, one class a candidate, non-maximum suppression within a class.
//!
//! Pure and total: scores and boxes may hold any bit pattern. Knows neither tensors nor the source's pixels.

use std::cmp::Ordering;

/// At most this many objects are kept of a picture, the surest.
pub const MOST: usize = 300;

/// A candidate that passed the threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub class: usize,
    pub score: f32,
    /// x1, y1, x2, y2.
    pub bbox: [f32; 4],
}

impl Candidate {
    fn is_finite(&self) -> bool {
        self.score.is_finite() && self.bbox.iter().all(|v| v.is_finite())
    }
}

/// Whose overlap makes two candidates one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rivals {
    /// Those of one class.
    #[default]
    SameClass,
    /// Any: a thing is only one thing.
    All,
}

/// Leaves the objects among `candidates`, by descending score: a box that overlaps a surer rival's by more than `iou` is
/// the same object. What is not finite is left out. Allocates nothing.
pub fn suppress(candidates: &mut Vec<Candidate>, iou: f32, rivals: Rivals) {
    candidates.retain(Candidate::is_finite);
    candidates.sort_unstable_by(surer_first);
    let mut kept = 0;
    for at in 0..candidates.len() {
        let (before, rest) = candidates.split_at_mut(at);
        let (Some(candidate), Some(before)) = (rest.first(), before.get(..kept)) else { break };
        let rival = |k: &&Candidate| rivals == Rivals::All || k.class == candidate.class;
        if before.iter().filter(rival).any(|k| overlap(&k.bbox, &candidate.bbox) > iou) {
            continue;
        }
        candidates.swap(kept, at);
        kept += 1;
        if kept == MOST {
            break;
        }
    }
    candidates.truncate(kept);
}

/// Of equal scores some order that is the same on every machine.
fn surer_first(a: &Candidate, b: &Candidate) -> Ordering {
    let boxes = || a.bbox.iter().zip(&b.bbox).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
    b.score.total_cmp(&a.score).then(a.class.cmp(&b.class)).then_with(|| boxes().unwrap_or(Ordering::Equal))
}

/// Intersection over union of two boxes, from 0 to 1; 0 where either has no area.
pub fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |[x1, y1, x2, y2]: [f32; 4]| (x2 - x1).max(0.0) * (y2 - y1).max(0.0);
    let common = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let union = area(*a) + area(*b) - common;
    // Areas of huge boxes may overflow: what can't be told is not called an overlap.
    let ratio = common / union;
    if ratio.is_finite() { ratio.clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn suppress(mut candidates: Vec<Candidate>, iou: f32) -> Vec<Candidate> {
        super::suppress(&mut candidates, iou, Rivals::SameClass);
        candidates
    }

    fn candidate(class: usize, score: f32, bbox: [f32; 4]) -> Candidate {
        Candidate { class, score, bbox }
    }

    #[test]
    fn of_two_boxes_of_one_class_the_surer_stays_and_other_classes_are_left_alone() {
        let (a, b, c) = (
            candidate(0, 0.6, [0.0, 0.0, 10.0, 10.0]),
            candidate(0, 0.9, [0.0, 1.0, 10.0, 11.0]),
            candidate(1, 0.3, [0.0, 0.0, 10.0, 10.0]),
        );
        assert_eq!(suppress(vec![a, b, c], 0.7), [b, c]);
        let mut all = vec![a, b, c];
        super::suppress(&mut all, 0.7, Rivals::All);
        assert_eq!(all, [b], "whatever it is, it is one thing");
    }

    #[test]
    fn an_overlap_of_exactly_the_threshold_is_two_objects() {
        let a = candidate(0, 0.9, [0.0, 0.0, 10.0, 10.0]);
        let half = candidate(0, 0.8, [0.0, 0.0, 10.0, 5.0]);
        assert_eq!(suppress(vec![a, half], 0.5).len(), 2);
        assert_eq!(suppress(vec![a, half], 0.49).len(), 1);
    }

    #[test]
    fn what_is_not_a_number_never_gets_through() {
        let good = candidate(0, 0.5, [0.0, 0.0, 1.0, 1.0]);
        let bad = [
            candidate(0, f32::NAN, good.bbox),
            candidate(0, f32::INFINITY, good.bbox),
            candidate(0, 0.9, [0.0, f32::NAN, 1.0, 1.0]),
            candidate(0, 0.9, [f32::NEG_INFINITY, 0.0, 1.0, 1.0]),
        ];
        assert_eq!(suppress(bad.into_iter().chain([good]).collect(), 0.7), [good]);
    }

    #[test]
    fn at_most_three_hundred_are_kept_the_surest() {
        let many = (0..1000).map(|i| candidate(i, i as f32 / 1000.0, [0.0, 0.0, 1.0, 1.0])).collect();
        let kept = suppress(many, 0.7);
        assert_eq!(kept.len(), MOST);
        assert!(kept.iter().all(|c| c.class >= 700));
    }

    fn any_candidate() -> impl Strategy<Value = Candidate> {
        let number = prop_oneof![8 => -50f32..700.0, 1 => any::<f32>()];
        let score = prop_oneof![8 => 0f32..1.0, 1 => any::<f32>()];
        (0usize..3, score, [number.clone(), number.clone(), number.clone(), number])
            .prop_map(|(class, score, bbox)| Candidate { class, score, bbox })
    }

    proptest! {
        #[test]
        fn what_is_kept_is_sorted_apart_and_everything_else_overlaps_something_kept(
            all in prop::collection::vec(any_candidate(), 0..120), iou in 0f32..=1.0,
        ) {
            let kept = suppress(all.clone(), iou);
            prop_assert!(kept.windows(2).all(|w| w[0].score >= w[1].score));
            let hides = |k: &Candidate, c: &Candidate| k.class == c.class && overlap(&k.bbox, &c.bbox) > iou;
            for (i, c) in kept.iter().enumerate() {
                prop_assert!(c.is_finite() && all.contains(c));
                prop_assert!(!kept[..i].iter().any(|k| hides(k, c)));
            }
            for c in all.iter().filter(|c| c.is_finite() && !kept.contains(c)) {
                prop_assert!(kept.iter().any(|k| k.score >= c.score && hides(k, c)));
            }
        }

        #[test]
        fn an_overlap_is_symmetric_and_a_ratio(a in any_candidate(), b in any_candidate()) {
            let ratio = overlap(&a.bbox, &b.bbox);
            prop_assert!((0.0..=1.0).contains(&ratio));
            prop_assert_eq!(ratio, overlap(&b.bbox, &a.bbox));
        }
    }
}
