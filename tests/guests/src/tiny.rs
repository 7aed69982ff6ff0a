//! The smallest guest: it marks that it runs, as the scoreboard's guest does, and halts for ever.
//!
//! One function has a fixed name, by which the entry calls it; the compiler takes such a name for unsafe.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the first function has a fixed name")]

use guests::sys::processor;

/// As `LEAF` and `INIT` of `tests/scoreboard/src/lib.rs`.
const LEAF: u32 = 0x4E52_5753;
const INIT: u32 = 1;

/// Runs on the stack of the entry; never returns.
#[unsafe(no_mangle)]
extern "C" fn guest_main() -> ! {
    processor::mark(LEAF, INIT);
    processor::halt()
}
