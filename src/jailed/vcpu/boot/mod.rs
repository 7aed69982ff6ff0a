//! The kernel, its initramfs and what the kernel is told: written to RAM before the guest runs.
//!
//! Images are hostile: what they say is checked against the file and against RAM, and only ever lands in RAM.

use super::failure::Failure;
use super::memory_map::{HIGH_START, MemoryMap, between, highest_fit, is_loadable, lowest_fit};
use crate::addr::{Gpa, GpaRange};
use crate::handoff::{Handoff, KernelFault, Stage};
use crate::machine;
use crate::sys::file::read_at;
use crate::sys::memory::{FillError, GuestRam, file_len};
use crate::sys::syscall::{Errno, Fd};

pub mod bzimage;
pub mod elf;
pub mod linux;
pub mod pvh;

#[cfg(test)]
mod boot_test;

/// The descriptor table that the guest starts with.
pub const GDT: Gpa = Gpa::new(0x500);
/// PVH's start information.
pub const START_INFO: Gpa = Gpa::new(0x6000);
/// Linux's boot parameters.
pub const BOOT_PARAMS: Gpa = Gpa::new(0x7000);
/// The page tables that a 64-bit kernel starts with: six pages.
pub const PAGE_TABLES: Gpa = Gpa::new(0x9000);
/// The command line.
pub const CMDLINE: Gpa = Gpa::new(0x2_0000);

/// How the first vCPU enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 64-bit, at this address, with Linux's boot parameters.
    Linux64(Gpa),
    /// 32-bit without paging, at this address, with PVH's start information.
    Pvh(Gpa),
}

/// What both ways to start a kernel tell it.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Where the initramfs lies.
    pub initramfs: Option<GpaRange>,
    /// The memory map.
    pub map: MemoryMap,
}

/// The files that are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Images {
    /// The kernel image.
    pub kernel: Fd,
    /// The initramfs, where the handoff says that there is one.
    pub initramfs: Fd,
}

/// Loads everything into RAM: how to enter the kernel.
///
/// # Errors
/// [`Failure`] of the stages `Kernel`, `TooLittleRam` and `ReadImage`.
pub fn load(ram: &mut GuestRam, handoff: &Handoff, images: Images) -> Result<Entry, Failure> {
    let mut head = [0; 4096];
    let kernel = images.kernel;
    let kernel_bytes = file_len(kernel).map_err(Failure::at(Stage::ReadImage, 0))?;
    let head = read_part(kernel, &mut head, 0)?;
    write_common(ram, handoff)?;
    let facts = |initramfs| Facts {
        initramfs,
        map: MemoryMap::of(handoff),
    };
    if bzimage::is_bzimage(head) {
        let image = bzimage::parse(head, kernel_bytes)?;
        if handoff.cmdline_len > image.cmdline_bytes {
            return Err(KernelFault::OutOfRange.into());
        }
        let range = place_bzimage(handoff, &image)?;
        ram.write_file(
            range.start(),
            kernel,
            image.payload_offset,
            image.payload_bytes,
        )
        .map_err(fill_failure)?;
        let limit = image.initramfs_limit;
        let initramfs = load_initramfs(ram, handoff, images.initramfs, limit, range)?;
        linux::write_boot_params(ram, &image, &facts(initramfs)).map_err(fill_failure)?;
        let entry = range.start().checked_add(bzimage::ENTRY_OFFSET);
        return Ok(Entry::Linux64(entry.ok_or(KernelFault::OutOfRange)?));
    }
    if elf::is_elf(head) {
        let (range, entry) = load_elf(ram, handoff, kernel, kernel_bytes, head)?;
        // No header says how high the initramfs may lie: as high as a bzImage of Linux says.
        let limit = Gpa::new(0x8000_0000);
        let initramfs = load_initramfs(ram, handoff, images.initramfs, limit, range)?;
        pvh::write_start_info(ram, &facts(initramfs)).map_err(fill_failure)?;
        return Ok(Entry::Pvh(entry));
    }
    Err(KernelFault::UnknownFormat.into())
}

/// Writes what does not depend on the kernel: command line and ACPI tables.
fn write_common(ram: &mut GuestRam, handoff: &Handoff) -> Result<(), Failure> {
    let used = |bytes: &[u8], len: u32| bytes.len().min(len as usize);
    // With the closing zero, which the handoff's check left room for.
    let cmdline = handoff
        .cmdline
        .split_at(used(&handoff.cmdline, handoff.cmdline_len + 1))
        .0;
    let acpi = handoff
        .acpi
        .split_at(used(&handoff.acpi, handoff.acpi_len))
        .0;
    ram.write(CMDLINE, cmdline).map_err(fill_failure)?;
    ram.write(machine::ACPI_START, acpi).map_err(fill_failure)
}

/// Chooses where a bzImage goes: where it prefers, or, if it may move, the first place above that.
fn place_bzimage(handoff: &Handoff, image: &bzimage::BzImage) -> Result<GpaRange, Failure> {
    let preferred = GpaRange::new(image.preferred, image.init_bytes).filter(|range| {
        is_loadable(handoff.ram(), *range) && range.end() <= machine::HIGH_RAM_START
    });
    let elsewhere = || {
        let from = image.preferred.max(HIGH_START);
        lowest_fit(handoff.ram(), image.init_bytes, from, image.align_bytes)
    };
    preferred
        .or_else(|| elsewhere().filter(|_| image.is_relocatable))
        .ok_or(Failure::new(Stage::TooLittleRam, image.init_bytes))
}

/// Loads the segments of an ELF kernel: the range around them, and the entry point.
fn load_elf(
    ram: &mut GuestRam,
    handoff: &Handoff,
    kernel: Fd,
    kernel_bytes: u64,
    head: &[u8],
) -> Result<(GpaRange, Gpa), Failure> {
    let head = elf::parse_head(head)?;
    let mut table = [0; elf::PROGRAM_HEADER_BYTES * elf::MAX_PROGRAM_HEADERS];
    let table = read_part(kernel, &mut table, head.table_offset)?;
    let mut around: Option<GpaRange> = None;
    let mut entry = None;
    for at in 0..head.table_len {
        let header = table
            .get(at * elf::PROGRAM_HEADER_BYTES..)
            .unwrap_or_default();
        match elf::parse_segment(header, kernel_bytes)? {
            Some(elf::Segment::Load {
                offset,
                file_bytes,
                range,
            }) => {
                if !is_loadable(handoff.ram(), range) || range.end() > machine::HIGH_RAM_START {
                    return Err(Failure::new(Stage::TooLittleRam, range.end().raw()));
                }
                ram.write_file(range.start(), kernel, offset, file_bytes)
                    .map_err(fill_failure)?;
                let rest = range.start().checked_add(file_bytes).unwrap_or(range.end());
                ram.zero(rest, range.end().offset_from(rest).unwrap_or(0))
                    .map_err(fill_failure)?;
                around = Some(around.map_or(range, |other| hull(other, range)));
            }
            Some(elf::Segment::Note { offset, file_bytes }) => {
                let mut notes = [0; 4096];
                let notes = read_part(kernel, &mut notes, offset)?;
                let len = notes
                    .len()
                    .min(usize::try_from(file_bytes).unwrap_or(usize::MAX));
                entry = entry.or_else(|| elf::pvh_entry(notes.split_at(len).0));
            }
            None => {}
        }
    }
    match (around, entry) {
        (Some(range), Some(entry)) if range.contains(entry, 1) => Ok((range, entry)),
        (_, None) => Err(KernelFault::NoPvhEntry.into()),
        (_, Some(_)) => Err(KernelFault::OutOfRange.into()),
    }
}

/// Loads the initramfs below `limit`, as high as RAM and the kernel in `taken` allow.
fn load_initramfs(
    ram: &mut GuestRam,
    handoff: &Handoff,
    file: Fd,
    limit: Gpa,
    taken: GpaRange,
) -> Result<Option<GpaRange>, Failure> {
    if handoff.has_initramfs == 0 {
        return Ok(None);
    }
    let len_bytes = file_len(file).map_err(Failure::at(Stage::ReadImage, 0))?;
    if len_bytes == 0 {
        return Ok(None);
    }
    let limit = limit.min(machine::HIGH_RAM_START);
    let range = highest_fit(handoff.ram(), len_bytes, limit, taken)
        .ok_or(Failure::new(Stage::TooLittleRam, len_bytes))?;
    ram.write_file(range.start(), file, 0, len_bytes)
        .map_err(fill_failure)?;
    Ok(Some(range))
}

/// Reads as much of `file` from `offset` on as `bytes` holds.
fn read_part(file: Fd, bytes: &mut [u8], offset: u64) -> Result<&[u8], Failure> {
    let count = read_at(file, bytes, offset).map_err(Failure::at(Stage::ReadImage, offset))?;
    Ok(bytes.split_at(count.min(bytes.len())).0)
}

/// A failed write to RAM as a failure of set-up.
#[must_use]
pub fn fill_failure(error: FillError) -> Failure {
    match error {
        FillError::NotRam => Failure::new(Stage::TooLittleRam, 0),
        FillError::Ended => Failure::at(Stage::ReadImage, 0)(Errno::NONE),
        FillError::Read(errno) => Failure::at(Stage::ReadImage, 0)(errno),
    }
}

/// The range from the start of the lower to the end of the higher.
fn hull(a: GpaRange, b: GpaRange) -> GpaRange {
    between(a.start().min(b.start()), a.end().max(b.end())).unwrap_or(a)
}

/// The `N` bytes at `at`, if they are there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
