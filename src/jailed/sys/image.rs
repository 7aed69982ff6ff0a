//! The program's own memory as the kernel has mapped it from the file.

use super::lock::seal;
use super::syscall::flag::PROT_READ;
use super::syscall::{Errno, call, number};

const PAGE_BYTES: usize = 4096;

/// The head of the file in memory, as far as it is needed.
///
/// *Source:* `System V ABI, chapter 4 (object files), Elf64_Ehdr`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    before: [u64; 4],
    segments_offset: usize,
    sections_offset: u64,
    flags: u32,
    head_bytes: u16,
    segment_bytes: u16,
    segment_count: u16,
}

/// A segment.
///
/// *Source:* `System V ABI, chapter 5 (program loading), Elf64_Phdr`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: usize,
    address: usize,
    physical: usize,
    file_bytes: usize,
    memory_bytes: usize,
    align: usize,
}

const _: () = assert!(core::mem::offset_of!(Head, segment_bytes) == 54);
const _: () = assert!(size_of::<Segment>() == 56);

unsafe extern "C" {
    /// The linker's name for the first byte of the file in memory.
    #[link_name = "__ehdr_start"]
    static HEAD: Head;
}

/// Takes away the right to write what only relocation had to write, and seals code, constants and data where they are.
///
/// # Errors
/// The errno of `mprotect` or `mseal`.
pub fn protect_and_seal() -> Result<(), Errno> {
    const LOADED: u32 = 1;
    const WRITTEN_BY_RELOCATION: u32 = 0x6474_E552;
    for segment in segments().filter(|segment| segment.kind == WRITTEN_BY_RELOCATION) {
        let (start, end) = place(&segment);
        // A last page that also holds data stays writable, as with libc.
        let (start, end) = (start & !(PAGE_BYTES - 1), end & !(PAGE_BYTES - 1));
        if start < end {
            // SAFETY: 1. numbers; relocation is over, and nothing writes there any more.
            unsafe { call(number::MPROTECT, [start, end - start, PROT_READ, 0, 0, 0]) }?;
        }
    }
    for segment in segments().filter(|segment| segment.kind == LOADED) {
        let (start, end) = place(&segment);
        let start = start & !(PAGE_BYTES - 1);
        seal(start, end.next_multiple_of(PAGE_BYTES) - start)?;
    }
    Ok(())
}

fn segments() -> impl Iterator<Item = Segment> {
    let head = &raw const HEAD;
    // SAFETY: the linker maps the head of the file there, and nothing writes it.
    let copy = unsafe { head.read() };
    let first = head
        .cast::<u8>()
        .wrapping_add(copy.segments_offset)
        .cast::<Segment>();
    (0..usize::from(copy.segment_count)).map(move |index| {
        let segment = first.wrapping_add(index);
        // SAFETY: the table has so many entries, in the mapped head of the file, aligned as the ABI has it.
        unsafe { segment.read() }
    })
}

/// Start and end of a segment in this process.
fn place(segment: &Segment) -> (usize, usize) {
    let start = (&raw const HEAD).addr().wrapping_add(segment.address);
    (start, start.wrapping_add(segment.memory_bytes))
}
