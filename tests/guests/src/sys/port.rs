//! I/O ports.

use core::arch::asm;

/// Reads `width` bytes (1, 2, 4).
#[must_use]
pub fn read(port: u16, width: u64) -> Option<u32> {
    let value: u32;
    match width {
        // SAFETY: ports of this machine change no memory.
        1 => unsafe {
            asm!("xor eax, eax", "in al, dx", in("dx") port, out("eax") value, options(nomem, nostack))
        },
        // SAFETY: as above.
        2 => unsafe {
            asm!("xor eax, eax", "in ax, dx", in("dx") port, out("eax") value, options(nomem, nostack))
        },
        // SAFETY: as above.
        4 => unsafe {
            asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack))
        },
        _ => return None,
    }
    Some(value)
}

/// Writes `width` bytes (1, 2, 4).
pub fn write(port: u16, width: u64, value: u32) -> Option<()> {
    match width {
        // SAFETY: ports of this machine change no memory.
        1 => unsafe { asm!("out dx, al", in("dx") port, in("eax") value, options(nomem, nostack)) },
        // SAFETY: as above.
        2 => unsafe { asm!("out dx, ax", in("dx") port, in("eax") value, options(nomem, nostack)) },
        // SAFETY: as above.
        4 => unsafe {
            asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack))
        },
        _ => return None,
    }
    Some(())
}
