//! The guest's console on its way out.

use crate::{
    handoff::DeviceFds,
    ring::DeviceSide,
    sys::syscall::{Errno, Fd, write},
};

/// The bytes between the ring and the console's descriptor.
#[derive(Debug)]
pub(super) struct ConsoleOut {
    /// Whether the guest has a console: what comes without one is dropped.
    is_on: bool,
    bytes: [u8; 256],
    used: usize,
    /// How many more requests pass before the receiver, who was slow, is tried again.
    patience: u32,
}

/// How long to wait for a slow receiver.
const RETRY_MS: u32 = 5;
/// How many requests to answer meanwhile.
const PATIENCE: u32 = 64;
/// How many writes before requests get their turn.
const WRITES: u32 = 16;

impl ConsoleOut {
    /// No bytes yet.
    pub(super) const fn new(is_on: bool) -> Self {
        Self {
            is_on,
            bytes: [0; 256],
            used: 0,
            patience: 0,
        }
    }

    /// Time has passed: the receiver is worth another try.
    pub(super) const fn try_again(&mut self) {
        self.patience = 0;
    }

    /// Writes what waits; the time after which to try again where the receiver takes no more. Never blocks.
    pub(super) fn drain(&mut self, ring: &DeviceSide) -> Option<u32> {
        if self.patience > 0 {
            self.patience = self.patience.saturating_sub(1);
            return Some(RETRY_MS);
        }
        for _ in 0..WRITES {
            self.fill(ring);
            let waiting = self.bytes.get(..self.used).unwrap_or(&[]);
            if waiting.is_empty() {
                return None;
            }
            if !self.is_on {
                self.used = 0;
                continue;
            }
            match write(Fd::new(DeviceFds::CONSOLE_OUT), waiting) {
                Ok(taken) => {
                    self.bytes.rotate_left(taken.min(self.used));
                    self.used = self.used.saturating_sub(taken);
                }
                Err(Errno::AGAIN) => {
                    self.patience = PATIENCE;
                    return Some(RETRY_MS);
                }
                // Nobody listens any more: the bytes have nowhere to go.
                Err(_) => self.used = 0,
            }
        }
        (self.used > 0).then_some(RETRY_MS)
    }

    fn fill(&mut self, ring: &DeviceSide) {
        while let Some(place) = self.bytes.get_mut(self.used)
            && let Some(byte) = ring.console_take()
        {
            *place = byte;
            self.used = self.used.saturating_add(1);
        }
    }
}
