//! Goals that are met, missed and not measured, on boards made up for it.

use super::{GOALS, Goal, Outcome, judge};
use crate::{
    record::{Board, Case, Interface, Pages, Record},
    report::{pick::goal_guest, sample},
};

fn goal(id: &str) -> &'static Goal {
    GOALS
        .iter()
        .find(|goal| goal.id == id)
        .expect("a goal of this name")
}

fn board(records: Vec<Record>) -> Board {
    Board {
        records,
        ..sample::board()
    }
}

fn start(vmm: &str, interface: Interface, figure: &str, value: f64) -> Record {
    let mut record = sample::record(Case::Start, vmm, interface);
    record.guest = Some(goal_guest(true));
    record.figures.insert(figure.to_owned(), value);
    record
}

fn is_met(outcome: &Outcome) -> Option<bool> {
    outcome.is_met
}

#[test]
fn a_goal_without_a_peer_is_not_measured() {
    let board = board(vec![start("narrows", Interface::Iommufd, "rss_kib", 1.0)]);
    assert_eq!(is_met(&judge(&board, goal("memory"))), None);
}

#[test]
fn a_goal_without_our_figure_is_not_measured() {
    let board = board(vec![start("qemu", Interface::Iommufd, "rss_kib", 1.0)]);
    for goal in GOALS {
        assert_eq!(is_met(&judge(&board, goal)), None, "{}", goal.id);
    }
}

#[test]
fn the_best_peer_counts_by_its_best_interface() {
    let board = board(vec![
        start("narrows", Interface::Iommufd, "rss_kib", 50.0),
        start("narrows", Interface::Type1, "rss_kib", 10.0),
        start("qemu", Interface::Iommufd, "rss_kib", 1000.0),
        start("other", Interface::Type1, "rss_kib", 100.0),
    ]);
    let outcome = judge(&board, goal("memory"));
    assert_eq!(outcome.ratio, Some(0.5));
    assert_eq!(is_met(&outcome), Some(true));
    assert_eq!(
        outcome.best.map(|(column, _)| column.vmm),
        Some("other".to_owned())
    );
}

#[test]
fn a_missed_goal_is_missed() {
    let board = board(vec![
        start("narrows", Interface::Iommufd, "user_exits", 11.0),
        start("qemu", Interface::Iommufd, "user_exits", 100.0),
    ]);
    assert_eq!(is_met(&judge(&board, goal("exits"))), Some(false));
    // The guest without a console was not measured.
    assert_eq!(is_met(&judge(&board, goal("exits-quiet"))), None);
}

#[test]
fn nothing_per_unit_means_less_than_one_in_a_thousand() {
    for (calls, met) in [(0.0, true), (1.0, true), (2.0, false)] {
        let mut record = sample::record(Case::Steady, "narrows", Interface::Iommufd);
        record.work = "nvme-read".to_owned();
        record.figures.insert("units".to_owned(), 2000.0);
        record.figures.insert("calls".to_owned(), calls);
        let outcome = judge(&board(vec![record]), goal("nvme-read-calls"));
        assert_eq!(is_met(&outcome), Some(met), "{calls}");
    }
}

#[test]
fn mapping_is_held_to_zeroing_by_each_gib() {
    let mut records = Vec::new();
    for gib in [1_u32, 4, 8] {
        let mut record = sample::record(Case::Mapping, "narrows", Interface::Iommufd);
        let mut guest = goal_guest(false);
        guest.memory_mib = gib * 1024;
        guest.pages = Pages::TwoMib;
        record.guest = Some(guest);
        // A start of 7, and 11 for each GiB, where zeroing takes 10.
        record
            .figures
            .insert("present_ns".to_owned(), 7.0 + 11.0 * f64::from(gib));
        record
            .figures
            .insert("zero_ns".to_owned(), 10.0 * f64::from(gib));
        records.push(record);
    }
    let outcome = judge(&board(records), goal("mapping-slope"));
    let ours = outcome.ours.expect("a slope");
    assert!((ours.median - 1.1).abs() < 1e-9);
    assert_eq!(outcome.is_met, Some(true));
}

#[test]
fn every_goal_has_a_key_of_its_own() {
    let mut keys: Vec<_> = GOALS.iter().map(|goal| goal.id).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), GOALS.len());
}
