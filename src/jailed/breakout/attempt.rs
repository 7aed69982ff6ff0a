//! The attacker's hands: any call with any arguments, by every entrance that the processor has.
//!
//! UNSAFETY: an attacker who runs code in V or D is bound by nothing but the kernel, so nothing here checks its caller.
#![expect(unsafe_code, reason = "an attacker makes raw calls")]

use core::{
    arch::asm,
    ptr::{with_exposed_provenance, with_exposed_provenance_mut},
    sync::atomic::{AtomicU8, AtomicU32},
};

use crate::sys::syscall::{Errno, call};

/// Makes a call.
pub(super) fn attempt(number: usize, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the probes give addresses of their own memory, or such as the kernel refuses; what a call breaks in this
    // process breaks in a process that ends with the probe.
    unsafe { call(number, args) }
}

/// Makes a call by the entrance of 32-bit programs.
pub(super) fn attempt_as_32_bit(number: usize, args: [usize; 3]) -> Result<usize, Errno> {
    let result: usize;
    // SAFETY: as above; the entrance keeps every register but rax (and clears r8 to r11 on old kernels), and rbx, which
    // the compiler keeps for itself, is put back.
    unsafe {
        asm!("xchg rbx, r12", "int 0x80", "xchg rbx, r12", inlateout("rax") number => result,
             inout("r12") args[0] => _, in("rcx") args[1], in("rdx") args[2],
             lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    // The entrance returns 32 bits.
    let low = u32::try_from(result & 0xFFFF_FFFF).unwrap_or(u32::MAX);
    match low.wrapping_neg() {
        errno @ 1..4096 => Err(Errno(errno)),
        _ => Ok(result),
    }
}

/// Makes a call that gives birth to a process or thread, which ends at once.
pub(super) fn attempt_birth(number: usize, args: [usize; 4]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: the child runs the four instructions behind the call and ends, without a stack; the parent goes on as
    // after any call.
    unsafe {
        asm!("syscall", "test rax, rax", "jnz 2f", "mov eax, 60", "xor edi, edi", "syscall", "2:",
             inlateout("rax") number.cast_signed() => result, in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
             in("r10") args[3], in("r8") 0, in("r9") 0, lateout("rcx") _, lateout("r11") _);
    }
    match u32::try_from(result.wrapping_neg()) {
        Ok(errno @ 1..4096) => Err(Errno(errno)),
        _ => Ok(result.cast_unsigned()),
    }
}

/// Reads a byte of this process's own memory, wherever that is.
pub(super) fn peek(address: usize) -> u8 {
    // SAFETY: as for `attempt`: where nothing is mapped the process ends, which is an answer, too.
    unsafe { with_exposed_provenance::<u8>(address).read_volatile() }
}

/// Writes a word of this process's own memory, wherever that is.
pub(super) fn poke(address: usize, word: u32) {
    // SAFETY: as for `peek`.
    unsafe { with_exposed_provenance_mut::<u32>(address).write_volatile(word) }
}

/// A word of this process's own memory that the other process writes, too.
pub(super) fn word_at(address: usize) -> &'static AtomicU32 {
    // SAFETY: the window is mapped as long as the process lives, and its words are aligned.
    unsafe { AtomicU32::from_ptr(with_exposed_provenance_mut(address)) }
}

/// A byte of the same.
pub(super) fn byte_at(address: usize) -> &'static AtomicU8 {
    // SAFETY: as above.
    unsafe { AtomicU8::from_ptr(with_exposed_provenance_mut(address)) }
}
