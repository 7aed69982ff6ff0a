//! D.
//!
//! UNSAFETY: `freestanding` holds symbols with fixed names and what runs before relocation.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "without libc, entry point and memory functions are ours"
)]

use jailed::device::start;

mod freestanding;

/// Runs after relocation; never returns.
#[unsafe(no_mangle)]
extern "C" fn narrows_main() -> ! {
    match start::start() {
        Ok(server) => server.serve(),
        Err(failure) => start::fail(failure),
    }
}
