//! The record of an inspection for people: a table for each process.

use super::paint::{Ink, paint, wrapped};
use crate::{
    error::{Color, printable},
    inspect::{Finding, Inspection, ProcessRecord, State, Verdict},
};

/// The record as text. `is_verbose`: with the table of what may be called.
#[must_use]
pub fn inspection_text(inspection: &Inspection, is_verbose: bool, color: Color) -> String {
    let mut text = String::new();
    for process in &inspection.processes {
        text.push_str(&process_text(process, is_verbose, color));
        text.push('\n');
    }
    let count = inspection.mismatches().len();
    let sentence = match inspection.verdict {
        Verdict::Match => format!(
            "guest {}: every process is what it is meant to be",
            inspection.guest
        ),
        Verdict::Mismatch => format!(
            "guest {}: {count} of what was read is not as it is meant to be",
            inspection.guest
        ),
    };
    let ink = match inspection.verdict {
        Verdict::Match => Ink::Good,
        Verdict::Mismatch => Ink::Bad,
    };
    text.push_str(&paint(color, ink, &printable(&sentence)));
    text.push('\n');
    text
}

fn process_text(process: &ProcessRecord, is_verbose: bool, color: Color) -> String {
    let head = format!(
        "{}, process {}, user {}",
        process.role, process.pid, process.uid
    );
    let mut text = format!("{}\n", paint(color, Ink::Strong, &head));
    for finding in &process.findings {
        text.push_str(&finding_text(finding, color));
    }
    if is_verbose {
        for rule in &process.allowed {
            let call = match rule.arguments.as_slice() {
                [] => rule.call.clone(),
                arguments => format!("{} ({})", rule.call, arguments.join("; ")),
            };
            let line = wrapped(&format!("{call}: {}", rule.why), "      ", 4);
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

fn finding_text(finding: &Finding, color: Color) -> String {
    const COLUMN: usize = 34;
    let indent = " ".repeat(COLUMN);
    let (ink, word) = match finding.state {
        State::On => (Ink::Good, "✓ as meant"),
        State::Told => (Ink::Good, "~ told    "),
        State::Absent => (Ink::Odd, "! absent  "),
        State::NotAsked => (Ink::Odd, "- no claim"),
        State::Mismatch => (Ink::Bad, "✗ MISMATCH"),
    };
    let mut lines = finding.mismatches.iter().map(String::as_str);
    // What does not match says more than what was read.
    let first = lines.next().unwrap_or(&finding.evidence);
    let mut text = format!(
        "  {} {:<20} {}\n",
        paint(color, ink, word),
        finding.id,
        wrapped(first, &indent, COLUMN)
    );
    for mismatch in lines {
        text.push_str(&format!("{indent}{}\n", wrapped(mismatch, &indent, COLUMN)));
    }
    text
}
