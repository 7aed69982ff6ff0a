//! An independent witness: the IOMMU's own page tables, as the host's kernel shows them, against what Narrows says that it
//! mapped.

use std::{
    collections::BTreeMap,
    fs::{self, File},
};

use serde_json::Value;

use super::{Attacker, physical::GuestRam};
use crate::{guest::GuestFile, host};

const PAGE: u64 = 4096;

/// Where an entry of the tables leads, and what the device may do there.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    physical: u64,
    len_bytes: u64,
    is_read: bool,
    is_written: bool,
}

/// Physical memory, from the first address to before the second.
type Piece = (u64, u64);

/// All entries of the tables that the IOMMU uses for a function, by the device's addresses.
///
/// *Source:* `Intel VT-d 4.1, section 9.8 (second-stage paging entries)`; the columns are those of the kernel's
/// `domain_translation_struct`, of which a large page leaves the last empty.
fn tables(bdf: &str) -> BTreeMap<u64, Leaf> {
    const READ: u64 = 1;
    const WRITE: u64 = 2;
    const FRAME: u64 = 0x000F_FFFF_FFFF_F000;
    let path = format!("/sys/kernel/debug/iommu/intel/{bdf}/domain_translation_struct");
    let text = fs::read_to_string(path).unwrap();
    let mut pages = BTreeMap::new();
    for line in text.lines() {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
            .collect();
        // The first is the page's number; then the entries of levels 5 to 1, as many as there are.
        let [page, entries @ ..] = numbers.as_slice() else {
            continue;
        };
        if entries.len() < 3 {
            continue;
        }
        let level = 6 - u32::try_from(entries.len()).unwrap();
        let leaf = entries[entries.len() - 1];
        // A device may do what every level of the way allows.
        let way = entries
            .iter()
            .skip(1)
            .fold(u64::MAX, |all, entry| all & entry);
        let leaf = Leaf {
            physical: leaf & FRAME,
            len_bytes: PAGE << (9 * (level - 1)),
            is_read: way & READ != 0,
            is_written: way & WRITE != 0,
        };
        assert!(
            pages.insert(page * PAGE, leaf).is_none(),
            "page {page:#x} is there twice"
        );
    }
    pages
}

/// Fails unless the IOMMU's tables for `bdf` are, page by page, what the ledger of the running guest says: the same
/// addresses, the same permissions, and the very memory of its RAM and image. What physical memory that is.
pub(crate) fn assert_tables_are_the_ledger(
    guest: &crate::guest::Guest,
    bdf: &str,
    image: Option<&str>,
) -> Vec<Piece> {
    assert_tables(guest, bdf, image, &[])
}

/// As [`assert_tables_are_the_ledger`], for a guest with BARs that devices may reach: where the guest has each, and where
/// it is in physical memory.
pub(super) fn assert_tables(
    guest: &crate::guest::Guest,
    bdf: &str,
    image: Option<&str>,
    bars: &[Piece],
) -> Vec<Piece> {
    let mut leaves = tables(bdf);
    let ram = GuestRam::of(guest).frames();
    let image = image.map(|path| GuestRam::map(&File::open(path).unwrap()).frames());
    let figures = guest.figures();
    let entries = figures
        .pointer("/dma/entries")
        .and_then(Value::as_array)
        .unwrap();
    let mut physical = Vec::new();
    for entry in entries {
        let number = |key: &str| entry[key].as_u64().unwrap();
        let (start, end) = (number("start"), number("end"));
        let is_image = entry["kind"] == "image";
        let is_written = entry["permission"] == "read-write";
        assert_eq!(
            is_written, !is_image,
            "an image that may be written: {entry}"
        );
        let bar = bar_frames(entry, bars);
        let (frames, first) = match &image {
            _ if entry["kind"] == "peer-bar" => (&bar, 0),
            Some(image) if is_image => (image, 0),
            _ => (&ram, page_of(GuestRam::offset(start))),
        };
        let mut at = start;
        while at < end {
            let Some(leaf) = leaves.remove(&at) else {
                panic!("the IOMMU does not map {at:#x} of {entry}")
            };
            assert!(
                at + leaf.len_bytes <= end,
                "LEAK: {leaf:x?} at {at:#x} goes beyond {entry}"
            );
            assert!(
                leaf.is_read && leaf.is_written == is_written,
                "LEAK: other permissions: {leaf:x?} at {at:#x} of {entry}"
            );
            let own = &frames[first + page_of(at - start)..][..page_of(leaf.len_bytes)];
            let expected = (0..).map(|index| leaf.physical + index * PAGE);
            let foreign = own
                .iter()
                .zip(expected)
                .find(|(own, mapped)| **own != *mapped);
            assert_eq!(
                foreign, None,
                "LEAK: other memory: {leaf:x?} at {at:#x} of {entry}"
            );
            physical.push((leaf.physical, leaf.physical + leaf.len_bytes));
            at += leaf.len_bytes;
        }
    }
    let left: Vec<_> = leaves.iter().take(8).collect();
    assert!(
        left.is_empty(),
        "LEAK: {} entries of the IOMMU are in no ledger: {left:x?}",
        leaves.len()
    );
    assert_eq!(shared(&physical), [], "memory is mapped twice");
    physical
}

/// The physical addresses of an entry's pages, where it is of one of the BARs.
fn bar_frames(entry: &Value, bars: &[Piece]) -> Vec<u64> {
    let number = |key: &str| entry[key].as_u64().unwrap();
    let start = number("start");
    let below = bars.iter().filter(|(gpa, _)| *gpa <= start);
    let Some((gpa, physical)) = below.max().filter(|_| entry["kind"] == "peer-bar") else {
        return Vec::new();
    };
    let pages = (number("end") - start) / PAGE;
    (0..pages)
        .map(|page| physical + (start - gpa) + page * PAGE)
        .collect()
}

/// The neighbours among the pieces that overlap.
fn shared(pieces: &[Piece]) -> Vec<(Piece, Piece)> {
    let mut sorted = pieces.to_vec();
    sorted.sort_unstable();
    let neighbours = sorted.windows(2).map(|pair| (pair[0], pair[1]));
    neighbours.filter(|(a, b)| b.0 < a.1).collect()
}

fn page_of(offset: u64) -> usize {
    usize::try_from(offset / PAGE).unwrap()
}

/// Claim: the IOMMU maps exactly what Narrows says, to the page and the bit, by both kernel interfaces, with an image and
/// without. Control: after the guest, the same reading of the tables finds nothing.
#[test]
#[ignore = "needs a lab host"]
fn tables_of_the_iommu_are_the_ledger() {
    let bdf = host::nvme(0);
    for interface in ["type1", "iommufd"] {
        for image in [None, Some("/tmp/oracle-image")] {
            let mut file = GuestFile::attacker("oracle")
                .key(&format!("interface = \"{interface}\""))
                .device(&bdf);
            if let Some(path) = image {
                host::shell(&format!("head -c 2097152 /dev/urandom >{path}"));
                file = file
                    .memory("128M")
                    .table(&format!("[root]\nimage = \"{path}\""));
            }
            let guest = Attacker::start(&file);
            let pieces = assert_tables_are_the_ledger(&guest.guest, &bdf, image);
            let mib: u64 = pieces
                .iter()
                .map(|(start, end)| (end - start) >> 12)
                .sum::<u64>()
                / 256;
            assert_eq!(mib, if image.is_some() { 128 + 2 } else { 64 });
            guest.off();
            assert_eq!(
                tables(&bdf).len(),
                0,
                "{bdf} reaches memory that no guest has"
            );
        }
    }
}

/// Claim: no page is mapped for two guests. Control: each guest's tables are its ledger.
#[test]
#[ignore = "needs a lab host"]
fn tables_of_two_guests_share_no_page() {
    let (one, other) = (host::nvme(0), host::nvme(1));
    let first = Attacker::start(&GuestFile::attacker("oracle-one").device(&one));
    let second = Attacker::start(
        &GuestFile::attacker("oracle-other")
            .device(&other)
            .device(&host::nic(0)),
    );
    let a = assert_tables_are_the_ledger(&first.guest, &one, None);
    let b = assert_tables_are_the_ledger(&second.guest, &other, None);
    assert_eq!(
        assert_tables_are_the_ledger(&second.guest, &host::nic(0), None),
        b,
        "two VFs of one guest differ"
    );
    let both = [a, b].concat();
    assert_eq!(shared(&both), [], "LEAK: two guests share memory");
    first.off();
    second.off();
}
