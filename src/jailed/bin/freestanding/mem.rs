//! The memory functions that the compiler calls and libc would bring.
//!
//! Byte-wise string instructions: processors since 2013 run them at full width, and neither process moves more than
//! a page after the guest has started.

use core::arch::asm;

/// Copies `len_bytes` bytes forward.
///
/// # Safety
/// 1. `to` is valid for writes and `from` for reads of `len_bytes` bytes, and they do not overlap.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len_bytes: usize) -> *mut u8 {
    // SAFETY: 1. is the caller's; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") len_bytes => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
    to
}

/// Copies `len_bytes` bytes between areas that may overlap.
///
/// # Safety
/// 1. `to` is valid for writes and `from` for reads of `len_bytes` bytes.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len_bytes: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len_bytes {
        // SAFETY: 1. as above: copying forward never reads a byte it has written.
        return unsafe { memcpy(to, from, len_bytes) };
    }
    let (last_to, last_from) = (
        to.wrapping_add(len_bytes).wrapping_sub(1),
        from.wrapping_add(len_bytes).wrapping_sub(1),
    );
    // SAFETY: 1. as above, from the last byte down; the direction flag is cleared again as the ABI wants it.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") len_bytes => _, inout("rdi") last_to => _,
             inout("rsi") last_from => _, options(nostack));
    }
    to
}

/// Fills `len_bytes` bytes with `byte`.
///
/// # Safety
/// 1. `to` is valid for writes of `len_bytes` bytes.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memset(to: *mut u8, byte: i32, len_bytes: usize) -> *mut u8 {
    // SAFETY: 1. is the caller's; `al` is the low byte of `byte`, as the C function has it.
    unsafe {
        asm!("rep stosb", inout("rcx") len_bytes => _, inout("rdi") to => _, in("eax") byte,
             options(nostack, preserves_flags));
    }
    to
}

/// Compares `len_bytes` bytes: the difference of the first pair that differs.
///
/// # Safety
/// 1. Both are valid for reads of `len_bytes` bytes.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len_bytes: usize) -> i32 {
    let mut at = 0;
    while at < len_bytes {
        // SAFETY: 1. `at` lies below `len_bytes`.
        let left = unsafe { a.wrapping_add(at).read() };
        // SAFETY: 1. as above.
        let right = unsafe { b.wrapping_add(at).read() };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
        at += 1;
    }
    0
}

/// Whether `len_bytes` bytes differ: zero where they do not.
///
/// # Safety
/// 1. Both are valid for reads of `len_bytes` bytes.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len_bytes: usize) -> i32 {
    // SAFETY: 1. is the caller's.
    unsafe { memcmp(a, b, len_bytes) }
}
