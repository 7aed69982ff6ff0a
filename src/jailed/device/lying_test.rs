//! Devices that lie, to D: each is refused before the guest runs.

use super::{
    config::DeviceBytes,
    function::Function,
    simulated::{MSI, MSIX, POWER, device, facts},
};
use crate::handoff::{self, Bar, InterruptKind, Span};

fn is_refused(bytes: &DeviceBytes, facts: &handoff::Function) -> bool {
    Function::new(bytes, facts).is_err()
}

fn with(at: u8, bytes: &[u8]) -> DeviceBytes {
    let mut device = device(4);
    device[usize::from(at)..][..bytes.len()].copy_from_slice(bytes);
    device
}

#[test]
fn lists_that_are_none_are_refused() {
    let lists = [
        ("cyclic", with(MSIX + 1, &[POWER])),
        ("to itself", with(MSIX + 1, &[MSIX])),
        ("into the header", with(MSIX + 1, &[0x10])),
        ("behind what is needed", with(MSI + 1, &[0x3C])),
        ("no answer", with(MSI, &[0xFF])),
        ("gone", [0xFF; 256]),
    ];
    for (name, bytes) in lists {
        assert!(is_refused(&bytes, &facts(InterruptKind::Msix)), "{name}");
        assert!(is_refused(&bytes, &facts(InterruptKind::None)), "{name}");
    }
}

#[test]
fn a_reserved_count_of_messages_is_refused() {
    for log in 0..8_u8 {
        let bytes = with(MSI + 2, &[log << 1]);
        let facts = handoff::Function {
            vectors: 1,
            ..facts(InterruptKind::Msi)
        };
        assert_eq!(is_refused(&bytes, &facts), log > 5, "{log}");
    }
}

/// A table of another size or at another place than before: the pages that are not mapped are those of the first answer.
#[test]
fn an_answer_that_differs_from_the_first_is_refused() {
    let honest = facts(InterruptKind::Msix);
    assert!(!is_refused(&device(4), &honest));
    for entries in [1_u16, 5, 7, 9, 0x101, 0x800] {
        let bytes = with(MSIX + 2, &(0x8000 | (entries - 1)).to_le_bytes());
        assert!(is_refused(&bytes, &honest), "{entries}");
    }
    for (at, bytes) in [(4, [3, 0x10]), (4, [2, 0]), (8, [3, 0x10]), (8, [4, 0x20])] {
        assert!(is_refused(&with(MSIX + at, &bytes), &honest), "{bytes:?}");
    }
}

/// What the supervisor would not hand over, and D refuses all the same.
#[test]
fn tables_that_are_not_fenced_are_refused() {
    let moved = |table: u32, pending: u32, entries: u32| {
        let mut bytes = with(
            MSIX + 2,
            &(u16::try_from(entries - 1).unwrap()).to_le_bytes(),
        );
        bytes[usize::from(MSIX) + 4..][..4].copy_from_slice(&table.to_le_bytes());
        bytes[usize::from(MSIX) + 8..][..4].copy_from_slice(&pending.to_le_bytes());
        let facts = handoff::Function {
            msix_table_bar: table & 7,
            msix_table_offset: table & !7,
            msix_pba_bar: pending & 7,
            msix_pba_offset: pending & !7,
            msix_entries: entries,
            ..facts(InterruptKind::Msix)
        };
        is_refused(&bytes, &facts)
    };
    assert!(!moved(3, 0x2003, 8));
    for (name, table, pending, entries) in [
        ("mapped whole", 0, 0x2003, 8),
        ("pending bits mapped", 3, 0x3003, 8),
        ("no such BAR", 6, 0x2003, 8),
        ("a BAR that is not there", 2, 0x2003, 8),
        ("behind the BAR", 0x3FF8 | 3, 0x2003, 8),
        ("far behind the BAR", 0xFFFF_FFF8 | 3, 0x2003, 8),
        ("too large for the BAR", 3, 0x2003, 2048),
        ("overlapping", 3, 0x7B, 8),
        ("the same", 3, 3, 8),
        ("reaching a mapped page", 0x2F90 | 3, 3, 8),
    ] {
        assert!(moved(table, pending, entries), "{name}");
    }
}

#[test]
fn bars_that_cannot_be_are_refused() {
    let honest = facts(InterruptKind::None);
    let wide = Bar {
        span_count: 0,
        ..honest.bars[0]
    };
    for (name, bar) in [
        (
            "not a power of two",
            Bar {
                len_bytes: 0x3000,
                ..wide
            },
        ),
        (
            "below a page",
            Bar {
                len_bytes: 0x800,
                ..wide
            },
        ),
        (
            "wrapping",
            Bar {
                gpa: 0u64.wrapping_sub(0x1_0000),
                ..wide
            },
        ),
        (
            "behind all addresses",
            Bar {
                gpa: 1 << 52,
                ..wide
            },
        ),
        (
            "larger than all addresses",
            Bar {
                gpa: 0,
                len_bytes: 1 << 53,
                ..wide
            },
        ),
        (
            "the largest power",
            Bar {
                gpa: 0,
                len_bytes: 1 << 63,
                ..wide
            },
        ),
        (
            "region wraps",
            Bar {
                region_offset: 0u64.wrapping_sub(0x1000),
                ..wide
            },
        ),
        (
            "region of another BAR",
            Bar {
                region_offset: honest.bars[3].region_offset,
                ..wide
            },
        ),
        (
            "region not of pages",
            Bar {
                region_offset: 8,
                ..wide
            },
        ),
    ] {
        let mut facts = honest;
        facts.bars[0] = bar;
        assert!(is_refused(&device(0), &facts), "{name}");
    }
    let mut last = honest;
    last.bars[5] = wide;
    assert!(is_refused(&device(0), &last), "no upper half");
    for (offset, len_bytes) in [
        (0x1_0000, 0x1000),
        (0, 0x1_1000),
        (8, 0x1000),
        (!0xFFF, 0x2000),
    ] {
        let mut facts = honest;
        facts.bars[0].spans[0] = Span { offset, len_bytes };
        assert!(is_refused(&device(0), &facts), "{offset:#x} {len_bytes:#x}");
    }
}

/// Bytes that contradict the handoff.
#[test]
fn contradictions_are_refused() {
    use InterruptKind::{Msi as M, Msix as X, None as N};
    assert!(!is_refused(&device(0), &facts(X)));
    assert!(!is_refused(&device(4), &facts(M)));
    assert!(!is_refused(&device(0), &facts(N)));

    let x = facts(X);
    for wrong in [
        handoff::Function {
            msix_table_bar: 2,
            ..x
        },
        handoff::Function {
            msix_table_offset: 8,
            ..x
        },
        handoff::Function {
            msix_pba_offset: 0x2008,
            ..x
        },
        handoff::Function {
            msix_pba_bar: 9,
            ..x
        },
        handoff::Function { vectors: 9, ..x },
        handoff::Function { vectors: 0, ..x },
        handoff::Function {
            interrupt_kind: 3,
            ..x
        },
        handoff::Function {
            vectors: 1,
            ..facts(N)
        },
        handoff::Function {
            vectors: 3,
            ..facts(M)
        },
        handoff::Function {
            vectors: 8,
            ..facts(M)
        },
    ] {
        assert!(is_refused(&device(4), &wrong), "{wrong:?}");
    }
    // No list, so no MSI-X; and without it nothing is needed.
    let mut bytes = device(0);
    bytes[6] = 0;
    assert!(is_refused(&bytes, &x));
    assert!(!is_refused(&bytes, &facts(N)));
    // A table that reaches over the end of its BAR.
    let mut bytes = device(0);
    bytes[usize::from(MSIX) + 2..][..2].copy_from_slice(&[0xFF, 0x07]);
    assert!(is_refused(&bytes, &x));
    // One capability within another, and one over the end.
    let mut bytes = device(0);
    bytes[usize::from(POWER) + 1] = MSIX - 4;
    bytes[usize::from(MSIX) - 4..]
        .copy_from_slice(&[&[0x10, MSIX][..], &device(0)[usize::from(MSIX) - 2..]].concat());
    assert!(is_refused(&bytes, &x));
    let mut bytes = device(0);
    bytes[usize::from(MSIX) + 1] = 0xD8;
    bytes[0xD8..0xDA].copy_from_slice(&[0x10, 0]);
    assert!(is_refused(&bytes, &x));
    // BARs that cannot be.
    let good = x.bars[3];
    for wrong in [
        Bar {
            len_bytes: 0x3000,
            ..good
        },
        Bar {
            len_bytes: 0x800,
            ..good
        },
        Bar {
            gpa: 0x1_C000_4000,
            ..good
        },
        Bar {
            gpa: 0xC000_2000,
            ..good
        },
        Bar {
            is_64bit: 2,
            ..good
        },
        Bar {
            region_offset: u64::MAX,
            ..good
        },
    ] {
        let mut function = x;
        function.bars[3] = wrong;
        assert!(is_refused(&device(0), &function), "{wrong:?}");
    }
    let mut function = x;
    function.bars[1] = good;
    assert!(is_refused(&device(0), &function));
}
