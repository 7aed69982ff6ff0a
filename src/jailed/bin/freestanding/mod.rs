//! What libc and its start files would bring to V and D: the first instructions, the memory functions, the last ones.
//!
//! Part of the two binaries and not of the library, because its symbols may exist once per program.
//!
//! On entry: the kernel has mapped the static position-independent file and jumped to `_start`; nothing is relocated.
//! On exit: relative relocations are applied and `narrows_main` runs on the initial stack; it never returns.

use jailed::{handoff::Ending, sys::syscall};

mod mem;

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
#[repr(C)]
struct Dynamic {
    tag: usize,
    value: usize,
}

/// One relocation with addend.
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

/// A panic is a bug of ours: the process ends and the supervisor stops the guest.
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    syscall::exit_group(Ending::Bug as u8)
}

/// The unwinder's hook, which precompiled code names and nothing calls: panics abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
