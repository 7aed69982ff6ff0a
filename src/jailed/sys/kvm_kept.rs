//! Writes to ports that KVM keeps: the guest goes on without V, which does them when it is asked for anything else.
//!
//! A VM has one ring of them, in a page that each of its vCPUs shares. KVM writes entries and the end of what waits; V
//! writes its beginning. Its page is read as a peer's: every position and length is checked, an offset out of the page
//! cannot be made. A guest has a say in ports and values alone.
//!
//! *Source:* `virt/kvm/coalesced_mmio.c`, `struct kvm_coalesced_mmio_ring` in `include/uapi/linux/kvm.h` (v6.12).

use core::sync::atomic::Ordering;

use super::kvm_abi::kept;
use super::shared::Shared;
use super::spin::Spin;
use crate::machine::PAGE_BYTES;

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptWrite {
    /// The port.
    pub port: u16,
    /// 1, 2 or 4.
    pub size_bytes: usize,
    /// What was written, in the low bytes.
    pub value: u32,
}

/// The ring says what KVM never says, by a word of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRing(pub u64);

/// The ring of a VM.
#[derive(Clone, Copy, Debug)]
pub struct KeptWrites {
    page: Shared,
    start: usize,
}

impl KeptWrites {
    /// The most writes that wait.
    pub const MOST: u32 = kept::ENTRIES - 1;

    /// The ring in the page `page_index` of what a vCPU shares with KVM; `None` where that has no such page.
    pub(super) fn new(page: Shared, page_index: usize) -> Option<Self> {
        let page_bytes = usize::try_from(PAGE_BYTES).ok()?;
        let start = page_index.checked_mul(page_bytes)?;
        let end = start.checked_add(page_bytes)?;
        (end <= page.size_bytes()).then_some(Self { page, start })
    }

    /// Does all that waited when it was called, by `perform` under `lock`; or another thread has done it by then.
    ///
    /// # Errors
    /// The ring contradicts itself, or has what KVM was never told to keep.
    pub fn catch_up<T>(
        &self,
        lock: &Spin<T>,
        mut perform: impl FnMut(&mut T, KeptWrite),
    ) -> Result<(), BadRing> {
        if self.is_done() {
            return Ok(());
        }
        lock.with(|held| {
            // No more than the ring has: other vCPUs must not keep this one here.
            for _ in 0..Self::MOST {
                if !self.next(|write| perform(held, write))? {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Whether all is done that KVM had kept when this was called, as far as a thread sees that does not hold the lock: a
    /// write which another thread is at is not done.
    ///
    /// The end is read first. Until the beginning is read, others only do more, so it has come to that end or gone past
    /// it; it cannot equal that end from a round before, since fewer wait than the ring has places. The other way round,
    /// KVM may fill a whole round in between, and one that it has just filled would look like none.
    fn is_done(&self) -> bool {
        let last = self.position(kept::LAST);
        self.position(kept::FIRST) == last
    }

    /// Performs the write that waits longest; false where none does. One thread at a time.
    ///
    /// Who performs alone moves the beginning, so that here the positions may be read in any order.
    ///
    /// # Errors
    /// The ring contradicts itself, or has what KVM was never told to keep.
    fn next(&self, perform: impl FnOnce(KeptWrite)) -> Result<bool, BadRing> {
        let (last, first) = (self.position(kept::LAST), self.position(kept::FIRST));
        for position in [first, last] {
            if position >= kept::ENTRIES {
                return Err(BadRing(u64::from(position)));
            }
        }
        if first == last {
            return Ok(false);
        }
        perform(self.entry(first)?);
        // Only now: who reads it without the lock takes what is before it for done. And KVM may write over the entry.
        self.page
            .word(self.start + kept::FIRST)
            .store((first + 1) % kept::ENTRIES, Ordering::Release);
        Ok(true)
    }

    /// The entry at a position below [`kept::ENTRIES`].
    fn entry(&self, position: u32) -> Result<KeptWrite, BadRing> {
        let at = self.start + kept::HEAD_BYTES + position as usize * kept::ENTRY_BYTES;
        let word = |offset| self.page.word(at + offset).load(Ordering::Relaxed);
        let address = self.page.long(at).load(Ordering::Relaxed);
        let (size, is_port) = (word(kept::LEN), word(kept::IS_PORT));
        let port = u16::try_from(address);
        let (Ok(port), 1 | 2 | 4, 1) = (port, size, is_port) else {
            return Err(BadRing(address));
        };
        let unused_bits = 32 - 8 * size;
        Ok(KeptWrite {
            port,
            size_bytes: size as usize,
            value: word(kept::DATA) & u32::MAX.unbounded_shr(unused_bits),
        })
    }

    fn position(&self, of: usize) -> u32 {
        self.page.word(self.start + of).load(Ordering::Acquire)
    }
}

#[cfg(test)]
#[path = "kvm_kept_test.rs"]
mod kvm_kept_test;
