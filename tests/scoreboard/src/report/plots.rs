//! What is drawn: ratios to the best peer, what VFs cost, what mapping costs.

use super::{
    goals::{GOALS, Target, judge},
    pick::{self, Along, Measure, Series},
    svg::{self, Bar, Line},
    words,
};
use crate::record::{Board, Case, Interface};

/// A picture's file name below `docs/plots`, and its text.
pub type Plot = (&'static str, String);

/// Every name that [`plots`] may give: a file of one that it does not give is out of date.
pub const NAMES: [&str; 4] = [
    "ratios.svg",
    "memory-over-vfs.svg",
    "mapping-4k.svg",
    "mapping-2m.svg",
];

/// The pictures for which the board has figures.
#[must_use]
pub fn plots(board: &Board) -> Vec<Plot> {
    let mut plots = Vec::new();
    plots.extend(ratios(board).map(|plot| (NAMES[0], plot)));
    plots.extend(memory(board).map(|plot| (NAMES[1], plot)));
    let small = mapping(board, " in 4 KiB pages", None);
    plots.extend(small.map(|plot| (NAMES[2], plot)));
    let huge = mapping(board, " in 2 MiB pages", Some(1.2));
    plots.extend(huge.map(|plot| (NAMES[3], plot)));
    plots
}

fn ratios(board: &Board) -> Option<String> {
    let mut bars = Vec::new();
    for goal in GOALS {
        let outcome = judge(board, goal);
        if let (Target::OfBestPeer(part), Some(ratio), Some((column, _))) =
            (goal.target, outcome.ratio, &outcome.best)
        {
            bars.push(Bar {
                label: goal.title.to_owned(),
                value: ratio,
                goal: part,
                note: format!("{} of {}", words::number(ratio), column.vmm),
            });
        }
    }
    let title =
        "Narrows over the best peer of the same run (less is better; upright marks are goals)";
    (!bars.is_empty()).then(|| svg::bars(title, "ratio, logarithmic", &bars))
}

fn memory(board: &Board) -> Option<String> {
    let measure = Measure::plain(&["pss_kib"]);
    let alongs = [Along::Nvmes, Along::Both, Along::Nics];
    // One kind of guest: the one with the most places on the axis, the first of these that has them.
    let families = alongs.iter().flat_map(|along| {
        let all = pick::series(board, Case::Start, *along, &measure);
        let families: Vec<Vec<Series>> = all
            .chunk_by(|a, b| a.rest == b.rest)
            .map(<[_]>::to_vec)
            .collect();
        families.into_iter().map(|family| (*along, family))
    });
    let places = |family: &[Series]| family.iter().map(|one| one.points.len()).max().unwrap_or(0);
    let (along, family) = families.reduce(|best, next| {
        if places(&next.1) > places(&best.1) {
            next
        } else {
            best
        }
    })?;
    let axis = match along {
        Along::Nics => "VFs of a NIC",
        Along::Nvmes => "VFs of an NVMe controller",
        Along::Both | Along::Vcpus | Along::Memory => {
            "VFs, half of them a NIC's, half an NVMe controller's"
        }
    };
    let lines = drawn(family);
    let title = "Memory outside guest RAM over VFs (proportional share of all processes)";
    Some(svg::lines(title, (axis, "KiB"), &lines, None))
}

fn mapping(board: &Board, pages: &str, goal: Option<f64>) -> Option<String> {
    let measure = Measure {
        figures: &["map_ns"],
        per: Some("zero_ns"),
        times: 1.0,
    };
    let mut all = pick::series(board, Case::Mapping, Along::Memory, &measure);
    all.retain(|one| words::pages(one.rest.pages) == pages);
    // Other VFs or vCPUs are other pictures: the first kind is drawn.
    let first = all.first()?.rest;
    all.retain(|one| one.rest == first);
    let lines = drawn(all);
    let title =
        format!("Time in the calls that map guest RAM{pages}, over the time to zero it once");
    Some(svg::lines(
        &title,
        ("GiB of guest RAM", "ratio"),
        &lines,
        goal,
    ))
}

/// A colour for each VMM, unbroken for iommufd.
fn drawn(all: Vec<Series>) -> Vec<Line> {
    let mut vmms: Vec<String> = all.iter().map(|one| one.column.vmm.clone()).collect();
    vmms.dedup();
    let line = |one: Series| Line {
        label: one.column.title(),
        is_ours: one.column.is_ours(),
        colour: vmms
            .iter()
            .position(|vmm| *vmm == one.column.vmm)
            .unwrap_or(0),
        is_dashed: one.column.interface == Some(Interface::Type1),
        points: one.points,
    };
    all.into_iter().map(line).collect()
}
