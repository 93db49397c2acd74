//! Names as people order them: `img2` before `img10`.

use std::cmp::Ordering;

/// Compares names; numbers in them by their value, the rest byte by byte.
pub(super) fn natural(a: &[u8], b: &[u8]) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let step = match (left.first(), right.first()) {
            // Equal but for zeros before numbers, or equal.
            (None, None) => return a.cmp(b),
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let ((x, left_rest), (y, right_rest)) = (number(left), number(right));
                (left, right) = (left_rest, right_rest);
                x.len().cmp(&y.len()).then(x.cmp(y))
            }
            (x, y) => {
                let step = x.cmp(&y);
                (left, right) = (left.get(1..).unwrap_or_default(), right.get(1..).unwrap_or_default());
                step
            }
        };
        if step.is_ne() {
            return step;
        }
    }
}

/// The digits that `text` begins with, without zeros before them, and what follows.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    (digits.get(zeros..).unwrap_or_default(), rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(mut names: Vec<&str>) -> Vec<&str> {
        names.sort_by(|a, b| natural(a.as_bytes(), b.as_bytes()));
        names
    }

    #[test]
    fn numbers_count_by_their_value() {
        assert_eq!(sorted(vec!["img10", "img2", "img1"]), ["img1", "img2", "img10"]);
        assert_eq!(sorted(vec!["a10b2", "a10b10", "a9z", "a"]), ["a", "a9z", "a10b2", "a10b10"]);
        assert_eq!(sorted(vec!["2", "002", "1", "02"]), ["1", "002", "02", "2"]);
        assert_eq!(sorted(vec!["18446744073709551617", "9"]), ["9", "18446744073709551617"]);
        assert_eq!(sorted(vec!["b1/a2", "b1/a10", "a2/x"]), ["a2/x", "b1/a2", "b1/a10"]);
    }

    proptest! {
        #[test]
        fn it_is_an_order(mut names in prop::collection::vec("[a0-2]{0,5}", 3)) {
            names.sort_by(|a, b| natural(a.as_bytes(), b.as_bytes()));
            for (a, b) in names.iter().zip(&names[1..]).chain([(&names[0], &names[2])]) {
                prop_assert!(natural(a.as_bytes(), b.as_bytes()).is_le(), "{a} {b}");
                prop_assert_eq!(natural(b.as_bytes(), a.as_bytes()), natural(a.as_bytes(), b.as_bytes()).reverse());
            }
        }
    }
}
