//! A guest whose RAM goes on above 4 GiB, on a lab host that has as much, in two NUMA nodes.

use std::fs;

use crate::{
    attack::{Attacker, assert_tables_are_the_ledger, check_edges, with_edu},
    guest::GuestFile,
    host,
    small::assert_nvme,
};

#[test]
#[ignore = "needs a lab host"]
fn guest_with_ram_above_4_gib_does_dma_there() {
    let transcript = GuestFile::small("large", "mem,nvme")
        .memory("4608M")
        .device(&host::nvme(0))
        .run();
    let kib: u64 = transcript.facts("mem-kib", "")["mem-kib"].parse().unwrap();
    assert!(kib > 4 << 20, "{kib} KiB");
    assert_nvme(&transcript, 0);
    // Below the hole and above 4 GiB.
    assert_eq!(transcript.stat("/dma/mappings"), 2);
    assert_eq!(transcript.stat("/dma/bytes"), 4608 << 20);
    host::assert_returned(&host::nvme(0));
}

/// RAM that takes long is not made to its end for nobody.
#[test]
#[ignore = "needs a lab host"]
fn stop_is_heard_while_ram_is_made() {
    const TOLD: &str = "MiB of RAM are present";
    let file = GuestFile::small("large-stopped", "nvme")
        .memory("5632M")
        .device(&host::nvme(0));
    let mut guest = file.start();
    let first = guest.wait_for(TOLD);
    guest.signal("TERM");
    let (_, transcript) = guest.end();
    let text = transcript.text();
    assert!(
        text.contains("a signal asked to stop while the guest was being built"),
        "{text}"
    );
    // It is told once a second, and takes many.
    let later = text.matches(TOLD).count();
    assert!(later <= 3, "after {first}\n{text}");
    host::assert_returned(&host::nvme(0));
}

/// Claim: the hole below 4 GiB is a hole for devices too, and the IOMMU's tables are the ledger on both sides of it.
/// Attacks: D03, D04. Control: the last pages of RAM below and above the hole are reached.
#[test]
#[ignore = "needs a lab host"]
fn hole_below_4_gib_is_out_of_reach() {
    const LOW_END: u64 = 0xC000_0000;
    const END: u64 = (4608 << 20) + (1 << 30);
    let file = with_edu("large-edges").memory("4608M");
    let mut guest = Attacker::start(&file);
    guest.enable(1);
    let edges = [
        ("the first page of the hole", LOW_END),
        ("a page in the hole", 0xD000_0000),
        ("the last page of the hole", 0xFFFF_F000),
    ];
    check_edges(&mut guest, LOW_END, &edges);
    check_edges(&mut guest, END, &[("the page behind RAM", END)]);
    assert_tables_are_the_ledger(&guest.guest, &host::fact("EDU"), None);
    guest.off();
}

#[test]
#[ignore = "needs a lab host"]
fn ram_is_of_the_node_that_the_guest_file_names() {
    for node in [0, 1] {
        let mut guest = GuestFile::small("node", "nvme,sleep:3")
            .memory_of_node("256M", node)
            .device(&host::nvme(0))
            .start();
        guest.wait_for("GUEST nvme=");
        let file = format!("/proc/{}/numa_maps", guest.child_pid("narrows-vcpu"));
        let text = fs::read_to_string(file).unwrap();
        let ram = text.lines().find(|line| line.contains("narrows-ram"));
        let pages = |of: u32| -> u64 {
            let start = format!("N{of}=");
            let mut words = ram.unwrap().split_whitespace();
            let word = words.find_map(|word| word.strip_prefix(&start));
            word.map_or(0, |number| number.parse().unwrap())
        };
        assert!(pages(node) > 0, "{text}");
        assert_eq!(pages(1 - node), 0, "RAM of the other node: {text}");
        let (status, transcript) = guest.end();
        assert_eq!(status.code(), Some(0), "{}", transcript.text());
        assert_nvme(&transcript, 0);
    }
}
