//! The start page: where V and D say that they are locked down, and are told to go.
//!
//! One memory file per process, mapped at [`WINDOW`] with the ring behind it: the filter's rule for `futex` names this
//! window, so that its bounds must be known before anything is mapped. Words are 32 bits wide, at fixed offsets.

use crate::{handoff::Handoff, ring::Layout};

/// Where the page lies in V and in D; nothing else is ever placed so low.
pub const WINDOW: u64 = 0x2000_0000_0000;
/// The page's length.
pub const BYTES: usize = 4096;
/// Where the ring lies.
pub const RING: u64 = WINDOW + BYTES as u64;

/// Offset of the state: [`BUILDING`], [`LOCKED`] or [`FAILED`]. The keeper sleeps on it.
pub const STATE: usize = 0;
/// Offset of the layers that are on, bits of [`super::layer`].
pub const LAYERS: usize = 4;
/// Offset of Landlock's version, 0 where there is none.
pub const LANDLOCK_ABI: usize = 8;
/// Offset of the errno of the last step where it failed.
pub const ERRNO: usize = 12;
/// Offset of how far it has come: one more than the place of the last moment in [`crate::stall::POINTS`], 0 before any.
pub const REACHED: usize = 16;
/// Offset of the word that is 1 once the guest may run. All threads sleep on it.
pub const GO: usize = 64;

/// State: the process is at work.
pub const BUILDING: u32 = 0;
/// State: the last filter is on.
pub const LOCKED: u32 = 1;
/// State: the last filter could not be put on; the process ends.
pub const FAILED: u32 = 2;

/// The first and the last address of a word in the window: start page and ring.
#[must_use]
pub fn words(handoff: &Handoff) -> (u64, u64) {
    let ring_bytes = Layout::of(handoff).size_bytes() as u64;
    (WINDOW, RING + ring_bytes - 4)
}

/// What a process says of itself once it is locked down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    /// The layers that are on, bits of [`super::layer`].
    pub layers: u32,
    /// Landlock's version, 0 where there is none.
    pub landlock_abi: u32,
}
