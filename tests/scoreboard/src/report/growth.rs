//! The table of what grows: a slope for each figure, axis and kind of guest.

use super::{
    pick::{self, Along, Measure, Series},
    statistic::Slope,
    tables::{head, push},
    words,
};
use crate::record::{Board, Case};

/// What grows with VFs, vCPUs and memory.
#[rustfmt::skip]
const GROWTH: [(Case, &[Along], &str, &str, Measure); 9] = [
    (Case::Start, VFS, "VF", "resident outside guest RAM, KiB", Measure::plain(&["rss_kib"])),
    (Case::Start, VFS, "VF", "proportional share of that, KiB", Measure::plain(&["pss_kib"])),
    (Case::Start, VFS, "VF", "descriptors", Measure::plain(&["fds"])),
    (Case::Start, &[Along::Vcpus], "vCPU", "resident outside guest RAM, KiB", Measure::plain(&["rss_kib"])),
    (Case::Start, &[Along::Vcpus], "vCPU", "proportional share of that, KiB", Measure::plain(&["pss_kib"])),
    (Case::Start, &[Along::Memory], "GiB", "page tables, KiB", Measure::plain(&["page_tables_kib"])),
    (Case::Mapping, &[Along::Memory], "GiB", "from exec to the last call that maps, ms", milliseconds(&["present_ns"])),
    (Case::Mapping, &[Along::Memory], "GiB", "time in these calls, ms", milliseconds(&["map_ns"])),
    (Case::Mapping, &[Along::Memory], "GiB", "zeroing as much, ms", milliseconds(&["zero_ns"])),
];

const fn milliseconds(figures: &'static [&'static str]) -> Measure {
    Measure {
        figures,
        per: None,
        times: 1e-6,
    }
}

const VFS: &[Along] = &[Along::Nvmes, Along::Nics, Along::Both];

/// One row for each figure, axis and kind of guest; empty where nothing was measured at two places.
#[must_use]
pub fn growth(board: &Board) -> String {
    // A VMM that grew along no axis has no column.
    let grown: Vec<_> = GROWTH
        .iter()
        .flat_map(|(case, alongs, .., measure)| {
            let of = |along: &Along| pick::series(board, *case, *along, measure);
            alongs.iter().flat_map(of)
        })
        .map(|one| one.column)
        .collect();
    let mut columns = pick::columns(board, board.records.iter());
    columns.retain(|column| grown.contains(column));
    let mut text = String::new();
    for (case, alongs, per, title, measure) in GROWTH {
        for along in alongs {
            let all = pick::series(board, case, *along, &measure);
            for same in all.chunk_by(|a, b| a.rest == b.rest) {
                let cells: Vec<_> = columns
                    .iter()
                    .map(|column| {
                        same.iter()
                            .find(|one| one.column == *column)
                            .map_or("not measured".to_owned(), growth_cell)
                    })
                    .collect();
                let about = same
                    .first()
                    .map_or_else(String::new, |one| axis(one, *along, per));
                push(
                    &mut text,
                    &format!("| {title}, {about} | {} |\n", cells.join(" | ")),
                );
            }
        }
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "### What grows\n\nThe slope of the line through the medians by least squares, and where the line begins. Where the points \
        are no line, the distance of the farthest.\n\n{}{text}\n",
        head("", &columns),
    )
}

fn growth_cell(one: &Series) -> String {
    let Slope {
        slope,
        start,
        off_by,
        ..
    } = one.slope;
    let end = |point: Option<&(f64, f64)>| point.map_or(0.0, |point| point.0);
    let rise = slope * (end(one.points.last()) - end(one.points.first()));
    let off = if one.slope.is_line(rise) {
        String::new()
    } else {
        format!("; no line, off by {}", words::number(off_by))
    };
    format!(
        "{} (from {}{off})",
        words::number(slope),
        words::number(start)
    )
}

/// `for each NVMe VF (1, 2, 4, 7): 1 vCPU, 256 MiB`.
fn axis(one: &Series, along: Along, per: &str) -> String {
    let xs: Vec<_> = one.points.iter().map(|(x, _)| words::number(*x)).collect();
    let kind = match along {
        Along::Nvmes => "NVMe ",
        Along::Nics => "NIC ",
        Along::Both | Along::Vcpus | Along::Memory => "",
    };
    format!(
        "for each {kind}{per} ({}): {}",
        xs.join(", "),
        rest(one, along)
    )
}

/// The guest without what is the axis.
fn rest(one: &Series, along: Along) -> String {
    let text = words::guest(one.rest);
    let gone = match along {
        Along::Vcpus => "0 vCPUs, ",
        Along::Memory => "0 MiB",
        Along::Nvmes | Along::Nics | Along::Both => "",
    };
    let left = if gone.is_empty() {
        text
    } else {
        text.replacen(gone, "", 1)
    };
    left.replace(", ,", ",").replace(",  in", ", RAM in")
}
