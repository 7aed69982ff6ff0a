//! Counts by name: exits by reason, system calls by their names.

use std::collections::BTreeSet;

use super::{
    pick::{self, Column, Shape},
    statistic::summary,
    words,
};
use crate::record::{Board, Case};

/// The kinds of counts that the page shows, by case; all others are in the board alone.
#[rustfmt::skip]
const KINDS: [(Case, &str, &str); 3] = [
    (Case::Start, "exits", "exits by reason"),
    (Case::Start, "user-exits", "of them to user space"),
    (Case::Calls, "calls", "system calls"),
];
/// How many names a table has; what is left is summed up in its last row.
const MOST: usize = 12;

/// A table for each kind that the shape's records have.
#[must_use]
pub fn tables(board: &Board, shape: &Shape, columns: &[Column]) -> String {
    let kinds = KINDS.iter().filter(|kind| kind.0 == shape.case);
    kinds
        .map(|(_, kind, title)| table(board, shape, columns, kind, title))
        .collect()
}

fn table(board: &Board, shape: &Shape, columns: &[Column], kind: &str, title: &str) -> String {
    let of_kind = || pick::of_shape(board, shape).filter_map(|record| record.counts.get(kind));
    let names: BTreeSet<&String> = of_kind().flat_map(|counts| counts.keys()).collect();
    let mut rows: Vec<(&str, Vec<Option<f64>>)> = names
        .into_iter()
        .map(|name| {
            let medians = columns
                .iter()
                .map(|column| median(board, shape, column, kind, name));
            (name.as_str(), medians.collect())
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    // The most of any column first; names in order where that is the same.
    let most = |row: &(&str, Vec<Option<f64>>)| row.1.iter().flatten().copied().fold(0.0, f64::max);
    rows.sort_by(|a, b| most(b).total_cmp(&most(a)).then(a.0.cmp(b.0)));
    let left = rows.split_off(rows.len().min(MOST));
    if !left.is_empty() {
        let sum = |place: usize| {
            left.iter()
                .map(|row| row.1.get(place).copied().flatten())
                .sum()
        };
        rows.push(("all others", (0..columns.len()).map(sum).collect()));
    }
    let titles: Vec<_> = columns.iter().map(Column::title).collect();
    let mut text = format!(
        "| {title} | {} |\n|---|{}\n",
        titles.join(" | "),
        "---:|".repeat(columns.len())
    );
    for (name, values) in rows {
        let cells: Vec<_> = values
            .into_iter()
            .map(|value| value.map_or_else(|| "not measured".to_owned(), words::number))
            .collect();
        text.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    }
    text + "\n"
}

/// Over the runs that have this kind; a name that one of them lacks counts as none there.
fn median(board: &Board, shape: &Shape, column: &Column, kind: &str, name: &str) -> Option<f64> {
    let of_column = pick::of_shape(board, shape).filter(|record| column.is_of(record));
    let values: Vec<f64> = of_column
        .filter_map(|record| record.counts.get(kind))
        .map(|counts| counts.get(name).copied().unwrap_or(0))
        .map(|count| f64::from(u32::try_from(count).unwrap_or(u32::MAX)))
        .collect();
    summary(&values).map(|summary| summary.median)
}

#[cfg(test)]
mod tests {
    use super::{MOST, tables};
    use crate::{
        record::{Board, Case, Interface},
        report::{pick, sample},
    };

    fn board(runs: &[(&str, &[(&str, u64)])]) -> Board {
        let mut board = sample::board();
        for (vmm, counts) in runs {
            let mut record = sample::record(Case::Start, vmm, Interface::Iommufd);
            let counts = counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect();
            record.counts.insert("exits".to_owned(), counts);
            board.records.push(record);
        }
        board
    }

    fn shown(board: &Board) -> String {
        let shapes = pick::shapes(board, Case::Start);
        let columns = pick::columns(board, board.records.iter());
        shapes
            .iter()
            .map(|shape| tables(board, shape, &columns))
            .collect()
    }

    #[test]
    fn a_reason_that_a_run_lacks_counts_as_none() {
        let text = shown(&board(&[
            ("narrows", &[("io", 4)]),
            ("narrows", &[]),
            ("qemu", &[("io", 9), ("halt", 1)]),
        ]));
        assert!(
            text.contains("| io | 2 | 9 |\n| halt | 0 | 1 |\n"),
            "{text}"
        );
    }

    #[test]
    fn the_rest_is_summed_up() {
        let names: Vec<_> = (0..MOST + 3).map(|n| format!("r{n:02}")).collect();
        let counts: Vec<_> = names.iter().map(|name| (name.as_str(), 5)).collect();
        let text = shown(&board(&[("narrows", &counts)]));
        assert!(text.contains("| all others | 15 |"), "{text}");
        assert_eq!(text.matches("| r").count(), MOST);
    }

    #[test]
    fn a_vmm_without_such_counts_was_not_measured() {
        let mut board = board(&[("narrows", &[("io", 4)]), ("qemu", &[])]);
        for record in &mut board.records {
            if record.vmm == "qemu" {
                record.counts.clear();
            }
        }
        assert!(shown(&board).contains("| io | 4 | not measured |"));
    }
}
