//! Reading a device's XML by local names: prefixes and even namespaces differ from one to the next.

use roxmltree::{Document, Node, ParsingOptions};

use super::OnvifError;

/// Elements and texts in an answer: more are not read.
const MOST_NODES: u32 = 100_000;

/// An answer as a tree. It has no DTD: nothing in it can grow.
pub(super) fn parse(text: &str) -> Result<Document<'_>, OnvifError> {
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(text, options)
        .map_err(|error| OnvifError::Answer(format!("no readable XML: {error}").chars().take(200).collect()))
}

/// The first element of a name below another one.
pub(super) fn find<'a, 'b>(below: Node<'a, 'b>, name: &str) -> Option<Node<'a, 'b>> {
    below.descendants().skip(1).find(|node| node.is_element() && node.tag_name().name() == name)
}

/// All elements of a name below another one.
pub(super) fn all<'a, 'b: 'a>(below: Node<'a, 'b>, name: &'static str) -> impl Iterator<Item = Node<'a, 'b>> {
    below.descendants().filter(move |node| node.is_element() && node.tag_name().name() == name)
}

/// The text at the end of a path of names, without the space around it; none: there is none.
pub(super) fn text<'a>(below: Node<'a, '_>, path: &[&str]) -> Option<&'a str> {
    let found = path.iter().try_fold(below, |node, name| find(node, name))?;
    found.text().map(str::trim).filter(|text| !text.is_empty())
}

/// A text as it may stand in XML.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Not to be had in XML at all.
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_by_local_names_and_texts_are_trimmed() {
        let document = parse("<a:x xmlns:a='u'><a:y><z> one </z></a:y><z/></a:x>").unwrap();
        let root = document.root();
        assert_eq!(text(root, &["y", "z"]), Some("one"));
        assert_eq!(text(root, &["x", "nothing"]), None);
        assert_eq!(all(root, "z").count(), 2);
        let hostile = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaa'>]><x>&a;</x>";
        assert!(parse(hostile).is_err(), "what can grow is not read");
        assert!(parse("<a><b></a>").is_err());
        assert_eq!(escaped("a<b>&\"\u{1}"), "a&lt;b&gt;&amp;&quot; ");
    }
}
