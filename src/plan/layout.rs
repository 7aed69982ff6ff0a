//! Where everything lies in the guest's physical address space.
//!
//! RAM from 0, below and above the hole for MMIO; images above RAM; 64-bit BARs above images; 32-bit BARs in the hole.
//! Nothing touches a window that the IOMMU reserves, because a device's address is the guest's address ([`iova_of`]).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use iommu::addr::{ByteLen, Iova, IovaRange};
use jailed::{
    addr::{Gpa, GpaRange},
    handoff::MAX_RAM_RANGES,
    machine::{HIGH_RAM_START, LOW_RAM_END, MMIO32_END, MMIO32_START, PAGE_BYTES},
};
use vm_allocator::{AddressAllocator, AllocPolicy};

use super::types::{Ram, Span};

/// RAM ranges begin and (but for the last) end on multiples of this, so that the IOMMU and KVM can use large pages.
const RAM_GRANULE: u64 = 2 << 20;
/// Images begin on multiples of this: the unit in which Linux adds memory, so that no image shares one with RAM.
const IMAGE_ALIGN: u64 = 128 << 20;
/// The window for 64-bit BARs begins and ends on multiples of this.
const WINDOW_ALIGN: u64 = 1 << 30;
/// KVM's second-level page tables reach this many address bits wherever they exist.
const MAX_PHYS_BITS: u32 = 48;

/// The address at which a device finds the guest's `gpa`: the same number. The one place where that is decided.
#[must_use]
pub const fn iova_of(gpa: Gpa) -> Iova {
    Iova::new(gpa.raw())
}

/// The guest's addresses that a range of the device's addresses covers; the inverse of [`iova_of`].
#[must_use]
pub const fn gpa_range_of(range: IovaRange) -> Option<GpaRange> {
    GpaRange::new(Gpa::new(range.start().raw()), range.len_bytes().raw())
}

/// What has to be placed.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// RAM in bytes, a multiple of the page size and of `hugepage`.
    pub(super) ram: ByteLen,
    /// The size of the huge pages that back RAM.
    pub(super) hugepage: Option<ByteLen>,
    /// The images' lengths.
    pub(super) images: Vec<ByteLen>,
    /// The BARs.
    pub(super) bars: Vec<BarRequest>,
    /// The windows that the IOMMU reserves, in any order; they may overlap.
    pub(super) reserved: Vec<GpaRange>,
    /// The physical address bits of the CPU.
    pub(super) phys_bits: u32,
}

/// A BAR to place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BarRequest {
    /// Its size, a power of two, at least a page.
    pub(super) len: ByteLen,
    /// Whether it can lie above 4 GiB.
    pub(super) is_64bit: bool,
}

/// Where everything lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// RAM, ascending, the first range from 0.
    pub(super) ram: Vec<Ram>,
    /// The images in the order of the request.
    pub(super) images: Vec<GpaRange>,
    /// The BARs in the order of the request.
    pub(super) bars: Vec<GpaRange>,
    /// The window that holds every 64-bit BAR and neither RAM nor images.
    pub(super) window64: Option<GpaRange>,
}

/// Why there is no layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// RAM cannot begin at 0.
    StartReserved(GpaRange),
    /// RAM falls apart.
    TooManyRanges,
    /// This much RAM does not fit below the end of the address space.
    NoRoomForRam { missing: ByteLen, limit: Gpa },
    /// Something else does not fit into the window it has to be in.
    NoRoom {
        what: &'static str,
        len: ByteLen,
        window: String,
    },
    /// Two things overlap: a bug.
    Overlap(GpaRange, GpaRange),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartReserved(window) => write!(
                f,
                "the IOMMU reserves {window}, where the guest's first RAM has to be"
            ),
            Self::TooManyRanges => write!(
                f,
                "the IOMMU's reserved regions split RAM into more than {MAX_RAM_RANGES} ranges"
            ),
            Self::NoRoomForRam { missing, limit } => {
                write!(f, "{missing} of RAM find no place below {limit}")
            }
            Self::NoRoom { what, len, window } => {
                write!(f, "{what} of {len} finds no place in {window}")
            }
            Self::Overlap(one, other) => write!(f, "{one} and {other} overlap"),
        }
    }
}

/// Places everything.
///
/// # Errors
/// A [`Fault`] that says what finds no place.
pub(super) fn lay_out(request: &Request) -> Result<Layout, Fault> {
    let bits = request.phys_bits.min(MAX_PHYS_BITS);
    let limit = Gpa::new(1_u64.checked_shl(bits).unwrap_or(u64::MAX));
    let ram = place_ram(request, limit)?;
    let ram_end = ram.last().map_or(Gpa::new(0), |last| last.at.end());
    let mut above = ram_end.max(HIGH_RAM_START);
    let mut images = Vec::new();
    for len in &request.images {
        let image = place_above(above, *len, &request.reserved, limit)?;
        above = image.end();
        images.push(image);
    }
    let window_start = above.checked_align_up(WINDOW_ALIGN).unwrap_or(limit);
    let bars = place_bars(request, window_start, limit)?;
    let window64 = request
        .bars
        .iter()
        .zip(&bars)
        .filter(|(bar, _)| bar.is_64bit)
        .filter_map(|(_, at)| at.end().checked_align_up(WINDOW_ALIGN))
        .max()
        .and_then(|end| GpaRange::new(window_start, end.min(limit).offset_from(window_start)?));
    let layout = Layout {
        ram,
        images,
        bars,
        window64,
    };
    layout.check_disjoint(&request.reserved)?;
    Ok(layout)
}

/// Fills the free space from the bottom, in steps of the granule.
fn place_ram(request: &Request, limit: Gpa) -> Result<Vec<Ram>, Fault> {
    let granule = request.hugepage.map_or(RAM_GRANULE, ByteLen::raw);
    let mut ranges: Vec<Ram> = Vec::new();
    let mut missing = request.ram.raw();
    let mut file_offset: u64 = 0;
    for (start, end) in [(Gpa::new(0), LOW_RAM_END), (HIGH_RAM_START, limit)] {
        for free in free_spaces(start, end, granule, &request.reserved) {
            let Some(range) = GpaRange::new(free.start(), free.len_bytes().min(missing)) else {
                break;
            };
            if ranges.len() == MAX_RAM_RANGES {
                return Err(Fault::TooManyRanges);
            }
            ranges.push(Ram {
                at: range,
                file_offset,
            });
            missing = missing.saturating_sub(range.len_bytes());
            file_offset = file_offset.saturating_add(range.len_bytes());
        }
    }
    let first = ranges.first().map(|range| range.at.start());
    match request.reserved.iter().find(|r| r.start().raw() < granule) {
        Some(reserved) if first != Some(Gpa::new(0)) => Err(Fault::StartReserved(*reserved)),
        _ if missing > 0 => Err(Fault::NoRoomForRam {
            missing: ByteLen::new(missing),
            limit,
        }),
        _ => Ok(ranges),
    }
}

/// The parts of `[start, end)` that no reserved window touches, each of whole granules, ascending.
fn free_spaces(start: Gpa, end: Gpa, granule: u64, reserved: &[GpaRange]) -> Vec<GpaRange> {
    let mut sorted = reserved.to_vec();
    sorted.sort_by_key(GpaRange::start);
    let mut free = Vec::new();
    let mut at = start;
    let mut push = |from: Gpa, to: Gpa| {
        let len = to.offset_from(from).unwrap_or(0);
        let whole = len
            .checked_rem(granule)
            .and_then(|rest| len.checked_sub(rest));
        free.extend(whole.and_then(|whole| GpaRange::new(from, whole)));
    };
    for window in sorted {
        if window.end() <= at || window.start() >= end {
            continue;
        }
        push(at, window.start());
        at = window
            .end()
            .checked_align_up(granule)
            .unwrap_or(end)
            .max(at);
    }
    push(at, end);
    free
}

/// The first place for an image at or above `above`.
fn place_above(
    above: Gpa,
    len: ByteLen,
    reserved: &[GpaRange],
    limit: Gpa,
) -> Result<GpaRange, Fault> {
    let no_room = || Fault::NoRoom {
        what: "an image",
        len,
        window: format!("[{above}, {limit})"),
    };
    let mut at = above;
    // Every turn but the last moves beyond one reserved window.
    loop {
        let start = at.checked_align_up(IMAGE_ALIGN).ok_or_else(no_room)?;
        let range = GpaRange::new(start, len.raw()).ok_or_else(no_room)?;
        if range.end() > limit {
            return Err(no_room());
        }
        match reserved.iter().find(|window| window.overlaps(&range)) {
            Some(window) => at = window.end(),
            None => return Ok(range),
        }
    }
}

/// Gives every BAR an address that is a multiple of its size; large BARs first, so that small ones fill the gaps.
fn place_bars(request: &Request, window_start: Gpa, limit: Gpa) -> Result<Vec<GpaRange>, Fault> {
    let mut low = Space::new(MMIO32_START, MMIO32_END, &request.reserved);
    let mut high = Space::new(window_start, limit, &request.reserved);
    let mut order: Vec<(usize, &BarRequest)> = request.bars.iter().enumerate().collect();
    order.sort_by_key(|(index, bar)| (std::cmp::Reverse(bar.len), *index));
    let mut placed = Vec::new();
    for (index, bar) in order {
        let space = if bar.is_64bit { &mut high } else { &mut low };
        placed.push((index, space.place(bar.len)?));
    }
    placed.sort_by_key(|(index, _)| *index);
    Ok(placed.into_iter().map(|(_, at)| at).collect())
}

/// A window from which BARs are given out.
struct Space {
    allocator: Option<AddressAllocator>,
    window: String,
}

impl Space {
    /// The window `[start, end)` without what is reserved.
    fn new(start: Gpa, end: Gpa, reserved: &[GpaRange]) -> Self {
        let window = format!("[{start}, {end})");
        let allocator = end
            .offset_from(start)
            .and_then(|len| AddressAllocator::new(start.raw(), len).ok())
            .and_then(|mut allocator| {
                // Should one window not be kept free, no BAR is placed at all.
                for (from, to) in pages_of(reserved, start, end) {
                    let len = to.checked_sub(from)?;
                    let exactly = AllocPolicy::ExactMatch(from);
                    allocator.allocate(len, PAGE_BYTES, exactly).ok()?;
                }
                Some(allocator)
            });
        Self { allocator, window }
    }

    fn place(&mut self, len: ByteLen) -> Result<GpaRange, Fault> {
        self.allocator
            .as_mut()
            .and_then(|a| {
                a.allocate(len.raw(), len.raw(), AllocPolicy::FirstMatch)
                    .ok()
            })
            .and_then(|found| GpaRange::new(Gpa::new(found.start()), len.raw()))
            .ok_or_else(|| Fault::NoRoom {
                what: "a BAR",
                len,
                window: self.window.clone(),
            })
    }
}

/// The reserved windows as whole pages within `[start, end)`, merged where they touch, ascending.
fn pages_of(reserved: &[GpaRange], start: Gpa, end: Gpa) -> Vec<(u64, u64)> {
    let page_start = |at: u64| at.saturating_sub(at.checked_rem(PAGE_BYTES).unwrap_or(0));
    let mut pages: Vec<(u64, u64)> = reserved
        .iter()
        .filter(|window| window.start() < end && window.end() > start)
        .map(|window| {
            let to = window.end().checked_align_up(PAGE_BYTES).unwrap_or(end);
            (
                page_start(window.start().max(start).raw()),
                to.min(end).raw(),
            )
        })
        .collect();
    pages.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, to) in pages {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

impl Layout {
    /// Everything that is placed.
    fn all(&self) -> impl Iterator<Item = GpaRange> {
        let ram = self.ram.iter().map(|ram| ram.at);
        ram.chain(self.images.iter().copied())
            .chain(self.bars.iter().copied())
    }

    /// Checks, independently of how it was made, that nothing overlaps anything.
    fn check_disjoint(&self, reserved: &[GpaRange]) -> Result<(), Fault> {
        let mut sorted: Vec<GpaRange> = self.all().collect();
        sorted.sort_by_key(GpaRange::start);
        let neighbours = sorted.iter().zip(sorted.iter().skip(1));
        let with_reserved = sorted
            .iter()
            .flat_map(|range| reserved.iter().map(move |window| (range, window)));
        match neighbours.chain(with_reserved).find(|(a, b)| a.overlaps(b)) {
            Some((a, b)) => Err(Fault::Overlap(*a, *b)),
            None => Ok(()),
        }
    }
}

/// What of a BAR can be mapped: all of it but the pages that `trapped` (offset and length in bytes) touches.
pub(super) fn spans(len: ByteLen, trapped: &[(u64, u64)]) -> Vec<Span> {
    let Some(bar) = GpaRange::new(Gpa::new(0), len.raw()) else {
        return Vec::new();
    };
    let holes: Vec<GpaRange> = trapped
        .iter()
        .filter_map(|(offset, len)| GpaRange::new(Gpa::new(*offset), *len))
        .collect();
    free_spaces(bar.start(), bar.end(), PAGE_BYTES, &holes)
        .into_iter()
        .map(|free| Span {
            offset: free.start().raw(),
            len_bytes: free.len_bytes(),
        })
        .collect()
}
