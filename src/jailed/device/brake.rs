//! Resets that a guest asks for without end are held.
//!
//! Each takes the kernel a tenth of a second and writes two lines to its log, so a guest could fill the log with them. A
//! driver needs one or two in a life. D has no clock, and needs none: it counts.

use crate::ring::DeviceSide;

/// How many resets of a function are free in a life of the guest.
const FREE: u32 = 4;
/// How long each of the others is held; meanwhile D answers nobody else of this guest.
const HELD_MS: u32 = 1000;

/// The resets of one function that are still free.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResetBrake(u32);

impl ResetBrake {
    /// All of them.
    pub(super) const fn new() -> Self {
        Self(FREE)
    }

    /// How long the next reset is to be held, if at all.
    const fn next_ms(&mut self) -> Option<u32> {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                None
            }
            None => Some(HELD_MS),
        }
    }

    /// Waits before a reset where it is one too many.
    pub(super) fn hold(&mut self, ring: &DeviceSide) {
        if let Some(ms) = self.next_ms() {
            ring.pause(ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_resets_are_free_and_all_others_are_held() {
        let mut brake = ResetBrake::new();
        let held = (0..FREE + 100)
            .filter(|_| brake.next_ms().is_some())
            .count();
        assert_eq!(held, 100);
    }
}
