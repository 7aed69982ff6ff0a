//! The goals, and whether they are met. Nobody writes "met" by hand.

use super::{
    pick::{self, Along, Column, Measure, Shape, goal_guest},
    statistic::Summary,
};
use crate::{
    plan::{NIC, NVME},
    record::{Board, Case, Guest, Interface, Pages},
};

/// What a figure is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// At most this part of the best peer's.
    OfBestPeer(f64),
    /// Less than this, whatever the peers do.
    Below(f64),
    /// At most this.
    AtMost(f64),
}

/// Where the figure comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// One of the guests of the goals, in this case.
    Guest(Case, Guest, Measure),
    /// A window of this work.
    Work(&'static str, Measure),
    /// The largest memory in huge pages.
    LargestMapping(Measure),
    /// The slope of the first over memory in huge pages, over the slope of the second.
    MappingSlopes(Measure, Measure),
}

/// A goal.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Its key in notes and in earlier figures.
    pub id: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What it is held to.
    pub target: Target,
    /// Where its figure comes from.
    pub source: Source,
    /// The unit of its figure.
    pub unit: &'static str,
}

const CONSOLE: Guest = goal_guest(true);
const RSS: Measure = Measure::plain(&["rss_kib"]);
const PSS: Measure = Measure::plain(&["pss_kib"]);
const USER_EXITS: Measure = Measure::plain(&["user_exits"]);
const ENTRY: Measure = Measure::plain(&["entry_ns"]);
const ENTRY_BUSY: Measure = Measure::plain(&["entry_busy_ns"]);
const HALF: Target = Target::OfBestPeer(0.5);
const THIRD: Target = Target::OfBestPeer(1.0 / 3.0);
const TENTH: Target = Target::OfBestPeer(0.1);
/// One in a thousand is what the work itself did not cause.
const NONE: Target = Target::Below(1.0);
const LIMIT: Target = Target::AtMost(1.2);

const fn per_thousand(figures: &'static [&'static str]) -> Measure {
    Measure {
        figures,
        per: Some("units"),
        times: 1000.0,
    }
}

const fn over_zeroing(figures: &'static [&'static str]) -> Measure {
    Measure {
        figures,
        per: Some("zero_ns"),
        times: 1.0,
    }
}

const fn goal(
    id: &'static str,
    title: &'static str,
    target: Target,
    source: Source,
    unit: &'static str,
) -> Goal {
    Goal {
        id,
        title,
        target,
        source,
        unit,
    }
}

use Source::{LargestMapping, MappingSlopes, Work};

/// All of them, in the order of the page.
#[rustfmt::skip]
pub const GOALS: &[Goal] = &[
    goal("memory", "resident outside guest RAM, with console", HALF, Source::Guest(Case::Start, CONSOLE, RSS), "KiB"),
    goal("memory-quiet", "resident outside guest RAM, without console", HALF, Source::Guest(Case::Start, NVME, RSS), "KiB"),
    goal("memory-nic", "resident outside guest RAM, NIC alone", HALF, Source::Guest(Case::Start, NIC, RSS), "KiB"),
    goal("memory-share", "proportional share outside guest RAM, with console", HALF, Source::Guest(Case::Start, CONSOLE, PSS), "KiB"),
    goal("memory-share-quiet", "proportional share outside guest RAM, without console", HALF, Source::Guest(Case::Start, NVME, PSS), "KiB"),
    goal("memory-share-nic", "proportional share outside guest RAM, NIC alone", HALF, Source::Guest(Case::Start, NIC, PSS), "KiB"),
    goal("entry", "clock ticks from exec to the guest's first entry, with idle time", THIRD, Source::Guest(Case::Instructions, NVME, ENTRY), "ticks"),
    goal("entry-nic", "clock ticks from exec to the guest's first entry, with idle time, NIC alone", THIRD, Source::Guest(Case::Instructions, NIC, ENTRY), "ticks"),
    goal("entry-busy", "instructions from exec to the guest's first, without idle time", THIRD, Source::Guest(Case::Instructions, NVME, ENTRY_BUSY), "instructions"),
    goal("entry-busy-nic", "instructions from exec to the guest's first, without idle time, NIC alone", THIRD, Source::Guest(Case::Instructions, NIC, ENTRY_BUSY), "instructions"),
    goal("exits", "exits to user space from power-on to init, with console", TENTH, Source::Guest(Case::Start, CONSOLE, USER_EXITS), "count"),
    goal("exits-quiet", "exits to user space from power-on to init, without console", TENTH, Source::Guest(Case::Start, NVME, USER_EXITS), "count"),
    goal("exits-nic", "exits to user space from power-on to init, NIC alone", TENTH, Source::Guest(Case::Start, NIC, USER_EXITS), "count"),
    goal("config-read-calls", "system calls besides `KVM_RUN` per 1,000 reads of configuration space", NONE, Work("config-read", per_thousand(&["calls"])), "count"),
    goal("nvme-read-exits", "exits to user space per 1,000 NVMe reads", NONE, Work("nvme-read", per_thousand(&["user_exits"])), "count"),
    goal("nvme-read-calls", "system calls besides `KVM_RUN` per 1,000 NVMe reads", NONE, Work("nvme-read", per_thousand(&["calls"])), "count"),
    goal("nvme-write-exits", "exits to user space per 1,000 NVMe writes", NONE, Work("nvme-write", per_thousand(&["user_exits"])), "count"),
    goal("nvme-write-calls", "system calls besides `KVM_RUN` per 1,000 NVMe writes", NONE, Work("nvme-write", per_thousand(&["calls"])), "count"),
    goal("small-packet-exits", "exits to user space per 1,000 packets of 64 bytes", NONE, Work("packets-small", per_thousand(&["user_exits"])), "count"),
    goal("small-packet-calls", "system calls besides `KVM_RUN` per 1,000 packets of 64 bytes", NONE, Work("packets-small", per_thousand(&["calls"])), "count"),
    goal("large-packet-exits", "exits to user space per 1,000 packets of 1,400 bytes", NONE, Work("packets-large", per_thousand(&["user_exits"])), "count"),
    goal("large-packet-calls", "system calls besides `KVM_RUN` per 1,000 packets of 1,400 bytes", NONE, Work("packets-large", per_thousand(&["calls"])), "count"),
    goal("mapping", "time in the calls that map memory over the time to zero it, 2 MiB pages, the largest memory", LIMIT, LargestMapping(over_zeroing(&["map_ns"])), "ratio"),
    goal("mapping-slope", "what each GiB adds from exec to the last of these calls, over what it adds to zeroing, 2 MiB pages", LIMIT, MappingSlopes(Measure::plain(&["present_ns"]), Measure::plain(&["zero_ns"])), "ratio"),
];

/// What came of a goal.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Narrows' figure.
    pub ours: Option<Summary>,
    /// The best peer's, in the same run.
    pub best: Option<(Column, f64)>,
    /// Ours over the best peer's.
    pub ratio: Option<f64>,
    /// Whether it is met; `None` where what that needs was not measured.
    pub is_met: Option<bool>,
}

/// Judges a goal. Narrows' own figure is the one by iommufd, which it takes where the host has it; a peer's is the best of
/// its interfaces.
#[must_use]
pub fn judge(board: &Board, goal: &Goal) -> Outcome {
    let all = figures(board, goal.source);
    let ours = all
        .iter()
        .filter(|(column, _)| column.is_ours())
        .min_by_key(|(column, _)| column.interface != Some(Interface::Iommufd))
        .map(|(_, summary)| *summary);
    let best = all
        .iter()
        .filter(|(column, _)| !column.is_ours())
        .min_by(|a, b| a.1.median.total_cmp(&b.1.median))
        .map(|(column, summary)| (column.clone(), summary.median));
    let ratio = match (ours, &best) {
        (Some(ours), Some((_, best))) if *best > 0.0 => Some(ours.median / best),
        _ => None,
    };
    let is_met = match goal.target {
        Target::OfBestPeer(part) => ratio.map(|ratio| ratio <= part),
        Target::Below(limit) => ours.map(|ours| ours.median < limit),
        Target::AtMost(limit) => ours.map(|ours| ours.median <= limit),
    };
    Outcome {
        ours,
        best,
        ratio,
        is_met,
    }
}

fn figures(board: &Board, source: Source) -> Vec<(Column, Summary)> {
    match source {
        Source::Guest(case, guest, measure) => {
            let (guest, work) = (Some(guest), String::new());
            of_shape(board, &Shape { case, guest, work }, &measure)
        }
        Work(work, measure) => {
            // Where several guests did this work: the one without a console, then the smallest, which most VMMs can start.
            let mut shapes = pick::shapes(board, Case::Steady);
            shapes.retain(|shape| shape.work == work);
            shapes
                .sort_by_key(|shape| (shape.guest.is_some_and(|guest| guest.console), shape.guest));
            let shape = shapes.first();
            shape.map_or_else(Vec::new, |shape| of_shape(board, shape, &measure))
        }
        LargestMapping(measure) => {
            let mut shapes = pick::shapes(board, Case::Mapping);
            shapes.retain(|shape| is_huge(shape.guest));
            let largest = shapes
                .iter()
                .max_by_key(|shape| shape.guest.map(|guest| guest.memory_mib));
            largest.map_or_else(Vec::new, |shape| of_shape(board, shape, &measure))
        }
        MappingSlopes(work, limit) => {
            let mut works = pick::series(board, Case::Mapping, Along::Memory, &work);
            works.retain(|one| is_huge(Some(one.rest)));
            let limits = pick::series(board, Case::Mapping, Along::Memory, &limit);
            let ratio = |one: &pick::Series| {
                let same =
                    |other: &&pick::Series| other.rest == one.rest && other.column == one.column;
                let limit = limits.iter().find(same)?.slope.slope;
                let median = one.slope.slope / limit;
                let summary = Summary {
                    median,
                    min: median,
                    max: median,
                    runs: one.slope.points,
                };
                (limit > 0.0).then(|| (one.column.clone(), summary))
            };
            works.iter().filter_map(ratio).collect()
        }
    }
}

fn is_huge(guest: Option<Guest>) -> bool {
    guest.is_some_and(|guest| guest.pages == Pages::TwoMib)
}

fn of_shape(board: &Board, shape: &Shape, measure: &Measure) -> Vec<(Column, Summary)> {
    pick::columns(board, pick::of_shape(board, shape))
        .into_iter()
        .filter_map(|column| {
            let summary = pick::value(board, shape, &column, measure)?;
            Some((column, summary))
        })
        .collect()
}

#[cfg(test)]
#[path = "goals_test.rs"]
mod tests;
