//! A made-up board, for tests: round numbers, one peer, every case.

use std::collections::BTreeMap;

use super::pick::goal_guest;
use crate::record::{Board, Case, Guest, Interface, Machine, Pages, Record, SCHEMA, Vmm};

/// A record of a case with the guest of the goals and no figures.
#[must_use]
pub fn record(case: Case, vmm: &str, interface: Interface) -> Record {
    Record {
        case,
        vmm: vmm.to_owned(),
        interface: Some(interface),
        guest: Some(goal_guest(false)),
        run: 1,
        work: String::new(),
        figures: BTreeMap::new(),
        counts: BTreeMap::new(),
    }
}

/// A board without records.
#[must_use]
pub fn board() -> Board {
    let vmm = |name: &str, version: &str| Vmm {
        name: name.to_owned(),
        version: version.to_owned(),
    };
    Board {
        schema: SCHEMA,
        date: "2026-01-02".to_owned(),
        commit: "abcdef0".to_owned(),
        quick: false,
        machine: Machine {
            processor: "A processor".to_owned(),
            cpus: 2,
            emulator: "an emulator 1.0".to_owned(),
            kernel: "a kernel 1.0".to_owned(),
        },
        vmms: vec![
            vmm("narrows", "narrows 0.1.0"),
            vmm("qemu", "QEMU emulator version 10.0"),
        ],
        missing: vec!["times on real hardware: the lab host is emulated".to_owned()],
        records: Vec::new(),
    }
}

/// Three runs of each of two VMMs, by every case; QEMU's figures are ten times ours, but a few.
#[must_use]
pub fn full() -> Board {
    let mut board = board();
    for (vmm, factor) in [("narrows", 1.0), ("qemu", 10.0)] {
        for interface in [Interface::Iommufd, Interface::Type1] {
            for run in 1..=3 {
                runs(&mut board.records, vmm, interface, run, factor);
            }
        }
        let mut code = record(Case::Code, vmm, Interface::Iommufd);
        (code.interface, code.guest) = (None, None);
        fill(
            &mut code,
            &[("binary_bytes", 4e6 * factor), ("libraries", factor - 1.0)],
        );
        board.records.push(code);
    }
    board
}

fn fill(record: &mut Record, figures: &[(&str, f64)]) {
    for (name, value) in figures {
        record.figures.insert((*name).to_owned(), value.round());
    }
}

fn runs(records: &mut Vec<Record>, vmm: &str, interface: Interface, run: u32, factor: f64) {
    let mut add = |case: Case, guest: Guest, work: &str, figures: &[(&str, f64)]| {
        let mut one = record(case, vmm, interface);
        (one.guest, one.run, one.work) = (Some(guest), run, work.to_owned());
        fill(&mut one, figures);
        records.push(one);
    };
    let jitter = f64::from(run) - 2.0;
    for console in [false, true] {
        for nvmes in [1, 2, 4, 7] {
            let guest = Guest {
                nvmes,
                ..goal_guest(console)
            };
            let size = 4000.0 + 100.0 * f64::from(nvmes) + 4.0 * jitter;
            let exits = if console { 1500.0 } else { 500.0 };
            add(
                Case::Start,
                guest,
                "",
                &[
                    ("rss_kib", size * factor),
                    ("pss_kib", (size - 1000.0) * factor),
                    ("fds", 30.0),
                    ("exits", 4000.0 * factor + jitter),
                    ("user_exits", exits * factor),
                ],
            );
        }
    }
    add(
        Case::Instructions,
        goal_guest(false),
        "",
        &[("entry_ns", 1e8 * factor), ("entry_busy_ns", 4e7 * factor)],
    );
    for (work, units) in [
        ("config-read", 1024.0),
        ("nvme-read", 1000.0),
        ("packets-small", 2000.0),
    ] {
        let calls = if work == "config-read" {
            0.0
        } else {
            factor - 1.0
        };
        add(
            Case::Steady,
            goal_guest(false),
            work,
            &[
                ("units", units),
                ("exits", units * 2.0),
                ("user_exits", 0.0),
                ("calls", calls),
                ("kvm_run_calls", 0.0),
                ("interrupts", units),
            ],
        );
    }
    for gib in [1_u32, 4, 8] {
        for pages in [Pages::Small, Pages::TwoMib] {
            let guest = Guest {
                memory_mib: gib * 1024,
                pages,
                ..goal_guest(false)
            };
            let zero = 1e8 * f64::from(gib);
            add(
                Case::Mapping,
                guest,
                "",
                &[
                    ("map_calls", 1.0),
                    ("map_ns", zero * 1.1),
                    ("zero_ns", zero),
                    ("present_ns", 1e8 + zero * 1.1 * (1.0 + factor / 10.0)),
                    ("entry_ns", 2e8 + zero * 1.1 * (1.0 + factor / 10.0)),
                ],
            );
        }
    }
    // One run of some columns, and of one figure.
    if run == 1 || interface == Interface::Iommufd {
        let stop: &[_] = if run == 1 { &[("stop_ns", 1e8)] } else { &[] };
        let rate = [("cycles_per_minute", 60.0 / factor)];
        add(Case::Life, goal_guest(false), "", &[&rate, stop].concat());
    }
    add(
        Case::Surface,
        goal_guest(false),
        "",
        &[("allowed_calls", 12.0 * factor)],
    );
}
