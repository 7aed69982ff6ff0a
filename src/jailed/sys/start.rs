//! The first instructions of V and D, and the last ones.
//!
//! On entry: the kernel has mapped the static position-independent file and jumped to `_start`; nothing is relocated.
//! On exit: relative relocations are applied and `narrows_main` runs on the initial stack; it never returns.

use super::syscall;
use crate::handoff::Ending;

#[cfg(not(test))]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "lea rdi, [rip + __ehdr_start]",
    "lea rsi, [rip + _DYNAMIC]",
    "and rsp, -16",
    "call {relocate}",
    "call narrows_main",
    "ud2",
    relocate = sym relocate,
);

/// One entry of the dynamic section: tag and value.
#[cfg(not(test))]
#[repr(C)]
struct Dynamic {
    tag: usize,
    value: usize,
}

/// One relocation with addend.
#[cfg(not(test))]
#[repr(C)]
struct Rela {
    offset: usize,
    info: usize,
    addend: usize,
}

/// Applies the relative relocations of a static position-independent executable; other kinds do not occur in one.
///
/// *Source:* `System V ABI, AMD64 supplement 1.0, sections 4.4 and 5.2`.
///
/// # Safety
/// 1. `base` is where the file is mapped, `dynamic` its dynamic section, and nothing has been relocated before.
#[cfg(not(test))]
unsafe extern "C" fn relocate(base: *mut u8, mut dynamic: *const Dynamic) {
    const DT_NULL: usize = 0;
    const DT_RELA: usize = 7;
    const DT_RELASZ: usize = 8;
    const R_X86_64_RELATIVE: usize = 8;
    let (mut table, mut size_bytes) = (0_usize, 0_usize);
    loop {
        // SAFETY: 1. the section ends with DT_NULL, where the loop ends.
        let entry = unsafe { dynamic.read() };
        match entry.tag {
            DT_NULL => break,
            DT_RELA => table = entry.value,
            DT_RELASZ => size_bytes = entry.value,
            _ => {}
        }
        dynamic = dynamic.wrapping_add(1);
    }
    let mut rela = base.wrapping_add(table).cast::<Rela>();
    let mut left = size_bytes / size_of::<Rela>();
    while left > 0 {
        // SAFETY: 1. the linker made the table of this many entries.
        let entry = unsafe { rela.read() };
        if entry.info & 0xFFFF_FFFF == R_X86_64_RELATIVE {
            let place = base.wrapping_add(entry.offset).cast::<usize>();
            // SAFETY: 1. relocated places are aligned words of this file's writable data.
            unsafe { place.write(base.addr() + entry.addend) };
        }
        rela = rela.wrapping_add(1);
        left -= 1;
    }
}

/// Ends the process with `ending` as its exit status, all threads included.
pub fn end(ending: Ending) -> ! {
    syscall::exit_group(ending as u8)
}
