//! placeholder
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the entry symbol has a fixed name")]

use jailed::handoff::Ending;
use jailed::sys::start;

/// Runs after relocation; never returns.
#[unsafe(no_mangle)]
extern "C" fn narrows_main() -> ! {
    start::end(Ending::Bug)
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    start::end(Ending::Bug)
}
