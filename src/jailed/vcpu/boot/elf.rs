//! An ELF kernel with a PVH entry point, such as Linux's `vmlinux`.
//!
//! *Source:* `System V ABI, chapters 4 and 5; include/xen/interface/elfnote.h (v6.12)`.

use super::field;
use crate::addr::{Gpa, GpaRange};
use crate::handoff::KernelFault;

/// Length of a program header.
pub const PROGRAM_HEADER_BYTES: usize = 56;
/// The most program headers of a kernel that is loaded.
pub const MAX_PROGRAM_HEADERS: usize = 32;

/// What the file's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElfHead {
    /// Where the program headers begin in the file.
    pub table_offset: u64,
    /// How many there are, at most [`MAX_PROGRAM_HEADERS`].
    pub table_len: usize,
}

/// A program header that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Goes to RAM.
    Load {
        /// Where its bytes begin in the file.
        offset: u64,
        /// How many there are, at most the length of `range`; zeros follow.
        file_bytes: u64,
        /// Where it goes.
        range: GpaRange,
    },
    /// Holds notes.
    Note {
        /// Where they begin in the file.
        offset: u64,
        /// Their length.
        file_bytes: u64,
    },
}

/// Whether `head` begins like an ELF file.
#[must_use]
pub fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7FELF")
}

/// Reads the file's head.
///
/// # Errors
/// The fault of a file that is no x86-64 kernel.
pub fn parse_head(head: &[u8]) -> Result<ElfHead, KernelFault> {
    const CLASS_64_LITTLE_ENDIAN: [u8; 2] = [2, 1];
    const EXECUTABLE: [u8; 2] = [2, 0];
    const POSITION_INDEPENDENT: [u8; 2] = [3, 0];
    const X86_64: [u8; 2] = [62, 0];
    let kind = field(head, 16);
    if field(head, 4) != Some(CLASS_64_LITTLE_ENDIAN)
        || field(head, 18) != Some(X86_64)
        || (kind != Some(EXECUTABLE) && kind != Some(POSITION_INDEPENDENT))
    {
        return Err(KernelFault::NotX86);
    }
    let u16_at = |at| field(head, at).map(u16::from_le_bytes).map(usize::from);
    let table_offset = field(head, 32).map(u64::from_le_bytes);
    let (Some(table_offset), Some(entry_bytes), Some(table_len)) =
        (table_offset, u16_at(54), u16_at(56))
    else {
        return Err(KernelFault::OutOfRange);
    };
    if entry_bytes != PROGRAM_HEADER_BYTES || table_len > MAX_PROGRAM_HEADERS {
        return Err(KernelFault::OutOfRange);
    }
    Ok(ElfHead {
        table_offset,
        table_len,
    })
}

/// Reads one program header of a file of `file_len` bytes; `None` for a kind that is not loaded.
///
/// # Errors
/// [`KernelFault::OutOfRange`] where it points outside of the file or of the address space.
pub fn parse_segment(header: &[u8], file_len: u64) -> Result<Option<Segment>, KernelFault> {
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;
    let u64_at = |at| {
        field(header, at)
            .map(u64::from_le_bytes)
            .ok_or(KernelFault::OutOfRange)
    };
    let kind = field(header, 0).map(u32::from_le_bytes);
    let (offset, start, file_bytes, memory_bytes) =
        (u64_at(8)?, u64_at(24)?, u64_at(32)?, u64_at(40)?);
    let is_in_file = offset
        .checked_add(file_bytes)
        .is_some_and(|end| end <= file_len);
    match kind {
        Some(PT_LOAD) if memory_bytes == 0 => Ok(None),
        Some(PT_LOAD | PT_NOTE) if !is_in_file => Err(KernelFault::OutOfRange),
        Some(PT_LOAD) => {
            let range = GpaRange::new(Gpa::new(start), memory_bytes);
            match range {
                Some(range) if file_bytes <= memory_bytes => Ok(Some(Segment::Load {
                    offset,
                    file_bytes,
                    range,
                })),
                _ => Err(KernelFault::OutOfRange),
            }
        }
        Some(PT_NOTE) => Ok(Some(Segment::Note { offset, file_bytes })),
        _ => Ok(None),
    }
}

/// The 32-bit entry point in `notes`, if it is there.
#[must_use]
pub fn pvh_entry(mut notes: &[u8]) -> Option<Gpa> {
    const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
    loop {
        let word = |at| field(notes, at).map(u32::from_le_bytes);
        let (name_len, value_len, kind) = (word(0)?, word(4)?, word(8)?);
        let name_len = usize::try_from(name_len).ok()?;
        let value_len = usize::try_from(value_len).ok()?;
        let value_at = name_len.checked_next_multiple_of(4)?.checked_add(12)?;
        let value = notes.get(value_at..value_at.checked_add(value_len)?)?;
        if kind == XEN_ELFNOTE_PHYS32_ENTRY && field(notes, 12) == Some(*b"Xen\0") && name_len == 4
        {
            return field(value, 0)
                .map(u64::from_le_bytes)
                .or_else(|| field(value, 0).map(|v| u64::from(u32::from_le_bytes(v))))
                .map(Gpa::new);
        }
        notes = notes.get(value_at.checked_add(value_len.checked_next_multiple_of(4)?)?..)?;
    }
}
