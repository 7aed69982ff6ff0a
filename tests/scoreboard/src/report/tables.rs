//! The tables of the page: one for each case and guest.

use super::{
    pick::{self, Column, Measure, Shape},
    reasons, words,
};
use crate::{
    figure::{FIGURES, Figure},
    record::{Board, Case},
};

/// A case's heading, and what its figures are.
#[rustfmt::skip]
pub(super) const CASES: [(Case, &str, &str); 8] = [
    (Case::Start, "From power-on to init",
        "At the guest's first instruction in user space, over all processes of a VMM. Exits are counted from the first entry."),
    (Case::Calls, "System calls of a start",
        "In runs of their own, as tracing costs time. All threads of all processes, from exec on."),
    (Case::Instructions, "Instructions of a start",
        "The lab host's clock advances by one tick an instruction, and by itself while the host is idle. Without idle time its ticks are \
         instructions of host, VMM and guest together."),
    (Case::Mapping, "Memory for devices",
        "To the guest's first instruction. The limit is zeroing as much memory of the same kind once, by one thread."),
    (Case::Steady, "At work",
        "A guest that does one kind of work a window, with pauses around it."),
    (Case::Life, "Starts and stops", "A tiny guest, over and over; the reset of its VFs is part of it."),
    (Case::Surface, "What the running VMM may do", "Read from the filters and the state of its threads while the guest runs."),
    (Case::Code, "What it consists of", "Of the programs on disk. Libraries that are loaded at run time by name are not among them."),
];

/// For a window: what a unit is, how many of them a figure is given for, and the figure that counts them.
#[rustfmt::skip]
const WORKS: [(&str, &str, f64, &str); 8] = [
    ("config-read", "read of configuration space", 1.0, "units"),
    ("config-write", "write of configuration space", 1.0, "units"),
    ("nvme-read", "NVMe read of 4 KiB", 1.0, "units"),
    ("nvme-write", "NVMe write of 4 KiB", 1.0, "units"),
    ("packets-small", "1,000 packets of 64 bytes", 1000.0, "units"),
    ("packets-large", "1,000 packets of 1,400 bytes", 1000.0, "units"),
    ("idle", "second of sleep", 1.0, "units"),
    ("interrupts", "interrupt", 1.0, "interrupts"),
];

/// All cases that the board has, each with its heading.
#[must_use]
pub fn cases(board: &Board) -> String {
    let mut text = String::new();
    for (case, title, what) in CASES {
        let shapes = pick::shapes(board, case);
        if shapes.is_empty() {
            continue;
        }
        push(&mut text, &format!("### {title}\n\n{what}\n\n"));
        if case == Case::Mapping {
            push(&mut text, &mapping(board, &shapes));
            continue;
        }
        for shape in shown(case, &shapes) {
            let columns = pick::columns(board, pick::of_shape(board, shape));
            push(&mut text, &table(board, shape, &columns));
            push(&mut text, &reasons::tables(board, shape, &columns));
        }
    }
    text
}

/// The shapes that get a table: of a start, the guests of the goals; the others are among what grows.
fn shown(case: Case, shapes: &[Shape]) -> Vec<&Shape> {
    let is_goal = |shape: &&Shape| shape.guest.is_some_and(pick::is_of_goals);
    let has_goal = shapes.iter().any(|shape| is_goal(&shape));
    let is_shown = |shape: &&Shape| case != Case::Start || !has_goal || is_goal(shape);
    shapes.iter().filter(is_shown).collect()
}

/// What is said of every guest whose memory is mapped.
#[rustfmt::skip]
const MAPPINGS: [(&str, &str, Measure); 4] = [
    ("calls", "count", Measure::plain(&["map_calls"])),
    ("time in them over zeroing", "ratio", over_zeroing(&["map_ns"])),
    ("from exec to the last, over zeroing", "ratio", over_zeroing(&["present_ns"])),
    ("from exec to the guest's first instruction", "ns", Measure::plain(&["entry_ns"])),
];

const fn over_zeroing(figures: &'static [&'static str]) -> Measure {
    Measure {
        figures,
        per: Some("zero_ns"),
        times: 1.0,
    }
}

/// One table for all guests.
fn mapping(board: &Board, shapes: &[Shape]) -> String {
    let of_case = board
        .records
        .iter()
        .filter(|record| record.case == Case::Mapping);
    let columns = pick::columns(board, of_case);
    let mut text = head("guest and figure", &columns);
    for shape in shapes {
        let guest = shape.guest.map_or_else(String::new, words::guest);
        push(
            &mut text,
            &runs_row(board, shape, &columns, &format!("{guest}: ")),
        );
        for (title, unit, measure) in &MAPPINGS {
            let title = format!("{guest}: {title}");
            text.extend(row(board, shape, &columns, &title, unit, measure));
        }
    }
    text + "\n"
}

pub(super) fn push(text: &mut String, more: &str) {
    text.push_str(more);
}

fn table(board: &Board, shape: &Shape, columns: &[Column]) -> String {
    let rows: Vec<_> = rows(shape)
        .into_iter()
        .filter_map(|(title, unit, measure)| row(board, shape, columns, &title, unit, &measure))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut about = Vec::new();
    if let Some((_, unit, ..)) = work(shape) {
        about.push(format!("**For each {unit}**"));
    }
    about.extend(shape.guest.map(words::guest));
    let runs = columns.iter().map(|column| runs(board, shape, column));
    if runs.max().is_some_and(|most| most > 1) {
        about.push("medians (least–most)".to_owned());
    }
    let mut text = String::new();
    if !about.is_empty() {
        push(&mut text, &format!("{}:\n\n", about.join(", ")));
    }
    push(&mut text, &head("", columns));
    if shape.case != Case::Code {
        push(&mut text, &runs_row(board, shape, columns, ""));
    }
    push(&mut text, &rows.concat());
    text.push('\n');
    text
}

/// How many runs a column has of a shape.
fn runs(board: &Board, shape: &Shape, column: &Column) -> usize {
    pick::of_shape(board, shape)
        .filter(|record| column.is_of(record))
        .count()
}

/// The runs of each column: they are not the same for all.
fn runs_row(board: &Board, shape: &Shape, columns: &[Column], before: &str) -> String {
    let cells: Vec<_> = columns
        .iter()
        .map(|column| match runs(board, shape, column) {
            0 => "none".to_owned(),
            runs => runs.to_string(),
        })
        .collect();
    format!("| {before}runs | {} |\n", cells.join(" | "))
}

pub(super) fn head(first: &str, columns: &[Column]) -> String {
    let titles: Vec<_> = columns.iter().map(Column::title).collect();
    format!(
        "| {first} | {} |\n|---|{}\n",
        titles.join(" | "),
        "---:|".repeat(columns.len())
    )
}

fn work(shape: &Shape) -> Option<&'static (&'static str, &'static str, f64, &'static str)> {
    WORKS.iter().find(|(name, ..)| *name == shape.work)
}

/// Title, unit and measure of every figure that a shape may have.
fn rows(shape: &Shape) -> Vec<(String, &'static str, Measure)> {
    let of_case = FIGURES
        .iter()
        .filter(|figure| figure.cases.contains(&shape.case));
    let window = work(shape);
    of_case
        .map(|figure| {
            let names = std::slice::from_ref(&figure.name);
            let measure = match window {
                Some((.., times, per)) if figure.name != *per => Measure {
                    figures: names,
                    per: Some(per),
                    times: *times,
                },
                _ => Measure::plain(names),
            };
            let (unit, title) = match (shape.case, figure.unit) {
                (Case::Instructions, "ns") if is_busy(figure) => {
                    ("instructions", format!("instructions {}", figure.title))
                }
                (Case::Instructions, "ns") => (
                    "ticks",
                    format!("clock ticks {}, with idle time", figure.title),
                ),
                (_, unit) => (unit, title(figure, &measure)),
            };
            (title, unit, measure)
        })
        .collect()
}

/// Whether idle time is left out of a figure, so that each tick of the clock was an instruction.
fn is_busy(figure: &Figure) -> bool {
    figure.name.ends_with("_busy_ns")
}

fn title(figure: &Figure, measure: &Measure) -> String {
    let unit = match figure.unit {
        "KiB" | "bytes" => format!(", {}", figure.unit),
        _ => String::new(),
    };
    match measure.per {
        None => format!("{}{unit}", figure.title),
        Some(_) => format!("{} for each", figure.title),
    }
}

/// `None` where no column has it.
fn row(
    board: &Board,
    shape: &Shape,
    columns: &[Column],
    title: &str,
    unit: &str,
    measure: &Measure,
) -> Option<String> {
    let values: Vec<_> = columns
        .iter()
        .map(|column| pick::value(board, shape, column, measure))
        .collect();
    if values.iter().all(Option::is_none) {
        return None;
    }
    let cells: Vec<_> = values
        .into_iter()
        .zip(columns)
        .map(|(value, column)| {
            // A figure that some runs do not have is not the median of all of them.
            let fewer = value.filter(|value| value.runs < runs(board, shape, column));
            let fewer = fewer.map_or_else(String::new, |value| format!(", runs: {}", value.runs));
            words::cell(value, unit) + &fewer
        })
        .collect();
    Some(format!("| {title} | {} |\n", cells.join(" | ")))
}
