//! The page: what stands between its marks is written anew, the rest stays.

use super::{
    absent,
    goals::{GOALS, Goal, Outcome, judge},
    growth,
    plots::{self, Plot},
    prose::{Earlier, Notes},
    tables, words,
};
use crate::{figure::FIGURES, record::Board};

const BEGIN: &str = "<!-- scoreboard: begin -->";
const END: &str = "<!-- scoreboard: end -->";

/// The page with its part of the scoreboard written anew; what has no marks gets them after the first heading.
#[must_use]
pub fn renew(page: &str, part: &str) -> String {
    let part = format!("{BEGIN}\n{}\n{END}\n", part.trim_end());
    if let Some((before, rest)) = page.split_once(BEGIN)
        && let Some((_, after)) = rest.split_once(END)
    {
        return format!(
            "{before}{part}{}",
            after.trim_start_matches('\n').to_owned().with_gap()
        );
    }
    let rest = page.strip_prefix("# Performance\n").unwrap_or(page);
    format!(
        "# Performance\n\n{part}{}",
        rest.trim_start_matches('\n').to_owned().with_gap()
    )
}

/// Text behind a part.
trait Gap {
    fn with_gap(self) -> String;
}

impl Gap for String {
    fn with_gap(self) -> String {
        if self.is_empty() {
            self
        } else {
            format!("\n{self}")
        }
    }
}

/// The scoreboard's part of the page.
#[must_use]
pub fn part(board: &Board, notes: &Notes, earlier: &Earlier, plots: &[Plot]) -> String {
    let judged: Vec<_> = GOALS
        .iter()
        .map(|goal| (goal, judge(board, goal)))
        .collect();
    let mut text = intro(board);
    text.push_str(&summary(&judged));
    text.push_str(&picture(plots, plots::NAMES[0], "Ratios to the best peer"));
    text.push_str(&goals(&judged, earlier));
    text.push_str(&causes(&judged, notes));
    text.push_str("## The figures\n\n");
    text.push_str(&readings(board, notes));
    text.push_str(&tables::cases(board));
    text.push_str(&growth::growth(board));
    text.push_str(&picture(plots, plots::NAMES[1], "Memory over VFs"));
    text.push_str(&picture(
        plots,
        plots::NAMES[2],
        "Mapping cost of 4 KiB pages",
    ));
    text.push_str(&picture(
        plots,
        plots::NAMES[3],
        "Mapping cost of 2 MiB pages",
    ));
    text.push_str(&missing(board));
    text
}

fn intro(board: &Board) -> String {
    let machine = &board.machine;
    let quick = if board.quick {
        " It was a quick run: fewer runs and sizes than a full one."
    } else {
        ""
    };
    let mut text = format!(
        "Measured on {} by `scripts/bench` at commit {}, all runs and figures in\n[data/scoreboard.json](data/scoreboard.json).{quick}\n\
        Every VMM starts the same kernel with the same initramfs, command line, memory and VFs, in the same lab host:\n{}, which is\n\
        emulated by {} on {} CPUs of {}.\nAbsolute times mean little there; counts, sizes and ratios do not depend on it.\n\n",
        board.date, board.commit, machine.kernel, machine.emulator, machine.cpus, machine.processor,
    );
    for vmm in &board.vmms {
        text.push_str(&format!("* {}: {}\n", vmm.name, vmm.version));
    }
    text.push_str("\n## The goals\n\n");
    text
}

/// How many are met, missed and not measured.
fn summary(judged: &[(&Goal, Outcome)]) -> String {
    let count = |wanted: Option<bool>| {
        judged
            .iter()
            .filter(|(_, outcome)| outcome.is_met == wanted)
            .count()
    };
    format!(
        "{} of {} goals are met, {} missed, {} not measured. The best peer is the one with the least of this figure for the same\n\
        guest, by the better of its interfaces; Narrows' figure is the one by iommufd. The guest has a VF of the NVMe controller,\n\
        or, where it says so, of the NIC alone, which every peer can be given. The tables below say of how many runs a figure is the\n\
        median.\n\n",
        count(Some(true)),
        judged.len(),
        count(Some(false)),
        count(None),
    )
}

fn goals(judged: &[(&Goal, Outcome)], earlier: &Earlier) -> String {
    let mut text = String::from(
        "| goal | target | Narrows | best peer of this run | ratio | | earlier, not in this run |\n|---|---|---:|---:|---:|---|---|\n",
    );
    for (goal, outcome) in judged {
        let verdict = match outcome.is_met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "not measured",
        };
        let best = outcome.best.as_ref().map_or_else(
            || "not measured".to_owned(),
            |(column, best)| format!("{} ({})", words::amount(*best, goal.unit), column.title()),
        );
        let ratio = outcome.ratio.map_or_else(|| "–".to_owned(), words::number);
        let earlier: Vec<_> = earlier
            .figure
            .iter()
            .filter(|figure| figure.goal == goal.id)
            .map(|figure| format!("{}: {}", figure.vmm, words::amount(figure.value, goal.unit)))
            .collect();
        let unit = if goal.unit == "KiB" { ", KiB" } else { "" };
        text.push_str(&format!(
            "| {}{unit} | {} | {} | {best} | {ratio} | {verdict} | {} |\n",
            goal.title,
            words::target(goal.target),
            words::cell(outcome.ours, goal.unit),
            earlier.join("; "),
        ));
    }
    text.push('\n');
    if !earlier.source.is_empty() {
        text.push_str(&format!("Earlier figures: {}\n\n", earlier.source.trim()));
    }
    text
}

fn causes(judged: &[(&Goal, Outcome)], notes: &Notes) -> String {
    let mut text = String::new();
    for (goal, outcome) in judged {
        if outcome.is_met != Some(false) {
            continue;
        }
        let over = match outcome.ratio {
            Some(ratio) => format!("{} of the best peer", words::number(ratio)),
            None => words::cell(outcome.ours, goal.unit),
        };
        let causes: Vec<_> = notes
            .cause
            .iter()
            .filter(|note| note.of == goal.id)
            .map(|note| note.text.trim())
            .collect();
        let cause = if causes.is_empty() {
            "The cause is not known yet.".to_owned()
        } else {
            causes.join(" ")
        };
        text.push_str(&format!(
            "* {} ({over}, {} was wanted): {cause}\n",
            goal.title,
            words::target(goal.target)
        ));
    }
    if text.is_empty() {
        text
    } else {
        format!("### What was missed, and why\n\n{text}\n")
    }
}

/// Notes on figures that the board has.
fn readings(board: &Board, notes: &Notes) -> String {
    let mut text = String::new();
    for note in &notes.figure {
        let is_there = board
            .records
            .iter()
            .any(|record| record.figures.contains_key(&note.of));
        if let Some(figure) = FIGURES.iter().find(|figure| figure.name == note.of)
            && is_there
        {
            text.push_str(&format!("* *{}*: {}\n", figure.title, note.text.trim()));
        }
    }
    if text.is_empty() {
        text
    } else {
        format!("{text}\n")
    }
}

fn picture(plots: &[Plot], name: &str, title: &str) -> String {
    if plots.iter().any(|plot| plot.0 == name) {
        format!("![{title}](plots/{name})\n\n")
    } else {
        String::new()
    }
}

fn missing(board: &Board) -> String {
    let mut text = String::from("## Not measured\n\n");
    for missing in absent::absent(board).iter().chain(&board.missing) {
        // The data has the rest: what a VMM said at last.
        let what = missing.lines().next().unwrap_or_default();
        text.push_str(&format!(
            "* {}\n",
            what.trim_end_matches("; its last words:")
        ));
    }
    text
}

#[cfg(test)]
#[path = "page_test.rs"]
mod tests;
