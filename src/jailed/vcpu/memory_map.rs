//! What the guest's kernel is told about memory, and where in RAM something fits.

use crate::addr::{Gpa, GpaRange};
use crate::handoff::{Handoff, MAX_IMAGES, MAX_RAM_RANGES, RamRange};
use crate::machine;

/// Where memory that a PC reserves below one MiB begins.
pub const LEGACY_START: Gpa = Gpa::new(0xA_0000);
/// The first MiB's end: where kernels may lie.
pub const HIGH_START: Gpa = Gpa::new(0x10_0000);

/// What a range of memory is for, as e820 and PVH number it.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// To be used.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
    /// Holds the ACPI tables.
    Acpi = 3,
    /// Persistent memory without a description in ACPI: Linux makes a `/dev/pmem` of it.
    Pram = 12,
}

/// A range of memory and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// The range.
    pub range: GpaRange,
    /// What it is for.
    pub kind: MemoryKind,
}

/// The most entries of a map: RAM with the first range cut in two, three below one MiB, the images, ECAM.
pub const MAX_ENTRIES: usize = MAX_RAM_RANGES + 1 + 3 + MAX_IMAGES + 1;

/// The guest's memory map.
#[derive(Clone, Copy, Debug)]
pub struct MemoryMap {
    entries: [Option<MapEntry>; MAX_ENTRIES],
}

impl MemoryMap {
    /// The map of the guest that `handoff` describes.
    #[must_use]
    pub fn of(handoff: &Handoff) -> Self {
        let low = handoff.ram().iter().flat_map(|ram| {
            let range = GpaRange::new(Gpa::new(ram.gpa), ram.len_bytes);
            [
                range.and_then(|r| between(r.start(), r.end().min(LEGACY_START))),
                range.and_then(|r| between(r.start().max(HIGH_START), r.end())),
            ]
            .map(|range| (range, MemoryKind::Ram))
        });
        let acpi_end = machine::ACPI_START.checked_add(machine::ACPI_BYTES);
        let acpi_end = acpi_end.unwrap_or(HIGH_START);
        let fixed = [
            (
                between(LEGACY_START, machine::ACPI_START),
                MemoryKind::Reserved,
            ),
            (between(machine::ACPI_START, acpi_end), MemoryKind::Acpi),
            (between(acpi_end, HIGH_START), MemoryKind::Reserved),
            (
                GpaRange::new(machine::ECAM_START, machine::ECAM_BYTES),
                MemoryKind::Reserved,
            ),
        ];
        let images = handoff.images().iter().map(|image| {
            (
                GpaRange::new(Gpa::new(image.gpa), image.len_bytes),
                MemoryKind::Pram,
            )
        });
        let mut entries = [None; MAX_ENTRIES];
        let all = low
            .chain(fixed)
            .chain(images)
            .filter_map(|(range, kind)| range.map(|range| MapEntry { range, kind }));
        for (place, entry) in entries.iter_mut().zip(all) {
            *place = Some(entry);
        }
        Self { entries }
    }

    /// Its entries.
    pub fn entries(&self) -> impl Iterator<Item = MapEntry> {
        self.entries.iter().flatten().copied()
    }
}

/// `[start, end)`, if that is not empty.
#[must_use]
pub fn between(start: Gpa, end: Gpa) -> Option<GpaRange> {
    GpaRange::new(start, end.offset_from(start)?)
}

/// Whether `range` lies in one range of RAM, above the first MiB.
#[must_use]
pub fn is_loadable(ram: &[RamRange], range: GpaRange) -> bool {
    range.start() >= HIGH_START
        && ram.iter().any(|ram| {
            GpaRange::new(Gpa::new(ram.gpa), ram.len_bytes)
                .is_some_and(|ram| ram.contains(range.start(), range.len_bytes()))
        })
}

/// The lowest range of `len_bytes` bytes in RAM that starts at `from` or above, aligned, and ends below 4 GiB.
#[must_use]
pub fn lowest_fit(
    ram: &[RamRange],
    len_bytes: u64,
    from: Gpa,
    align_bytes: u64,
) -> Option<GpaRange> {
    ram.iter()
        .filter_map(|ram| {
            let start = Gpa::new(ram.gpa).max(from);
            GpaRange::new(start.checked_align_up(align_bytes)?, len_bytes)
        })
        .find(|range| is_loadable(ram, *range) && range.end() <= machine::HIGH_RAM_START)
}

/// The highest page-aligned range of `len_bytes` bytes in RAM that ends at `limit` or below and spares `taken`.
#[must_use]
pub fn highest_fit(
    ram: &[RamRange],
    len_bytes: u64,
    limit: Gpa,
    taken: GpaRange,
) -> Option<GpaRange> {
    let ends = ram
        .iter()
        .filter_map(|ram| Gpa::new(ram.gpa).checked_add(ram.len_bytes));
    // It ends where RAM does, where it may at most, or where what is taken begins.
    ends.chain([limit, taken.start()])
        .filter(|end| *end <= limit)
        .filter_map(|end| {
            let start = end.raw().checked_sub(len_bytes)?;
            GpaRange::new(Gpa::new(start - start % machine::PAGE_BYTES), len_bytes)
        })
        .filter(|range| is_loadable(ram, *range) && !range.overlaps(&taken))
        .max_by_key(GpaRange::start)
}
