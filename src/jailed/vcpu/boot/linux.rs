//! Linux's boot parameters and the page tables for its 64-bit entry point.
//!
//! *Source:* `Documentation/arch/x86/boot.rst, section "64-bit Boot Protocol"; arch/x86/include/uapi/asm/bootparam.h,
//! struct boot_params (v6.12)`.

use super::bzimage::{BzImage, HEADER_END, HEADER_START};
use super::{BOOT_PARAMS, CMDLINE, Facts, PAGE_TABLES};
use crate::machine;
use crate::sys::memory::{FillError, GuestRam};

const PAGE: usize = 4096;

/// Writes the boot parameters and the page tables.
///
/// # Errors
/// [`FillError::NotRam`].
pub fn write_boot_params(
    ram: &mut GuestRam,
    image: &BzImage,
    facts: &Facts,
) -> Result<(), FillError> {
    ram.write(BOOT_PARAMS, &boot_params(image, facts))?;
    write_page_tables(ram)
}

/// The boot parameters: the set-up header that came with the image, filled in.
#[must_use]
pub fn boot_params(image: &BzImage, facts: &Facts) -> [u8; PAGE] {
    const ACPI_RSDP: usize = 0x070;
    const MAP_COUNT: usize = 0x1E8;
    const LOADER: usize = 0x210;
    const LOADER_WITHOUT_NUMBER: u8 = 0xFF;
    const INITRAMFS_START: usize = 0x218;
    const INITRAMFS_BYTES: usize = 0x21C;
    const CMDLINE_START: usize = 0x228;
    const MAP: usize = 0x2D0;
    const MAP_ENTRY_BYTES: usize = 20;
    const _: () = assert!(HEADER_END <= MAP);
    let mut page = Page([0; PAGE]);
    page.put(HEADER_START, &image.header);
    page.put(ACPI_RSDP, &machine::ACPI_START.raw().to_le_bytes());
    page.put(LOADER, &[LOADER_WITHOUT_NUMBER]);
    page.put_u32(CMDLINE_START, CMDLINE.raw());
    let initramfs = facts.initramfs.map(|r| (r.start().raw(), r.len_bytes()));
    let (start, len_bytes) = initramfs.unwrap_or((0, 0));
    page.put_u32(INITRAMFS_START, start);
    page.put_u32(INITRAMFS_BYTES, len_bytes);
    let mut count = 0;
    for (at, entry) in (MAP..).step_by(MAP_ENTRY_BYTES).zip(facts.map.entries()) {
        page.put(at, &entry.range.start().raw().to_le_bytes());
        page.put(at + 8, &entry.range.len_bytes().to_le_bytes());
        page.put(at + 16, &(entry.kind as u32).to_le_bytes());
        count += 1;
    }
    page.put(MAP_COUNT, &[count]);
    page.0
}

/// Maps the first 4 GiB one to one, in pages of 2 MiB.
fn write_page_tables(ram: &mut GuestRam) -> Result<(), FillError> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 0x80;
    const LARGE_BYTES: u64 = 2 << 20;
    const ENTRIES: u64 = 512;
    let top = PAGE_TABLES.raw();
    let (third, second) = (top + 0x1000, top + 0x2000);
    let mut put = |table: u64, index: u64, entry: u64| {
        let at = crate::addr::Gpa::new(table + 8 * index);
        ram.write(at, &entry.to_le_bytes())
    };
    put(top, 0, third | PRESENT_WRITABLE)?;
    for gib in 0..4 {
        put(third, gib, (second + 0x1000 * gib) | PRESENT_WRITABLE)?;
        for index in 0..ENTRIES {
            let page = (gib * ENTRIES + index) * LARGE_BYTES;
            put(
                second + 0x1000 * gib,
                index,
                page | PRESENT_WRITABLE | LARGE,
            )?;
        }
    }
    Ok(())
}

/// The boot parameters while they are made.
struct Page([u8; PAGE]);

impl Page {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    /// Puts the low half of a number that lies below 4 GiB.
    fn put_u32(&mut self, at: usize, value: u64) {
        let bytes = value.to_le_bytes();
        self.put(at, bytes.split_at(4).0);
    }
}
