//! Colours of text for terminals; nothing is said by colour alone.

use iommu::isolation::Verdict;

use crate::error::{Color, printable};

/// How a piece of text is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Strong,
    Faint,
    Good,
    Odd,
    Bad,
}

/// The text between the codes that turn its colour on and off.
pub(super) fn paint(color: Color, ink: Ink, text: &str) -> String {
    let code = match (color, ink) {
        (Color::Never, _) => return text.to_owned(),
        (Color::Always, Ink::Strong) => "1",
        (Color::Always, Ink::Faint) => "2",
        (Color::Always, Ink::Good) => "32",
        (Color::Always, Ink::Odd) => "33",
        (Color::Always, Ink::Bad) => "1;31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// A verdict as symbol and word, padded to one width.
pub(super) fn verdict(color: Color, verdict: Verdict) -> String {
    let (ink, text) = match verdict {
        Verdict::Pass => (Ink::Good, "✓ pass   "),
        Verdict::Fixable => (Ink::Good, "~ fixable"),
        Verdict::Warn => (Ink::Odd, "! warn   "),
        Verdict::Refuse => (Ink::Bad, "✗ refuse "),
    };
    paint(color, ink, text)
}

/// The words on lines of a page's width, each but the first behind `indent`.
///
/// They are made [`printable`]. `column` is where the first line goes on. A word that is too long for a line has one to itself.
pub(super) fn wrapped(words: &str, indent: &str, column: usize) -> String {
    const WIDTH: usize = 110;
    let words = printable(words);
    let mut text = String::new();
    let (start, mut column, mut is_first) = (indent.chars().count(), column, true);
    for word in words.split(' ') {
        let len = word.chars().count();
        let fits = column.saturating_add(len) < WIDTH;
        if !is_first && fits {
            text.push(' ');
        } else if !is_first {
            text.push('\n');
            text.push_str(indent);
            column = start;
        }
        is_first = false;
        text.push_str(word);
        column = column.saturating_add(len).saturating_add(1);
    }
    text
}
