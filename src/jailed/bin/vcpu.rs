//! V.
//!
//! UNSAFETY: `freestanding` holds symbols with fixed names and what runs before relocation.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "without libc, entry point and memory functions are ours"
)]

use jailed::{handoff::Ending, sys::syscall};

mod freestanding;

/// Runs after relocation; never returns.
#[unsafe(no_mangle)]
extern "C" fn narrows_main() -> ! {
    syscall::exit_group(Ending::Bug as u8)
}
