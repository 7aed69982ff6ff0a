//! What a guest leaves behind, and who can find it: the next guest, a device's next owner, the host's root. And what the
//! operator has and no process of a guest may hold.
//!
//! The word that is looked for is written down as its complement only, here and in the guest, or a search would find where
//! it is looked for.
#![expect(clippy::print_stdout, reason = "a test says what it found")]

mod device;
mod memory;
mod physical;
mod processor;
mod secrets;

/// The complement of the word that guests leave: an address that processors take in any register.
const INVERSE: u64 = !0x0000_5AFE_C0DE_BA5E;

/// The word.
fn canary() -> u64 {
    !std::hint::black_box(INVERSE)
}
