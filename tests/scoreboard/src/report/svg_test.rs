//! Pictures are well-formed, whatever is drawn.

use proptest::prelude::*;

use super::{Bar, Line, bars, decimal, lines, round_step};
use crate::report::picture::escape;

/// Whether every element that begins also ends, in order, and no bare mark stands in text.
fn is_well_formed(text: &str) -> bool {
    let mut open = Vec::new();
    for piece in text.split('<').skip(1) {
        let Some((tag, behind)) = piece.split_once('>') else {
            return false;
        };
        let names = behind.split('&').skip(1).all(|rest| {
            ["amp;", "lt;", "gt;"]
                .iter()
                .any(|name| rest.starts_with(name))
        });
        if !names || !tag.matches('"').count().is_multiple_of(2) {
            return false;
        }
        let name = tag.split([' ', '/']).find(|name| !name.is_empty());
        if tag.starts_with('/') {
            if open.pop() != Some(name.unwrap_or_default()) {
                return false;
            }
        } else if !tag.ends_with('/') {
            open.push(name.unwrap_or_default());
            // One value for an attribute.
            let attributes: Vec<_> = tag
                .split(' ')
                .filter_map(|word| word.split_once("=\""))
                .collect();
            let mut keys: Vec<_> = attributes.iter().map(|(key, _)| key).collect();
            keys.sort();
            keys.dedup();
            if keys.len() != attributes.len() {
                return false;
            }
        }
    }
    open.is_empty()
}

#[test]
fn what_is_not_well_formed_is_found() {
    assert!(is_well_formed("<a><b/>x &amp; y</a>"));
    for text in [
        "<a>",
        "<a></b>",
        "<a>x & y</a>",
        "<a b=\"></a>",
        "<a b=\"1\" b=\"2\"></a>",
    ] {
        assert!(!is_well_formed(text), "{text}");
    }
}

#[test]
fn text_cannot_become_markup() {
    assert_eq!(escape("<a> & b"), "&lt;a&gt; &amp; b");
}

#[test]
fn steps_are_round() {
    for (wish, step) in [
        (0.0, 1.0),
        (0.7, 1.0),
        (1.2, 2.0),
        (30.0, 50.0),
        (0.013, 0.02),
    ] {
        assert!((round_step(wish) - step).abs() < 1e-9, "{wish}");
    }
}

#[test]
fn powers_of_ten_are_written_out() {
    assert_eq!(decimal(0.001), "0.001");
    assert_eq!(decimal(100.0), "100");
}

proptest! {
    #[test]
    fn bars_are_well_formed(values in prop::collection::vec((0.0..1e6_f64, 1e-3..10.0_f64, "\\PC{0,20}"), 0..20)) {
        let all: Vec<_> = values.into_iter()
            .map(|(value, goal, label)| Bar { note: label.clone(), label, value, goal })
            .collect();
        let text = bars("a < b & c", "ratio", &all);
        prop_assert!(is_well_formed(&text), "{}", text);
        prop_assert!(!text.contains("NaN") && !text.contains("inf"));
        prop_assert_eq!(text, bars("a < b & c", "ratio", &all));
    }

    #[test]
    fn lines_are_well_formed(values in prop::collection::vec(prop::collection::vec((0.0..64.0_f64, 0.0..1e9_f64), 0..8), 0..8)) {
        let all: Vec<_> = values.into_iter()
            .map(|points| Line { label: "<x>".to_owned(), is_ours: points.len() == 1, colour: points.len(), is_dashed: points.is_empty(), points })
            .collect();
        let text = lines("t", ("x", "y"), &all, Some(1.2));
        prop_assert!(is_well_formed(&text), "{}", text);
        prop_assert!(!text.contains("NaN") && !text.contains("inf"));
    }
}
