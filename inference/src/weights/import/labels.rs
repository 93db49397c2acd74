//! The labels of classes as files hold them, and what makes a list of labels usable.

use std::collections::HashSet;

/// More classes has no model that kadr would show.
const MOST: usize = 4096;
const LONGEST: usize = 100;

/// Labels that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error("the model has {classes} classes and {labels} labels: name a label a class by --labels a,b,…")]
    Count { classes: usize, labels: usize },
    #[error(
        "class {class} can't be labelled {label:?}: a label has 1 to {LONGEST} characters, no comma and none of control; \
         name others by --labels a,b,…"
    )]
    Label { class: usize, label: String },
    #[error("two classes are labelled {0:?}: they could not be told apart; name others by --labels a,b,…")]
    Twice(String),
}

/// Labels of `classes` classes, each of its own.
pub fn check(labels: &[String], classes: usize) -> Result<(), LabelError> {
    if labels.len() != classes {
        return Err(LabelError::Count { classes, labels: labels.len() });
    }
    let mut known = HashSet::new();
    for (class, label) in labels.iter().enumerate() {
        let good = label.trim() == label && !label.contains(|c: char| c.is_control() || c == ',');
        if label.is_empty() || !good || label.chars().count() > LONGEST {
            return Err(LabelError::Label { class, label: label.chars().take(LONGEST).collect() });
        }
        if !known.insert(label) {
            return Err(LabelError::Twice(label.clone()));
        }
    }
    Ok(())
}

/// Labels by number, if the numbers are all from 0 to the largest.
pub(super) fn in_order(mut numbered: Vec<(i64, String)>) -> Option<Vec<String>> {
    numbered.sort_by_key(|(number, _)| *number);
    let all = numbered.iter().zip(0..).all(|((number, _), at)| *number == at);
    (all && !numbered.is_empty()).then(|| numbered.into_iter().map(|(_, label)| label).collect())
}

/// `{0: 'person', 1: "it's"}`, as Python prints a dictionary. `None`: it is something else.
pub(super) fn printed(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim_start();
    let mut numbered = Vec::new();
    while !rest.is_empty() {
        let (number, after) = rest.split_once(':')?;
        let (label, after) = quoted(after.trim_start())?;
        numbered.push((number.trim().parse().ok()?, label));
        if numbered.len() > MOST {
            return None;
        }
        let after = after.trim_start();
        rest = if after.is_empty() { after } else { after.strip_prefix(',')?.trim_start() };
    }
    in_order(numbered)
}

/// A text in quotes of either kind, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut chars = text.chars();
    let quote = chars.next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut label = String::new();
    loop {
        match chars.next()? {
            c if c == quote => return Some((label, chars.as_str())),
            '\\' => match chars.next()? {
                c @ ('\\' | '\'' | '"') => label.push(c),
                'x' => label.push(escaped(&mut chars, 2)?),
                'u' => label.push(escaped(&mut chars, 4)?),
                'U' => label.push(escaped(&mut chars, 8)?),
                _ => return None,
            },
            c => label.push(c),
        }
    }
}

fn escaped(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let code = (0..digits).try_fold(0u32, |code, _| code.checked_mul(16)?.checked_add(chars.next()?.to_digit(16)?))?;
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_python_prints_is_read() {
        assert_eq!(printed("{0: 'Normal', 1: 'Fall'}").unwrap(), ["Normal", "Fall"]);
        let odd = r#"{1: "it's", 0: 'a: {b}, \'c\' \\', 2: '\u043a\xe9'}"#;
        assert_eq!(printed(odd).unwrap(), ["a: {b}, 'c' \\", "it's", "кé"]);
        for bad in ["", "{}", "{0: 'a'", "{0: 'a}", "{1: 'a'}", "{0: a}", "{0: 'a' 1: 'b'}", "{0: '\\x", "['a']"] {
            assert_eq!(printed(bad), None, "{bad}");
        }
    }

    #[test]
    fn labels_are_one_a_class_and_differ() {
        let list = |labels: &[&str]| labels.iter().map(|&l| l.to_owned()).collect::<Vec<_>>();
        assert_eq!(check(&list(&["a", "b c"]), 2), Ok(()));
        assert_eq!(check(&list(&["a"]), 2), Err(LabelError::Count { classes: 2, labels: 1 }));
        assert_eq!(check(&list(&["a", "a"]), 2), Err(LabelError::Twice("a".into())));
        for bad in ["", " a", "a\n", "a,b", "\u{1b}[1m", &"x".repeat(101)] {
            assert!(matches!(check(&list(&["a", bad]), 2), Err(LabelError::Label { class: 1, .. })), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text: String, inner in "[{}0-9:'\"\\\\xuU, a]{0,40}") {
            let _ = (printed(&text), printed(&format!("{{{inner}}}")));
        }
    }
}
