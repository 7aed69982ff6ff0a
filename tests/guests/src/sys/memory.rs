//! Any physical address, by number, in any width.

use core::{arch::asm, ptr};

/// Where the guest's own code and data end: below lies nothing that an attack may touch.
const FREE_START: u64 = 0x40_0000;
/// Where the mapping ends.
const MAPPED_END: u64 = 1 << 39;

/// Whether `len_bytes` bytes at `at` may be touched: mapped, and none of the guest's own.
fn is_free(at: u64, len_bytes: u64) -> bool {
    at >= FREE_START
        && at
            .checked_add(len_bytes)
            .is_some_and(|end| end <= MAPPED_END)
}

/// Reads `width` bytes (1, 2, 4, 8), aligned or not, with one instruction; `None` where that is not allowed.
#[must_use]
pub fn read(at: u64, width: u64) -> Option<u64> {
    let at = is_free(at, width)
        .then(|| usize::try_from(at).ok())
        .flatten()?;
    let value: u64;
    match width {
        // SAFETY: the address is mapped and no object of Rust's lies there.
        1 => unsafe {
            asm!("movzx {v:e}, byte ptr [{at}]", at = in(reg) at, v = out(reg) value, options(nostack))
        },
        // SAFETY: as above.
        2 => unsafe {
            asm!("movzx {v:e}, word ptr [{at}]", at = in(reg) at, v = out(reg) value, options(nostack))
        },
        // SAFETY: as above.
        4 => unsafe {
            asm!("mov {v:e}, [{at}]", at = in(reg) at, v = out(reg) value, options(nostack))
        },
        // SAFETY: as above.
        8 => unsafe {
            asm!("mov {v}, [{at}]", at = in(reg) at, v = out(reg) value, options(nostack))
        },
        _ => return None,
    }
    Some(value)
}

/// Writes `width` bytes (1, 2, 4, 8), aligned or not, with one instruction; `None` where that is not allowed.
pub fn write(at: u64, width: u64, value: u64) -> Option<()> {
    let at = is_free(at, width)
        .then(|| usize::try_from(at).ok())
        .flatten()?;
    match width {
        // SAFETY: the address is mapped and no object of Rust's lies there.
        1 => unsafe {
            asm!("mov [{at}], {v}", at = in(reg) at, v = in(reg_byte) value.to_le_bytes()[0], options(nostack))
        },
        // SAFETY: as above.
        2 => unsafe {
            asm!("mov [{at}], {v:x}", at = in(reg) at, v = in(reg) value, options(nostack))
        },
        // SAFETY: as above.
        4 => unsafe {
            asm!("mov [{at}], {v:e}", at = in(reg) at, v = in(reg) value, options(nostack))
        },
        // SAFETY: as above.
        8 => unsafe {
            asm!("mov [{at}], {v}", at = in(reg) at, v = in(reg) value, options(nostack))
        },
        _ => return None,
    }
    Some(())
}

/// Fills `len_bytes` bytes at `at` with `byte`.
pub fn fill(at: u64, len_bytes: u64, byte: u8) -> Option<()> {
    let start = is_free(at, len_bytes)
        .then(|| usize::try_from(at).ok())
        .flatten()?;
    let len = usize::try_from(len_bytes).ok()?;
    // SAFETY: the addresses are mapped and no object of Rust's lies there.
    unsafe { ptr::with_exposed_provenance_mut::<u8>(start).write_bytes(byte, len) };
    Some(())
}

/// Fills `len_bytes` bytes at `at` with the word `value`, eight bytes a time.
pub fn fill_words(at: u64, len_bytes: u64, value: u64) -> Option<()> {
    let start = is_free(at, len_bytes)
        .then(|| usize::try_from(at).ok())
        .flatten()?;
    let words = len_bytes / 8;
    // SAFETY: the addresses are mapped and no object of Rust's lies there; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep stosq", inout("rcx") words => _, inout("rdi") start => _, in("rax") value, options(nostack));
    };
    Some(())
}

/// How many of the words from `at` to `end` are the complement of `inverse`, and where the last of them is.
///
/// It reads the guest's own code and data as well. The word that is looked for is in a register only, or it would be
/// found where it was put for the search.
#[must_use]
pub fn count_words(at: u64, end: u64, inverse: u64) -> Option<(u64, u64)> {
    if at >= end || end > MAPPED_END {
        return None;
    }
    let (mut hits, mut last) = (0_u64, 0_u64);
    // SAFETY: the addresses are mapped, and are only read.
    unsafe {
        asm!(
            "not {word}",
            "2:",
            "cmp qword ptr [{at}], {word}",
            "jne 3f",
            "inc {hits}",
            "mov {last}, {at}",
            "3:",
            "add {at}, 8",
            "cmp {at}, {end}",
            "jb 2b",
            "xor {word:e}, {word:e}",
            at = inout(reg) at => _,
            end = in(reg) end,
            word = inout(reg) inverse => _,
            hits = inout(reg) hits,
            last = inout(reg) last,
            options(nostack, readonly)
        );
    };
    Some((hits, last))
}

/// What an instruction that emulators find hard does to `at`, a multiple of 16.
pub fn odd_access(kind: &str, at: u64, scratch: u64) -> Option<()> {
    if !is_free(at, 4096) || !is_free(scratch, 4096) {
        return None;
    }
    let (from, to) = (usize::try_from(at).ok()?, usize::try_from(scratch).ok()?);
    match kind {
        // SAFETY: both areas are mapped and hold no object of Rust's.
        "movsb-in" => unsafe {
            asm!("rep movsb", inout("rcx") 64_u64 => _, inout("rsi") from => _, inout("rdi") to => _, options(nostack))
        },
        // SAFETY: as above.
        "movsq-in" => unsafe {
            asm!("rep movsq", inout("rcx") 16_u64 => _, inout("rsi") from => _, inout("rdi") to => _, options(nostack))
        },
        // SAFETY: as above.
        "movsb-out" => unsafe {
            asm!("rep movsb", inout("rcx") 64_u64 => _, inout("rsi") to => _, inout("rdi") from => _, options(nostack))
        },
        // SAFETY: as above.
        "stosq" => unsafe {
            asm!("rep stosq", inout("rcx") 16_u64 => _, in("rax") 0_u64, inout("rdi") from => _, options(nostack))
        },
        // SAFETY: as above.
        "sse-in" => unsafe {
            asm!("movups xmm0, [{at}]", at = in(reg) from, out("xmm0") _, options(nostack))
        },
        // SAFETY: as above.
        "sse-out" => unsafe {
            asm!("movups [{at}], xmm0", at = in(reg) from, out("xmm0") _, options(nostack))
        },
        // SAFETY: as above.
        "xchg" => unsafe {
            asm!("xchg [{at}], {v:e}", at = in(reg) from, v = inout(reg) 0_u64 => _, options(nostack))
        },
        // SAFETY: as above.
        "lock-or" => unsafe {
            asm!("lock or dword ptr [{at}], 0", at = in(reg) from, options(nostack))
        },
        // SAFETY: as above.
        "push" => unsafe {
            asm!("mov {v}, rsp", "lea rsp, [{at} + 64]", "push {v}", "mov rsp, {v}", at = in(reg) from, v = out(reg) _)
        },
        // SAFETY: as above.
        "insb" => unsafe {
            asm!("rep insb", inout("rcx") 64_u64 => _, in("dx") 0x80_u16, inout("rdi") from => _, options(nostack))
        },
        _ => return None,
    }
    Some(())
}
