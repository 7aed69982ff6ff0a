//! Configuration space by ECAM.

use crate::sys::memory;

/// ECAM of the guest's one bus. *Source:* `src/jailed/machine.rs`.
pub const ECAM: u64 = 0xE000_0000;
const FUNCTION_BYTES: u64 = 4096;
const COMMAND: u64 = 4;

/// The address of the configuration space of function 0 in `slot`.
#[must_use]
pub const fn base(slot: u64) -> u64 {
    ECAM + slot * 8 * FUNCTION_BYTES
}

/// Vendor and device id, the first in the low half; `None` where nothing answers.
#[must_use]
pub fn id(slot: u64) -> Option<u64> {
    memory::read(base(slot), 4).filter(|id| *id & 0xFFFF != 0xFFFF)
}

/// The slot of the first function with this id.
#[must_use]
pub fn find(wanted: u64) -> Option<u64> {
    (0..32).find(|slot| id(*slot) == Some(wanted))
}

/// The address in BAR `index`.
#[must_use]
pub fn bar(slot: u64, index: u64) -> Option<u64> {
    const IS_64BIT: u64 = 4;
    let at = base(slot) + 0x10 + 4 * index;
    let low = memory::read(at, 4)?;
    let high = if low & IS_64BIT != 0 {
        memory::read(at + 4, 4)?
    } else {
        0
    };
    Some(low & !0xF | high << 32)
}

/// Writes the command register: bit 1 memory, bit 2 bus master.
pub fn set_command(slot: u64, value: u64) -> Option<()> {
    memory::write(base(slot) + COMMAND, 2, value)
}

/// A number that differs where any of the first `count` dwords of the bus differs.
#[must_use]
pub fn checksum(count: u64) -> Option<u64> {
    const PRIME: u64 = 0x100_0000_01B3;
    (0..count).try_fold(PRIME, |sum, nth| {
        let dword = memory::read(ECAM + 4 * nth, 4)?;
        Some((sum ^ dword).wrapping_mul(PRIME))
    })
}

/// Writes `count` addresses to the low half of BAR 0, a multiple of `step` each, and reads each at once: how many came back
/// as something else.
pub fn echo(slot: u64, step: u64, count: u64) -> Option<u64> {
    let at = base(slot) + 0x10;
    let mut wrong = 0;
    for nth in 0..count {
        let address = nth.wrapping_mul(step) & 0xFFFF_FFFF;
        memory::write(at, 4, address)?;
        wrong += u64::from(memory::read(at, 4)? & !0xF != address);
    }
    Some(wrong)
}
