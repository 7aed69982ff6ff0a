//! The one place that prints.

use std::io::{self, Write};

use serde::Serialize;

use super::{Location, Report};

/// Whether to colour what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// With ANSI colours.
    Always,
    /// Plain.
    Never,
}

/// Prints data to standard output and everything else to standard error.
#[derive(Clone, Copy, Debug)]
pub struct Renderer {
    /// Whether to colour.
    pub color: Color,
    /// Whether to print JSON instead of text.
    pub json: bool,
}

/// What `--json` prints for errors.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Errors<'a> {
    api_version: &'static str,
    kind: &'static str,
    errors: &'a [Report],
}

impl Renderer {
    /// Prints `reports` as errors to standard error.
    ///
    /// # Errors
    ///
    /// Standard error cannot be written.
    pub fn errors(&self, reports: &[Report]) -> io::Result<()> {
        if !self.json {
            return self.labelled(reports, "error");
        }
        let document = Errors {
            api_version: "v1alpha1",
            kind: "Errors",
            errors: reports,
        };
        let mut out = io::stderr().lock();
        serde_json::to_writer_pretty(&mut out, &document)?;
        writeln!(out)
    }

    /// Prints `reports` as warnings to standard error.
    ///
    /// # Errors
    ///
    /// Standard error cannot be written.
    pub fn warnings(&self, reports: &[Report]) -> io::Result<()> {
        self.labelled(reports, "warning")
    }

    /// Prints one line about what is going on to standard error.
    ///
    /// # Errors
    ///
    /// Standard error cannot be written.
    pub fn note(&self, line: &str) -> io::Result<()> {
        writeln!(io::stderr().lock(), "{line}")
    }

    /// Prints what was asked for to standard output.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn data(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            writeln!(out)?;
        }
        out.flush()
    }

    fn labelled(&self, reports: &[Report], label: &str) -> io::Result<()> {
        let mut out = io::stderr().lock();
        for report in reports {
            writeln!(out, "{}", text(report, label, self.color))?;
        }
        Ok(())
    }
}

/// The text with everything that would steer a terminal written out: `\x1b` for an escape, `\u{202e}` for an override.
///
/// For text that comes from elsewhere: names in sysfs, the kernel's command line, lines of a guest file.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            c if c.is_control() => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
            // They change the order in which the rest of the line is shown.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// The report as an operator reads it, without a line break at the end.
pub(super) fn text(report: &Report, label: &str, color: Color) -> String {
    let (strong, plain) = match color {
        Color::Always if label == "warning" => ("\x1b[1;33m", "\x1b[0m"),
        Color::Always => ("\x1b[1;31m", "\x1b[0m"),
        Color::Never => ("", ""),
    };
    let mut text = format!(
        "{strong}{label}[{}]{plain}: {}",
        report.id,
        printable(&report.what)
    );
    if let Some(location) = &report.location {
        text.push_str(&pointer(location));
    }
    for why in &report.why {
        text.push_str(&format!("\n  why: {}", printable(why)));
    }
    text.push_str(&format!("\n  fix: {}", printable(&report.fix)));
    text.push_str(&format!("\n  more: narrows explain {}", report.id));
    text
}

/// The place in the file, its line, and a caret below what is meant.
fn pointer(location: &Location) -> String {
    let number = location.line.to_string();
    let margin = " ".repeat(number.len());
    // Each character of the line as it is shown, which may take several columns.
    let shown: Vec<String> = location
        .text
        .chars()
        .map(|c| match c {
            '\t' => "\t".to_owned(),
            c => printable(c.encode_utf8(&mut [0; 4])),
        })
        .collect();
    let before = location.column.saturating_sub(1);
    // Tabs stay tabs below, so that the caret stands where the reader's terminal puts the text.
    let indent: String = shown
        .iter()
        .take(before)
        .flat_map(|part| part.chars())
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let width = location.width.max(1);
    let wider: usize = shown
        .iter()
        .skip(before)
        .take(width)
        .map(|part| part.chars().count().saturating_sub(1))
        .sum();
    format!(
        "\n  --> {}:{}:{}\n  {margin} |\n  {number} | {}\n  {margin} | {indent}{}",
        printable(&location.file.display().to_string()),
        location.line,
        location.column,
        shown.concat(),
        "^".repeat(width.saturating_add(wider)),
    )
}
