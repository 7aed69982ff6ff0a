//! Devices that lie, to the supervisor: each is refused by name, before anything is touched.

use iommu::fake::FakeHost;

use super::plan_test::{VF, device, host, planned};

/// The id of the first refusal.
fn id_of(host: &FakeHost) -> &'static str {
    let reports = planned(host, &device(VF)).unwrap_err();
    reports[0].id.name()
}

/// Configuration space with these bytes, of which the first is where the list begins.
fn config(first: u8, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut config = vec![0; 256];
    (config[0x06], config[0x34]) = (0x10, first);
    for (at, bytes) in parts {
        config[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    config
}

/// MSI-X with a link, a count less one, and two places.
fn msix(next: u8, last: u16, table: u32, pending: u32) -> Vec<u8> {
    let mut bytes = vec![0x11, next];
    bytes.extend(last.to_le_bytes());
    bytes.extend(table.to_le_bytes());
    bytes.extend(pending.to_le_bytes());
    bytes
}

#[test]
fn a_list_that_is_none_is_refused() {
    let good = msix(0, 2, 3, 0x2003);
    let fine = host().config(&config(0x70, &[(0x70, &good)]));
    planned(&fine, &device(VF)).unwrap();
    let cyclic = msix(0x70, 2, 3, 0x2003);
    let into_header = msix(0x10, 2, 3, 0x2003);
    let no_answer = msix(0x90, 2, 3, 0x2003);
    for (name, config) in [
        ("cyclic behind MSI-X", config(0x70, &[(0x70, &cyclic)])),
        (
            "cyclic before it",
            config(0x50, &[(0x50, &[9, 0x60]), (0x60, &[9, 0x50])]),
        ),
        ("into the header", config(0x70, &[(0x70, &into_header)])),
        ("past the end", config(0xFC, &[(0xFC, &[0x11, 0, 2, 0])])),
        (
            "no answer",
            config(0x70, &[(0x70, &no_answer), (0x90, &[0xFF])]),
        ),
        ("gone", vec![0xFF; 256]),
        (
            "neither device nor bridge",
            config(0x70, &[(0x0E, &[2]), (0x70, &good)]),
        ),
        (
            "reserved count of messages",
            config(0x50, &[(0x50, &[5, 0, 0x0C, 0])]),
        ),
        ("BAR 6", config(0x70, &[(0x70, &msix(0, 2, 6, 0x2003))])),
        (
            "pending bits in BAR 7",
            config(0x70, &[(0x70, &msix(0, 2, 3, 0x2007))]),
        ),
    ] {
        assert_eq!(
            id_of(&host().config(&config)),
            "config-unreadable",
            "{name}"
        );
    }
}

#[test]
fn a_table_that_cannot_be_fenced_is_refused() {
    for (name, last, table, pending) in [
        ("a small BAR", 2047, 3, 0x2003),
        ("behind the BAR", 2, 0x3FF8 | 3, 0x2003),
        ("far behind the BAR", 2, 0xFFFF_FFF8 | 3, 0x2003),
        ("pending bits behind the BAR", 2, 3, 0x4003),
        ("a BAR that is not there", 2, 2, 0x2003),
        ("the upper half of a BAR", 2, 1, 0x2003),
        ("overlapping", 2, 3, 0x2B),
        ("the same", 2, 3, 3),
    ] {
        let host = host().config(&config(0x70, &[(0x70, &msix(0, last, table, pending))]));
        assert_eq!(id_of(&host), "msix-outside-bar", "{name}");
    }
    // In a BAR of I/O space.
    let host = host()
        .attribute("resource", "0xe000 0xefff 0x40101\n")
        .config(&config(0x70, &[(0x70, &msix(0, 2, 0, 0x800))]));
    let ids: Vec<_> = planned(&host, &device(VF))
        .unwrap_err()
        .iter()
        .map(|report| report.id.name())
        .collect();
    assert_eq!(ids, ["io-bar", "msix-outside-bar"]);
}

#[test]
fn a_bar_that_cannot_be_is_refused() {
    for (name, start, len, id) in [
        ("below a page", 0xFD00_0000, 0x800, "bar-below-page"),
        ("not a power of two", 0xFD00_0000, 0x3000, "bar-below-page"),
        ("not on a page", 0xFD00_0800, 0x1000, "bar-below-page"),
        ("larger than all addresses", 0, 1 << 47, "layout-impossible"),
        ("the largest power", 0, 1 << 63, "layout-impossible"),
    ] {
        assert_eq!(id_of(&host().bar(0, start, len)), id, "{name}");
    }
    // The whole address space, an end before its start: no line that the kernel writes.
    for line in [
        "0x0 0xffffffffffffffff 0x140204",
        "0x2000 0x1000 0x140204",
        "0x1000",
    ] {
        let root = host().attribute("resource", line).write().unwrap();
        let read = crate::host::Inventory::read(&root);
        std::fs::remove_dir_all(root.as_path()).unwrap();
        assert!(read.is_err(), "{line}");
    }
}
