use proptest::prelude::*;

use super::*;

fn range(start: u64, len: u64) -> IovaRange {
    IovaRange::new(Iova::new(start), ByteLen::new(len)).unwrap()
}

fn ram(start: u64, len: u64) -> Entry {
    Entry {
        range: range(start, len),
        permission: Permission::ReadWrite,
        kind: Kind::Ram,
    }
}

fn limits(page: u64, reserved: &[(u64, u64)], usable: Option<&[(u64, u64)]>) -> Limits {
    Limits {
        page: ByteLen::new(page),
        reserved: reserved
            .iter()
            .map(|(start, len)| ReservedRegion {
                range: range(*start, *len),
                kind: "msi".to_owned(),
            })
            .collect(),
        usable: usable.map(|usable| {
            usable
                .iter()
                .map(|(start, len)| range(*start, *len))
                .collect()
        }),
        bars: Bars::default(),
    }
}

#[test]
fn each_refusal_has_its_name_and_leaves_the_ledger_as_it_was() {
    let limits = limits(0x1000, &[(0xfee0_0000, 0x10_0000)], Some(&[(0, 1 << 39)]));
    let mut ledger = Ledger::plan(limits, &[ram(0x10_0000, 0x10_0000)]).unwrap();
    let image = Entry {
        kind: Kind::Image,
        ..ram(0x4000_0000, 0x1000)
    };
    let table = [
        ("map-unaligned", ram(0x800, 0x1000)),
        ("map-unaligned", ram(0x1000, 0x1001)),
        ("map-overlap", ram(0x1f_f000, 0x2000)),
        ("map-overlap", ram(0, 0x100_0000)),
        ("map-reserved", ram(0xf000_0000, 0x1000_0000)),
        ("map-reserved", ram(0xfee0_0000, 0x1000)),
        ("map-unusable", ram(1 << 39, 0x1000)),
        ("map-unusable", ram((1 << 39) - 0x1000, 0x2000)),
        ("map-writable-image", image),
    ];
    for (id, entry) in table {
        assert_eq!(ledger.insert(entry).unwrap_err().id(), id, "{entry:?}");
        assert_eq!(ledger.entries().len(), 1);
    }
    // Up to the very edges of what is refused.
    ledger.insert(ram(0, 0x10_0000)).unwrap();
    ledger
        .insert(ram(0x20_0000, 0xfee0_0000 - 0x20_0000))
        .unwrap();
    ledger.insert(ram(0xfef0_0000, 0x1000)).unwrap();
    ledger.insert(ram((1 << 39) - 0x1000, 0x1000)).unwrap();
    assert_eq!(ledger.total(), ByteLen::new(0xfee0_0000 + 0x2000));
}

#[test]
fn a_reserved_region_is_named() {
    let limits = limits(0x1000, &[(0xfee0_0000, 0x10_0000)], None);
    let refusal = Ledger::plan(limits, &[ram(0xfee0_0000, 0x1000)]).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "[0xfee00000, 0xfee01000) overlaps the reserved region [0xfee00000, 0xfef00000) (msi)"
    );
}

#[test]
fn where_a_bar_is_only_what_is_open_of_it_is_mapped_and_only_as_a_bar() {
    let bar = range(0x1_0000_0000, 0x4000);
    let open = range(0x1_0000_0000, 0x2000);
    let mut ledger = Ledger::new(Limits {
        bars: Bars {
            all: vec![bar, range(0x2_0000_0000, 0x1000)],
            open: vec![open],
        },
        ..limits(0x1000, &[(0x1_0000_1000, 0x1000)], Some(&[(0, 1 << 39)]))
    });
    let peer = |start, len| Entry {
        kind: Kind::PeerBar,
        ..ram(start, len)
    };
    let table = [
        ("map-bar", ram(0x1_0000_0000, 0x1000)),
        ("map-bar", ram(0x1_0000_3000, 0x1000)),
        ("map-bar", ram(0xffff_f000, 0x2000)),
        ("map-bar", ram(0x2_0000_0000, 0x1000)),
        (
            "map-bar",
            Entry {
                kind: Kind::Image,
                permission: Permission::ReadOnly,
                ..ram(0x1_0000_0000, 0x1000)
            },
        ),
        // The page of the MSI-X table, alone and together with what is open.
        ("map-closed-bar", peer(0x1_0000_2000, 0x1000)),
        ("map-closed-bar", peer(0x1_0000_0000, 0x4000)),
        // A BAR that nobody opens, and no BAR at all.
        ("map-closed-bar", peer(0x2_0000_0000, 0x1000)),
        ("map-closed-bar", peer(0x1000, 0x1000)),
        // Being named excuses from no other rule.
        ("map-unaligned", peer(0x1_0000_0800, 0x800)),
        ("map-reserved", peer(0x1_0000_0000, 0x2000)),
    ];
    for (id, entry) in table {
        assert_eq!(ledger.insert(entry).unwrap_err().id(), id, "{entry:?}");
        assert_eq!(ledger.entries().len(), 0);
    }
    ledger.insert(peer(0x1_0000_0000, 0x1000)).unwrap();
    ledger.insert(ram(0x1_0000_4000, 0x1000)).unwrap();
    assert_eq!(
        ledger.insert(peer(0x1_0000_0000, 0x1000)).unwrap_err().id(),
        "map-overlap"
    );
}

#[test]
fn a_page_size_of_zero_refuses_everything() {
    let refusal = Ledger::plan(limits(0, &[], None), &[ram(0x1000, 0x1000)]).unwrap_err();
    assert_eq!(refusal.id(), "map-unaligned");
}

/// The toy space: 10 addresses in pages of 2, every reserved region up to 3 long, every usable
/// window from 6, every first mapping, and every third of those for the second.
#[test]
fn in_a_toy_space_exactly_the_permitted_mappings_are_accepted() {
    const END: u64 = 10;
    let ranges: Vec<(u64, u64)> = (0..END)
        .flat_map(|start| (1..=END - start).map(move |len| (start, len)))
        .collect();
    let holds = |(start, len): (u64, u64), at: u64| start <= at && at < start + len;
    let mut checked = 0_u32;
    for reserved in ranges.iter().filter(|(_, len)| *len <= 3) {
        for usable in ranges.iter().filter(|(_, len)| *len >= 6) {
            for first in &ranges {
                for second in ranges.iter().step_by(3) {
                    let mut ledger = Ledger::new(limits(2, &[*reserved], Some(&[*usable])));
                    let mut accepted: Vec<(u64, u64)> = Vec::new();
                    for wanted in [*first, *second] {
                        let permitted = wanted.0 % 2 == 0
                            && wanted.1 % 2 == 0
                            && (0..END).filter(|at| holds(wanted, *at)).all(|at| {
                                holds(*usable, at)
                                    && !holds(*reserved, at)
                                    && !accepted.iter().any(|other| holds(*other, at))
                            });
                        assert_eq!(ledger.insert(ram(wanted.0, wanted.1)).is_ok(), permitted);
                        if permitted {
                            accepted.push(wanted);
                        }
                    }
                    for at in 0..END {
                        let translated = ledger.translates(Iova::new(at)).is_some();
                        assert_eq!(translated, accepted.iter().any(|range| holds(*range, at)));
                    }
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 20_000, "{checked}");
}

fn pages() -> impl Strategy<Value = Entry> {
    let start = prop_oneof![
        0_u64..64,
        (0_u64..8).prop_map(|page| u64::MAX / 4096 - page)
    ];
    (start, 1_u64..20).prop_filter_map("wraps", |(start, len)| {
        let range = IovaRange::new(Iova::new(start * 4096), ByteLen::new(len * 4096))?;
        Some(Entry {
            range,
            permission: Permission::ReadWrite,
            kind: Kind::Ram,
        })
    })
}

proptest! {
    /// One arbitrary address stands for all.
    #[test]
    fn an_address_is_translated_iff_exactly_one_entry_holds_it(
        wanted in proptest::collection::vec(pages(), 0..12),
        reserved in proptest::collection::vec((0_u64..90, 1_u64..9), 0..4),
        at in prop_oneof![0_u64..(90 * 4096), any::<u64>()],
    ) {
        let reserved: Vec<_> = reserved.iter().map(|(start, len)| (start * 4096, len * 4096)).collect();
        let limits = limits(4096, &reserved, Some(&[(0, 70 * 4096), (80 * 4096, u64::MAX - 80 * 4096)]));
        let mut ledger = Ledger::new(limits);
        let mut total = 0;
        for entry in wanted {
            let before = ledger.total();
            match ledger.insert(entry) {
                Ok(()) => total += entry.range.len_bytes().raw(),
                Err(_) => prop_assert_eq!(ledger.total(), before),
            }
        }
        prop_assert_eq!(ledger.total().raw(), total);
        let at = Iova::new(at);
        let holders = ledger.entries().iter().filter(|entry| entry.range.contains(at)).count();
        prop_assert!(holders <= 1);
        prop_assert_eq!(ledger.translates(at).is_some(), holders == 1);
        if holders == 1 {
            prop_assert!(ledger.limits().reserved.iter().all(|region| !region.range.contains(at)));
            prop_assert!(ledger.limits().usable.iter().flatten().any(|window| window.contains(at)));
        }
    }
}
