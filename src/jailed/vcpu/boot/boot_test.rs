//! Kernel images, honest and hostile.

use proptest::prelude::*;

use super::bzimage::{BzImage, is_bzimage};
use super::elf::{Segment, pvh_entry};
use super::{Facts, bzimage, elf, linux};
use crate::addr::{Gpa, GpaRange};
use crate::handoff::{Handoff, ImageRange, KernelFault, RamRange};
use crate::vcpu::memory_map::{MemoryKind, MemoryMap, highest_fit, is_loadable, lowest_fit};

const MIB: u64 = 1 << 20;

/// The head of a kernel that prefers 16 MiB, may move by 2 MiB and takes 32 MiB.
fn head() -> Vec<u8> {
    let mut head = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1F1, &[3]);
    put(0x1FE, &[0x55, 0xAA]);
    put(0x201, &[0x6A]);
    put(0x202, b"HdrS");
    put(0x206, &0x020F_u16.to_le_bytes());
    put(0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
    put(0x230, &0x20_0000_u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &1_u16.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x258, &(16 * MIB).to_le_bytes());
    put(0x260, &0x0200_0000_u32.to_le_bytes());
    head
}

fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut head = head();
    head[at..at + bytes.len()].copy_from_slice(bytes);
    head
}

fn parse(head: &[u8]) -> Result<BzImage, KernelFault> {
    bzimage::parse(head, 10 * MIB)
}

fn range(start: u64, len_bytes: u64) -> GpaRange {
    GpaRange::new(Gpa::new(start), len_bytes).unwrap()
}

fn ram(ranges: &[(u64, u64)]) -> Vec<RamRange> {
    let ram = ranges.iter().map(|(gpa, len_bytes)| RamRange {
        gpa: *gpa,
        len_bytes: *len_bytes,
        file_offset: 0,
    });
    ram.collect()
}

#[test]
fn a_bzimage_says_where_it_wants_to_be() {
    assert!(is_bzimage(&head()));
    let image = parse(&head()).unwrap();
    assert_eq!(image.payload_offset, 2048);
    assert_eq!(image.payload_bytes, 10 * MIB - 2048);
    assert_eq!(image.preferred, Gpa::new(16 * MIB));
    assert_eq!(image.init_bytes, 32 * MIB);
    assert_eq!(image.initramfs_limit, Gpa::new(1 << 31));
}

#[test]
fn what_cannot_be_started_is_refused_with_its_fault() {
    let fault = |head: &[u8]| parse(head).unwrap_err();
    assert_eq!(fault(&with(0x206, &[0x0B, 2])), KernelFault::No64BitEntry);
    assert_eq!(fault(&with(0x236, &[0, 0])), KernelFault::No64BitEntry);
    assert_eq!(fault(&with(0x230, &[1, 0, 0x20])), KernelFault::OutOfRange);
    assert_eq!(fault(&head()[..0x250]), KernelFault::OutOfRange);
    let short = bzimage::parse(&head(), 2048 + 0x200).unwrap_err();
    assert_eq!(short, KernelFault::OutOfRange);
}

#[test]
fn the_header_is_copied_to_its_end_and_no_further() {
    let image = parse(&with(0x26C, &[0xFF; 0x40])).unwrap();
    let used = 0x26C - bzimage::HEADER_START;
    assert_eq!(image.header[..used], head()[bzimage::HEADER_START..0x26C]);
    assert!(image.header[used..].iter().all(|byte| *byte == 0));
}

#[test]
fn boot_parameters_name_initramfs_command_line_and_map() {
    let mut handoff = Handoff::empty();
    handoff.ram_count = 2;
    handoff.ram[0].len_bytes = 3 << 30;
    handoff.ram[1].gpa = 4 << 30;
    handoff.ram[1].len_bytes = 1 << 30;
    handoff.image_count = 1;
    handoff.images[0] = ImageRange {
        gpa: 8 << 30,
        len_bytes: 2 * MIB,
        writable: 0,
    };
    let facts = Facts {
        initramfs: Some(range(0x0F00_0000, 0x1234)),
        map: MemoryMap::of(&handoff),
    };
    let page = linux::boot_params(&parse(&head()).unwrap(), &facts);
    let u32_at = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
    assert_eq!(u64_at(0x70), 0xE_0000);
    assert_eq!(page[0x210], 0xFF);
    assert_eq!((u32_at(0x218), u32_at(0x21C)), (0x0F00_0000, 0x1234));
    assert_eq!(u32_at(0x228), 0x2_0000);
    let map: Vec<_> = (0..usize::from(page[0x1E8]))
        .map(|n| 0x2D0 + 20 * n)
        .map(|at| (u64_at(at), u64_at(at + 8), u32_at(at + 16)))
        .collect();
    let expected = [
        (0, 0xA_0000, 1),
        (0x10_0000, (3 << 30) - MIB, 1),
        (4 << 30, 1 << 30, 1),
        (0xA_0000, 0x4_0000, 2),
        (0xE_0000, 0x1_0000, 3),
        (0xF_0000, 0x1_0000, 2),
        (0xE000_0000, MIB, 2),
        (8 << 30, 2 * MIB, 12),
    ];
    assert_eq!(map, expected);
}

#[test]
fn the_initramfs_lies_high_and_beside_the_kernel() {
    let small = ram(&[(0, 64 * MIB)]);
    let limit = Gpa::new(1 << 31);
    let kernel = range(16 * MIB, 32 * MIB);
    let fit = |len_bytes| highest_fit(&small, len_bytes, limit, kernel);
    assert_eq!(fit(MIB), Some(range(63 * MIB, MIB)));
    assert_eq!(fit(16 * MIB), Some(range(48 * MIB, 16 * MIB)));
    // Not above the kernel any more, but below it, above the first MiB.
    let below = 16 * MIB - 15 * MIB;
    assert_eq!(
        highest_fit(&small, 15 * MIB, limit, range(16 * MIB, 40 * MIB)),
        Some(range(below, 15 * MIB))
    );
    assert_eq!(fit(17 * MIB), None);
}

#[test]
fn the_initramfs_keeps_to_its_limit_and_to_low_ram() {
    let large = ram(&[(0, 3 << 30), (4 << 30, 4 << 30)]);
    let kernel = range(16 * MIB, 32 * MIB);
    let fit = highest_fit(&large, MIB, Gpa::new(1 << 31), kernel);
    assert_eq!(fit, Some(range((1 << 31) - MIB, MIB)));
    let fit = highest_fit(&large, MIB, Gpa::new(4 << 30), kernel);
    assert_eq!(fit, Some(range((3 << 30) - MIB, MIB)));
}

#[test]
fn a_kernel_goes_to_the_first_range_that_holds_it() {
    let split = ram(&[(0, 20 * MIB), (32 * MIB, 64 * MIB)]);
    let fit = lowest_fit(&split, 32 * MIB, Gpa::new(16 * MIB), 2 * MIB);
    assert_eq!(fit, Some(range(32 * MIB, 32 * MIB)));
    let high = ram(&[(4 << 30, 1 << 30)]);
    assert_eq!(lowest_fit(&high, MIB, Gpa::new(16 * MIB), 2 * MIB), None);
}

#[test]
fn the_first_mib_is_never_a_place_to_load_to() {
    let all = ram(&[(0, 64 * MIB)]);
    assert!(!is_loadable(&all, range(0xF_F000, 0x1000)));
    assert!(is_loadable(&all, range(0x10_0000, 0x1000)));
    assert!(!is_loadable(&all, range(63 * MIB, 2 * MIB)));
}

/// A program header.
fn program_header(kind: u32, offset: u64, start: u64, file: u64, memory: u64) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend(7_u32.to_le_bytes());
    for field in [offset, 0xFFFF_FFFF_8000_0000, start, file, memory, 0x1000] {
        header.extend(field.to_le_bytes());
    }
    header
}

#[test]
fn segments_outside_of_the_file_or_the_address_space_are_refused() {
    let parse = |header: &[u8]| elf::parse_segment(header, 0x1000);
    let load = |offset, start, file, memory| parse(&program_header(1, offset, start, file, memory));
    assert_eq!(
        load(0x800, MIB, 0x800, 0x900),
        Ok(Some(Segment::Load {
            offset: 0x800,
            file_bytes: 0x800,
            range: range(MIB, 0x900)
        }))
    );
    let fault = Err(KernelFault::OutOfRange);
    assert_eq!(load(0x801, MIB, 0x800, 0x900), fault);
    assert_eq!(load(u64::MAX, MIB, 2, 2), fault);
    assert_eq!(load(0, MIB, 2, 1), fault);
    assert_eq!(load(0, u64::MAX, 1, 2), fault);
    assert_eq!(load(0, MIB, 0, 0), Ok(None));
    assert_eq!(parse(&program_header(4, 0x1000, 0, 1, 1)), fault);
    assert_eq!(parse(&[1, 0, 0, 0]), fault);
}

fn note(name: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let mut note = [len(name), len(value), kind.to_le_bytes()].concat();
    for part in [name, value] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

#[test]
fn the_entry_is_found_behind_other_notes() {
    let entry = note(b"Xen\0", 18, &0x0100_0370_u32.to_le_bytes());
    let wide = note(b"Xen\0", 18, &0x0100_0370_u64.to_le_bytes());
    let others = [note(b"GNU\0", 18, &[1; 20]), note(b"Xen\0", 6, b"linux\0")].concat();
    let expected = Some(Gpa::new(0x0100_0370));
    assert_eq!(pvh_entry(&entry), expected);
    assert_eq!(pvh_entry(&wide), expected);
    assert_eq!(
        pvh_entry(&[others.clone(), entry.clone()].concat()),
        expected
    );
    assert_eq!(pvh_entry(&others), None);
    assert_eq!(pvh_entry(&entry[..entry.len() - 1]), None);
}

proptest! {
    #[test]
    fn no_head_panics(mut bytes: Vec<u8>, file_bytes: u64, at in 0_usize..0x290, value: [u8; 8]) {
        let mut head = head();
        head[at..at + 8].copy_from_slice(&value);
        if let Ok(image) = bzimage::parse(&head, file_bytes) {
            prop_assert!(image.payload_offset + image.payload_bytes == file_bytes);
            prop_assert!(image.init_bytes >= image.payload_bytes);
        }
        prop_assert!(bzimage::parse(&bytes, file_bytes).is_err());
        bytes.splice(0..0, *b"\x7fELF\x02\x01");
        prop_assert!(elf::parse_head(&bytes).is_err() || bytes.len() >= 58);
        prop_assert!(elf::parse_segment(&bytes, file_bytes).is_ok_and(|s| s.is_none()) || bytes.len() < 48);
    }

    #[test]
    fn no_segment_reaches_outside_of_the_file(
        kind in prop::sample::select(vec![1_u32, 4]), offset: u64, start: u64, file: u64, memory: u64, len: u64,
    ) {
        match elf::parse_segment(&program_header(kind, offset, start, file, memory), len) {
            Ok(Some(Segment::Load { offset, file_bytes, range })) => {
                prop_assert!(offset.checked_add(file_bytes).unwrap() <= len);
                prop_assert!(file_bytes <= range.len_bytes());
            }
            Ok(Some(Segment::Note { offset, file_bytes })) => {
                prop_assert!(offset.checked_add(file_bytes).unwrap() <= len);
            }
            _ => {}
        }
    }

    #[test]
    fn no_notes_panic(bytes: Vec<u8>, name: u32, value: u32) {
        prop_assert!(pvh_entry(&bytes).is_none() || bytes.len() >= 16);
        let hostile = [name.to_le_bytes(), value.to_le_bytes(), 18_u32.to_le_bytes(), *b"Xen\0"].concat();
        prop_assert!(pvh_entry(&hostile).is_none());
    }

    #[test]
    fn a_place_lies_in_ram_below_its_limit_and_beside_the_kernel(
        first in 1_u64..4096, gap in 0_u64..64, second in 1_u64..4096, len in 1_u64..(1 << 31),
        limit in 0_u64..(1 << 32), kernel in 1_u64..2048, kernel_len in 1_u64..256,
    ) {
        let ram = ram(&[(0, first * MIB), ((first + gap) * MIB, second * MIB)]);
        let taken = range(kernel * MIB, kernel_len * MIB);
        if let Some(place) = highest_fit(&ram, len, Gpa::new(limit), taken) {
            prop_assert!(is_loadable(&ram, place));
            prop_assert!(place.end() <= Gpa::new(limit) && !place.overlaps(&taken));
            prop_assert_eq!(place.start().raw() % 4096, 0);
        }
        if let Some(place) = lowest_fit(&ram, len, Gpa::new(kernel * MIB), 2 * MIB) {
            prop_assert!(is_loadable(&ram, place) && place.end().raw() <= 1 << 32);
        }
    }

    #[test]
    fn no_map_overlaps_itself_or_calls_the_legacy_area_ram(first in 1_u64..3072, high in 0_u64..65536) {
        let mut handoff = Handoff::empty();
        handoff.ram_count = 1 + u32::from(high > 0);
        handoff.ram[0].len_bytes = first * MIB;
        handoff.ram[1] = RamRange { gpa: 4 << 30, len_bytes: high * MIB, file_offset: 0 };
        let entries: Vec<_> = MemoryMap::of(&handoff).entries().collect();
        for (n, a) in entries.iter().enumerate() {
            prop_assert!(entries[n + 1..].iter().all(|b| !a.range.overlaps(&b.range)));
            prop_assert!(a.kind != MemoryKind::Ram || !a.range.overlaps(&range(0xA_0000, 0x6_0000)));
        }
    }
}
