//! A guest that takes what it can get: of the processor's time, of the log, of what the kernel counts. Beside it works
//! another guest, whose progress tells.
//!
//! Times of an emulated host say nothing. So what is measured are ratios: what the neighbour has beside an attacker, in parts
//! of what it has beside a guest that does nothing but compute. The two take turns, several times, and the median counts.
//! What is asserted is the neighbour's share of the processor, which the kernel counts, and what it gets done with each
//! second of it, against the same measured a moment later while the attacker stands still. How far it gets by the clock
//! depends on how fast the emulator is at the moment, and is printed.
#![expect(clippy::print_stdout, reason = "a test says what it measured")]

mod leaks;
mod load;
mod loops;
mod storms;
