//! PVH's start information.
//!
//! *Source:* `include/xen/interface/hvm/start_info.h (v6.12), version 1`.

use super::{CMDLINE, Facts, START_INFO};
use crate::addr::Gpa;
use crate::machine;
use crate::sys::memory::{FillError, GuestRam};

const MAGIC: u32 = 0x336E_C578;
const VERSION: u32 = 1;
/// Where the list of modules lies: one, the initramfs.
const MODULES: Gpa = Gpa::new(START_INFO.raw() + 0x100);
/// Where the memory map lies.
const MAP: Gpa = Gpa::new(START_INFO.raw() + 0x200);
const MAP_ENTRY_BYTES: u64 = 24;

/// Writes the start information.
///
/// # Errors
/// [`FillError::NotRam`].
pub fn write_start_info(ram: &mut GuestRam, facts: &Facts) -> Result<(), FillError> {
    let mut map_count = 0_u32;
    let mut at = MAP;
    for entry in facts.map.entries() {
        write_words(
            ram,
            at,
            &[
                entry.range.start().raw(),
                entry.range.len_bytes(),
                // The kind, and a reserved word.
                u64::from(entry.kind as u32),
            ],
        )?;
        at = at.checked_add(MAP_ENTRY_BYTES).ok_or(FillError::NotRam)?;
        map_count += 1;
    }
    if let Some(initramfs) = facts.initramfs {
        // Start, length, no command line of its own.
        let module = [initramfs.start().raw(), initramfs.len_bytes(), 0, 0];
        write_words(ram, MODULES, &module)?;
    }
    let module_count = u32::from(facts.initramfs.is_some());
    let start_info = [
        pair(MAGIC, VERSION),
        // No flags.
        pair(0, module_count),
        MODULES.raw(),
        CMDLINE.raw(),
        machine::ACPI_START.raw(),
        MAP.raw(),
        // The count, and a reserved word.
        pair(map_count, 0),
    ];
    write_words(ram, START_INFO, &start_info)
}

fn write_words(ram: &mut GuestRam, mut at: Gpa, words: &[u64]) -> Result<(), FillError> {
    for word in words {
        ram.write(at, &word.to_le_bytes())?;
        at = at.checked_add(8).ok_or(FillError::NotRam)?;
    }
    Ok(())
}

/// Two 32-bit fields, the lower first.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}
