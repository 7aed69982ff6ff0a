//! A queue of bytes with one side that puts and one that takes.
//!
//! The positions count bytes since the start and wrap. A side masks every position it reads, so what a hostile peer
//! writes there costs the guest its console and nothing else.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::layout::Layout;
use crate::sys::shared::Shared;

/// Bytes of a queue, a power of two.
const QUEUE_BYTES: u32 = 4096;
const _: () = assert!(Layout::CONSOLE_OUT_BYTES == QUEUE_BYTES as usize);
const _: () = assert!(Layout::CONSOLE_IN_BYTES == QUEUE_BYTES as usize);

/// A queue at its place in the shared memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    shared: Shared,
    positions: usize,
    bytes: usize,
}

impl Queue {
    pub(super) const fn new(shared: Shared, positions: usize, bytes: usize) -> Self {
        Self {
            shared,
            positions,
            bytes,
        }
    }

    /// Whether a byte waits; not where the positions contradict each other.
    pub(super) fn has_bytes(&self) -> bool {
        (1..=QUEUE_BYTES).contains(&self.used_bytes())
    }

    /// Whether there is room for a byte.
    pub(super) fn has_room(&self) -> bool {
        self.has_room_for(1)
    }

    /// Whether there is room for so many bytes; not where the positions contradict each other.
    pub(super) fn has_room_for(&self, bytes: u32) -> bool {
        let free = QUEUE_BYTES.checked_sub(self.used_bytes());
        free.is_some_and(|free| bytes <= free)
    }

    /// Puts a byte; false where there is no room. One thread at a time.
    pub(super) fn put(&self, byte: u8) -> bool {
        if !self.has_room() {
            return false;
        }
        let at = self.put_position().load(Ordering::Relaxed);
        self.byte(at).store(byte, Ordering::Relaxed);
        self.put_position()
            .store(at.wrapping_add(1), Ordering::Release);
        true
    }

    /// Takes a byte, if one waits. One thread at a time.
    pub(super) fn take(&self) -> Option<u8> {
        if !self.has_bytes() {
            return None;
        }
        let at = self.take_position().load(Ordering::Relaxed);
        let byte = self.byte(at).load(Ordering::Relaxed);
        self.take_position()
            .store(at.wrapping_add(1), Ordering::Release);
        Some(byte)
    }

    fn used_bytes(&self) -> u32 {
        let put = self.put_position().load(Ordering::Acquire);
        put.wrapping_sub(self.take_position().load(Ordering::Acquire))
    }

    fn put_position(&self) -> &AtomicU32 {
        self.shared.word(self.positions)
    }

    fn take_position(&self) -> &AtomicU32 {
        // A cache line further: each side writes its own.
        self.shared.word(self.positions + 64)
    }

    fn byte(&self, position: u32) -> &AtomicU8 {
        self.shared
            .byte(self.bytes + (position % QUEUE_BYTES) as usize)
    }
}
