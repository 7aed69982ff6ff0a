//! The parts of the model: the walk, the table of policy, sets, BARs, the MSI-X table.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows fails"
)]

use proptest::prelude::*;

use super::{
    bar::{self, Place},
    caps::{self, Caps},
    msix::{Table, deliverable_address},
    policy::TABLE,
    vectors::{Run, VectorSet},
};
use crate::{
    handoff::{Bar, Function, InterruptKind, Span},
    ring::{Request, RequestKind},
};

/// Configuration space with a list of capabilities at these offsets.
fn with_list(list: &[(u8, u8)]) -> Vec<u8> {
    let mut config = vec![0; 256];
    config[6] = 0x10;
    let mut pointer = 0x34;
    for (offset, kind) in list {
        config[pointer] = *offset;
        config[usize::from(*offset)] = *kind;
        pointer = usize::from(*offset) + 1;
    }
    config
}

#[test]
fn known_capabilities_are_found_wherever_they_are() {
    let config = with_list(&[
        (0xA0, 0x10),
        (0x40, 0x09),
        (0x70, 0x11),
        (0x50, 0x01),
        (0xE0, 0x05),
        (0xF0, 0x11),
    ]);
    let expected = Caps {
        power: Some(0x50),
        msi: Some(0xE0),
        express: Some(0xA0),
        msix: Some(0x70),
    };
    assert_eq!(caps::walk(&config), Some(expected));
}

#[test]
fn no_list_shows_nothing() {
    let mut config = with_list(&[(0xA0, 0x10)]);
    config[6] = 0;
    assert_eq!(caps::walk(&config), Some(Caps::default()));
}

#[test]
fn every_loop_of_two_is_refused() {
    for first in (0x40..=0xFC).step_by(4) {
        for second in (0x40..=0xFC).step_by(4) {
            let mut config = with_list(&[(first, 0x10), (second, 0x11)]);
            config[usize::from(second) + 1] = first;
            assert_eq!(caps::walk(&config), None);
        }
    }
}

#[test]
fn the_longest_list_is_taken_and_a_longer_one_is_a_loop() {
    let all: Vec<(u8, u8)> = (0x40..=0xFC).step_by(4).map(|at| (at, 0x09)).collect();
    let mut config = with_list(&all);
    assert_eq!(all.len(), 48);
    assert_eq!(caps::walk(&config), Some(Caps::default()));
    config[0xFD] = 0x40;
    assert_eq!(caps::walk(&config), None);
}

#[test]
fn pointer_out_of_range_is_refused() {
    for pointer in 0..=0xFF_u8 {
        let mut config = with_list(&[(0x40, 0x10)]);
        config[0x41] = pointer;
        let found = caps::walk(&config);
        // Into the header, or to itself.
        assert_eq!(
            found.is_none(),
            (1..=0x10).contains(&(pointer >> 2)),
            "{pointer:#x}"
        );
    }
}

#[test]
fn a_capability_that_does_not_answer_is_refused() {
    let config = with_list(&[(0x40, 0x10), (0x80, 0xFF)]);
    assert_eq!(caps::walk(&config), None);
    assert_eq!(caps::walk(&[0xFF; 256]), None);
}

#[test]
fn truncated_bytes_are_refused() {
    let config = with_list(&[(0x40, 0x10), (0xA0, 0x11)]);
    for len in 0..256 {
        assert_eq!(caps::walk(&config[..len]).is_some(), len > 0xA1, "{len:#x}");
    }
}

proptest! {
    #[test]
    fn walk_finds_only_what_the_bytes_say(config in prop::collection::vec(any::<u8>(), 0..=256)) {
        let found = caps::walk(&config).unwrap_or_default();
        for (place, kind) in [(found.power, 1), (found.msi, 5), (found.express, 0x10), (found.msix, 0x11)] {
            if let Some(at) = place {
                prop_assert!(at >= 0x40 && at % 4 == 0);
                prop_assert_eq!(config.get(usize::from(at)).copied(), Some(kind));
            }
        }
    }

    #[test]
    fn walk_survives_dense_lists(bytes in prop::collection::vec(prop_oneof![Just(0x40_u8), Just(0x44), Just(0x48), Just(0x11), Just(0x10)], 256)) {
        let mut config = bytes;
        config[6] = 0x10;
        // No byte is zero, so no list ends.
        prop_assert_eq!(caps::walk(&config), None);
    }

    #[test]
    fn changes_are_the_difference(a in any::<[bool; 32]>(), b in any::<[bool; 32]>(), shift in 0_u32..224) {
        let set = |bits: [bool; 32]| {
            VectorSet::of(256, |v| v.checked_sub(shift).is_some_and(|v| bits.get(v as usize) == Some(&true)))
        };
        let (before, after) = (set(a), set(b));
        let mut now: Vec<bool> = (0..256).map(|v| before.has(v)).collect();
        let mut last_end = 0;
        for Run { first, count, is_delivered } in before.changes(after) {
            prop_assert!(count > 0 && first >= last_end);
            last_end = first + count;
            for v in first..first + count {
                prop_assert!(now[v as usize] != is_delivered);
                now[v as usize] = is_delivered;
            }
        }
        prop_assert_eq!(now, (0..256).map(|v| after.has(v)).collect::<Vec<_>>());
    }
}

#[test]
fn neighbours_change_in_one_run() {
    let all = VectorSet::of(200, |_| true);
    let runs: Vec<Run> = VectorSet::default().changes(all).collect();
    assert_eq!(
        runs,
        [Run {
            first: 0,
            count: 200,
            is_delivered: true
        }]
    );
    assert!(!all.has(200) && !all.has(u32::MAX) && all.has(199));
}

#[test]
fn table_of_policy_is_what_was_reviewed() {
    let printed: String = TABLE
        .iter()
        .map(|row| {
            let place = format!("{:?}+{:#04x}", row.structure, row.offset);
            let treatment = format!("{:x?}", row.treatment);
            format!(
                "{place:<19} {} {:<23} {treatment:<24} {}\n",
                row.size_bytes, row.name, row.reason
            )
        })
        .collect();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/device/policy.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &printed).unwrap();
    }
    assert_eq!(
        printed,
        include_str!("policy.golden"),
        "UPDATE_GOLDEN=1 writes it"
    );
}

#[test]
fn rows_neither_overlap_nor_cross_a_dword() {
    for (index, a) in TABLE.iter().enumerate() {
        assert!(a.offset % 4 + a.size_bytes <= 4, "{}", a.name);
        for b in &TABLE[..index] {
            let is_apart =
                a.offset >= b.offset + b.size_bytes || b.offset >= a.offset + a.size_bytes;
            let forms = [format!("{:?}", a.structure), format!("{:?}", b.structure)];
            // The forms of MSI exclude each other.
            assert!(
                is_apart || a.structure != b.structure,
                "{} {}",
                forms[0],
                forms[1]
            );
        }
    }
}

fn bar_request(offset: u64, size_bytes: usize) -> Request {
    Request {
        kind: RequestKind::BarRead,
        function: 0,
        bar: 2,
        size_bytes,
        offset,
        value: 0,
    }
}

/// A BAR of four pages: registers, table with room behind it, pending bits, and one page that cannot be mapped.
fn function_with_bar() -> Function {
    let mut function = Function {
        interrupt_kind: InterruptKind::Msix as u32,
        vectors: 3,
        msix_table_bar: 2,
        msix_table_offset: 0x1000,
        msix_pba_bar: 2,
        msix_pba_offset: 0x2000,
        ..Function::default()
    };
    function.bars[2] = Bar {
        gpa: 0x8000,
        len_bytes: 0x4000,
        region_offset: 0x200_0000,
        span_count: 1,
        spans: [
            Span {
                offset: 0,
                len_bytes: 0x1000,
            },
            Span {
                offset: 0x3000,
                len_bytes: 0x1000,
            },
            Span::default(),
            Span::default(),
        ],
        ..Bar::default()
    };
    function
}

#[test]
fn every_place_of_a_bar_is_one_thing() {
    let function = function_with_bar();
    // The device's own table has five entries, the guest has three: none of the five is ever a register.
    for offset in 0..0x4010_u64 {
        for size_bytes in [1, 2, 4, 8] {
            let is_aligned =
                offset.is_multiple_of(size_bytes as u64) && offset + size_bytes as u64 <= 0x4000;
            let expected = match offset {
                _ if !is_aligned => Place::Nothing,
                0..0x1000 => Place::Nothing,
                0x1000..0x1050 => Place::Table(offset - 0x1000),
                0x2000..0x2008 => Place::Pending(offset - 0x2000),
                _ => Place::Register(0x200_0000 + offset),
            };
            assert_eq!(
                bar::place(&function, 5, &bar_request(offset, size_bytes)),
                expected,
                "{offset:#x} {size_bytes}"
            );
        }
    }
    let far = [u64::MAX, u64::MAX - 7, 1 << 63, 0x4000];
    for offset in far {
        assert_eq!(
            bar::place(&function, 5, &bar_request(offset, 8)),
            Place::Nothing
        );
    }
    let absent = Request {
        bar: 3,
        ..bar_request(0, 4)
    };
    assert_eq!(bar::place(&function, 5, &absent), Place::Nothing);
}

#[test]
fn table_keeps_what_the_entry_has() {
    let mut table = Table::new(3);
    assert_eq!(table.read(12, 4), 1);
    let route = table.write(16, 4, 0xFEE0_1003).unwrap();
    assert_eq!(
        (route.first_vector, route.count, route.address),
        (1, 1, 0xFEE0_1000)
    );
    assert_eq!(table.write(16, 4, 0xFEE0_1000), None);
    let route = table.write(24, 8, 0x0000_0000_0000_4051).unwrap();
    assert_eq!((route.address, route.data), (0xFEE0_1000, 0x4051));
    assert_eq!(table.read(28, 4), 0);
    assert!(table.unmasked().has(1) && !table.unmasked().has(0));
    assert_eq!(table.write(28, 4, u64::MAX), None);
    assert_eq!(table.read(24, 8), 0x1_0000_4051);
    // Behind the guest's entries, and widths that the specification leaves undefined.
    assert_eq!(table.write(48, 4, 0), None);
    assert_eq!(table.read(48, 4), u64::MAX);
    assert_eq!(table.write(16, 2, 0), None);
    assert_eq!(table.read(16, 1), u64::MAX);
    table.reset();
    assert_eq!(table.read(16, 8), 0);
    assert_eq!(table.read(28, 4), 1);
}

#[test]
fn only_messages_to_a_local_apic_are_delivered() {
    for (address, upper_address, expected) in [
        (0xFEE0_0000, 0, 0xFEE0_0000),
        (0xFEEF_FFFC, 0, 0xFEEF_FFFC),
        (0xFEF0_0000, 0, 0),
        (0xFED0_0000, 0, 0),
        (0xFEE0_0000, 1, 0),
        (0, 0, 0),
    ] {
        assert_eq!(deliverable_address(address, upper_address), expected);
    }
}
