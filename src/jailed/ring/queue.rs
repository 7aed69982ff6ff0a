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
    /// From the position of what is put to that of what is taken: a cache line, as each side writes its own.
    pub(super) const TAKEN: usize = 64;

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

    /// Copies what waits longest, as much of it as `to` has room for: how many bytes. They wait on, for [`Self::pass`].
    pub(super) fn copy(&self, to: &mut [u8]) -> usize {
        let put = self.put_position().load(Ordering::Acquire);
        let from = self.take_position().load(Ordering::Relaxed);
        let mut count = 0;
        for (place, nth) in to.iter_mut().zip(0..Self::waiting(put, from)) {
            *place = self.byte(from.wrapping_add(nth)).load(Ordering::Relaxed);
            count += 1;
        }
        count
    }

    /// Takes so many of the bytes that [`Self::copy`] gave. One thread at a time.
    pub(super) fn pass(&self, count: usize) {
        let from = self.take_position().load(Ordering::Relaxed);
        let count = u32::try_from(count).unwrap_or(QUEUE_BYTES);
        self.take_position()
            .store(from.wrapping_add(count), Ordering::Release);
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

    /// How many bytes wait in a queue with these positions; none where they contradict each other.
    pub(super) fn waiting(put: u32, taken: u32) -> u32 {
        let used = put.wrapping_sub(taken);
        if used <= QUEUE_BYTES { used } else { 0 }
    }

    fn used_bytes(&self) -> u32 {
        let put = self.put_position().load(Ordering::Acquire);
        put.wrapping_sub(self.take_position().load(Ordering::Acquire))
    }

    fn put_position(&self) -> &AtomicU32 {
        self.shared.word(self.positions)
    }

    fn take_position(&self) -> &AtomicU32 {
        self.shared.word(self.positions + Self::TAKEN)
    }

    fn byte(&self, position: u32) -> &AtomicU8 {
        self.shared
            .byte(self.bytes + (position % QUEUE_BYTES) as usize)
    }
}
