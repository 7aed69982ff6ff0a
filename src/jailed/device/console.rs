//! The guest's console on its way out.

use crate::{
    ring::DeviceSide,
    sys::syscall::{Errno, Fd, write},
};

/// The way from the ring to the console's descriptor.
#[derive(Debug)]
pub(super) struct ConsoleOut {
    /// Where the bytes go, if the guest has a console: what comes without one is dropped.
    to: Option<Fd>,
    /// How many more requests pass before the receiver, who was slow, is tried again.
    patience: u32,
}

/// How long to wait for a slow receiver.
const RETRY_MS: u32 = 5;
/// How many requests to answer meanwhile.
const PATIENCE: u32 = 64;
/// How many writes before requests get their turn.
const WRITES: u32 = 16;
/// The most bytes of a write.
const WRITE_BYTES: usize = 256;

impl ConsoleOut {
    /// Nothing has been written yet.
    pub(super) const fn new(to: Option<Fd>) -> Self {
        Self { to, patience: 0 }
    }

    /// Time has passed: the receiver is worth another try.
    pub(super) const fn try_again(&mut self) {
        self.patience = 0;
    }

    /// Writes what waits; the time after which to try again where the receiver takes no more. Never blocks.
    ///
    /// A byte leaves the ring only when it is written: the keeper waits for that before it ends this process, and can tell
    /// what is lost.
    pub(super) fn drain(&mut self, ring: &DeviceSide) -> Option<u32> {
        if self.patience > 0 {
            self.patience = self.patience.saturating_sub(1);
            return Some(RETRY_MS);
        }
        let mut bytes = [0; WRITE_BYTES];
        for _ in 0..WRITES {
            let count = ring.console_copy(&mut bytes);
            let waiting = bytes.get(..count).unwrap_or(&[]);
            if waiting.is_empty() {
                return None;
            }
            match self.to.map(|to| write(to, waiting)) {
                Some(Ok(taken)) => ring.console_pass(taken.min(count)),
                Some(Err(Errno::AGAIN)) => {
                    self.patience = PATIENCE;
                    return Some(RETRY_MS);
                }
                // There is no console, or nobody listens any more: the bytes have nowhere to go.
                None | Some(Err(_)) => ring.console_pass(count),
            }
        }
        // More may wait: that ends the wait for a request at once.
        None
    }
}

#[cfg(test)]
#[path = "console_test.rs"]
mod console_test;
