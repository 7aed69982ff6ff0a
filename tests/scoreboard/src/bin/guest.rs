//! Process 1 of the guest that every VMM starts: it says that it is there, does its works, says that it is done, and sleeps.
//!
//! The C library calls `main` itself, so that the mark comes before the Rust runtime's own start, which wants `/dev/null`
//! where the kernel found no console. Between exec and the mark lie the C library's start and thirteen system calls.
//! The name `main` is the C library's; the compiler takes a fixed name for unsafe.
#![no_main]
#![expect(unsafe_code, reason = "the first function has a fixed name")]

use std::{process, thread, time::Duration};

use scoreboard::{
    guest::{self, tell},
    mark,
};

/// Never returns as process 1, whose end would be the kernel's. On a host, where it has nothing to do, it ends at once.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    guest::mark(mark::INIT);
    if process::id() != 1 {
        return 1;
    }
    match guest::work() {
        Ok(()) => guest::mark(mark::DONE),
        Err(failure) => {
            guest::mark(mark::FAILED);
            tell(&failure);
        }
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
