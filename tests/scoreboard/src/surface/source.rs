//! Lines and `unsafe` blocks of Rust source, by its tokens: comments, blank lines, and what only tests or the feature
//! `breakout` have are not there.

use std::collections::BTreeSet;

/// What one file has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines with at least one token.
    pub lines: u64,
    /// `unsafe` before a `{`.
    pub unsafe_blocks: u64,
    /// Modules in files of their own that are not in the shipped programs.
    pub left_out: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    first_line: u64,
    last_line: u64,
}

/// Counts in the text of one file.
#[must_use]
pub fn count(text: &str) -> Counts {
    let tokens = tokens(text);
    let mut counts = Counts::default();
    let mut lines = BTreeSet::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if let Some(end) = left_out_attribute(&tokens, at) {
            at = skip_item(&tokens, end, &mut counts.left_out);
            continue;
        }
        lines.extend(token.first_line..=token.last_line);
        if token.text == "unsafe" && tokens.get(at + 1).is_some_and(|next| next.text == "{") {
            counts.unsafe_blocks += 1;
        }
        at += 1;
    }
    counts.lines = u64::try_from(lines.len()).unwrap_or(u64::MAX);
    counts
}

/// Where an attribute ends that leaves its item out of the shipped programs: `#[cfg(test)]`,
/// `#[cfg(feature = "breakout")]`.
fn left_out_attribute(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let is = |offset: usize, text: &str| tokens.get(at + offset).is_some_and(|t| t.text == text);
    let begins = is(0, "#") && is(1, "[") && is(2, "cfg") && is(3, "(");
    let test = is(4, "test") && is(5, ")") && is(6, "]");
    let feature = is(4, "feature") && is(6, "\"breakout\"") && is(7, ")") && is(8, "]");
    match (begins, test, feature) {
        (true, true, _) => Some(at + 7),
        (true, _, true) => Some(at + 9),
        _ => None,
    }
}

/// The place behind the item at `at`: its `;`, its `,` or its closing brace, outside of all other brackets.
fn skip_item(tokens: &[Token<'_>], mut at: usize, left_out: &mut Vec<String>) -> usize {
    let mut depth = 0_u32;
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    if let Some(name) = file_of_module(tokens, at) {
        left_out.push(name);
    }
    while at < tokens.len() {
        match text(at) {
            "{" | "(" | "[" => depth += 1,
            // The end of what surrounds the item: a last field or arm without a comma.
            "}" | ")" | "]" if depth == 0 => return at,
            "}" if depth == 1 => {
                let more = usize::from(matches!(text(at + 1), ";" | ","));
                return at + 1 + more;
            }
            "}" | ")" | "]" => depth -= 1,
            ";" | "," if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// For `mod name;`, perhaps behind `#[path = "file"]`: the file's or the module's name.
fn file_of_module(tokens: &[Token<'_>], at: usize) -> Option<String> {
    let mut path = None;
    for (place, token) in tokens.get(at..)?.iter().enumerate().take(12) {
        let next = |n: usize| tokens.get(at + place + n).map(|t| t.text);
        match token.text {
            "path" if next(1) == Some("=") => {
                path = next(2).map(|name| name.trim_matches('"').to_owned());
            }
            "mod" if next(2) == Some(";") => return path.or(next(1).map(str::to_owned)),
            "{" | "fn" | "use" => return None,
            _ => {}
        }
    }
    None
}

/// Words, literals and single marks.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let comment = comment_length(rest);
        let length = match comment {
            Some(length) => length,
            None if first.is_whitespace() => first.len_utf8(),
            None => token_length(rest, first),
        };
        let (taken, after) = rest.split_at(length.clamp(first.len_utf8(), rest.len()));
        let breaks = u64::try_from(taken.matches('\n').count()).unwrap_or(0);
        if comment.is_none() && !first.is_whitespace() {
            found.push(Token {
                text: taken,
                first_line: line,
                last_line: line + breaks,
            });
        }
        line += breaks;
        rest = after;
    }
    found
}

/// Of a comment at the begin; block comments nest.
fn comment_length(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut at, mut depth) = (2, 1_u32);
    while depth > 0 {
        let rest = text.get(at..)?;
        let open = rest.find("/*").unwrap_or(usize::MAX);
        let Some(close) = rest.find("*/") else {
            return Some(text.len());
        };
        if open < close {
            (at, depth) = (at + open + 2, depth + 1);
        } else {
            (at, depth) = (at + close + 2, depth - 1);
        }
    }
    Some(at)
}

fn token_length(text: &str, first: char) -> usize {
    if let Some(length) = raw_string_length(text) {
        return length;
    }
    let prefix = usize::from(text.starts_with("b\"") || text.starts_with("c\""));
    if text[prefix..].starts_with('"') {
        return quoted_length(&text[prefix..], '"').map_or(text.len(), |n| n + prefix);
    }
    let prefix = usize::from(text.starts_with("b'"));
    if text[prefix..].starts_with('\'') {
        // A lifetime has no quote behind its first character.
        let mut letters = text[prefix + 1..].chars();
        let (one, two) = (letters.next(), letters.next());
        if one == Some('\\') || two == Some('\'') {
            return quoted_length(&text[prefix..], '\'').map_or(text.len(), |n| n + prefix);
        }
    }
    if is_word(first) {
        return text.find(|c| !is_word(c)).unwrap_or(text.len());
    }
    first.len_utf8()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Of `r"…"`, `r#"…"#`, `br"…"` and their like.
fn raw_string_length(text: &str) -> Option<usize> {
    let body = ["r", "br", "cr"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))?;
    let inner = body.trim_start_matches('#');
    let marks = body.len() - inner.len();
    let inner = inner.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(marks));
    let before = text.len() - inner.len();
    Some(
        inner
            .find(&end)
            .map_or(text.len(), |at| before + at + end.len()),
    )
}

/// Of a literal in quotes, with them; a backslash takes the next character with it.
fn quoted_length(text: &str, quote: char) -> Option<usize> {
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' {
            letters.next();
        } else if letter == quote {
            return Some(at + 1);
        }
    }
    None
}

#[cfg(test)]
#[path = "source_test.rs"]
mod tests;
