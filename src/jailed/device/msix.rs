//! The MSI-X table as the guest sees it. It never reaches the hardware's, which the kernel owns.

use super::vectors::VectorSet;
use crate::{handoff::MAX_VECTORS, ring::RouteUpdate};

/// Bytes of one entry: address, upper address, data, vector control.
pub const ENTRY_BYTES: u64 = 16;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    address: u32,
    upper_address: u32,
    data: u32,
    is_masked: bool,
}

impl Entry {
    /// As after reset: masked.
    const RESET: Self = Self {
        address: 0,
        upper_address: 0,
        data: 0,
        is_masked: true,
    };

    fn read(&self, dword: u64) -> u32 {
        match dword {
            0 => self.address,
            1 => self.upper_address,
            2 => self.data,
            _ => u32::from(self.is_masked),
        }
    }

    fn write(&mut self, dword: u64, value: u32) {
        match dword {
            0 => self.address = value & !3,
            1 => self.upper_address = value,
            2 => self.data = value,
            _ => self.is_masked = value & 1 == 1,
        }
    }
}

/// The table of one function.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    entries: [Entry; MAX_VECTORS],
    vectors: u32,
}

impl Table {
    /// A table of this many entries, all masked.
    #[must_use]
    pub const fn new(vectors: u32) -> Self {
        Self {
            entries: [Entry::RESET; MAX_VECTORS],
            vectors,
        }
    }

    /// Back to what it is after reset.
    pub fn reset(&mut self) {
        *self = Self::new(self.vectors);
    }

    /// Reads 4 or 8 aligned bytes; all ones for other widths, which the specification leaves undefined, and for entries
    /// that the device has and the guest has not.
    #[must_use]
    pub fn read(&self, offset: u64, size_bytes: usize) -> u64 {
        let Some(entry) = self.entry(offset).and_then(|i| self.entries.get(i)) else {
            return u64::MAX;
        };
        let dword = offset % ENTRY_BYTES / 4;
        match size_bytes {
            4 => u64::from(entry.read(dword)),
            8 => u64::from(entry.read(dword)) | u64::from(entry.read(dword | 1)) << 32,
            _ => u64::MAX,
        }
    }

    /// Writes 4 or 8 aligned bytes, and drops what [`Self::read`] answers with ones; the route if that changed.
    ///
    /// Its `is_live` is for the caller to decide, who knows whether the function's vectors are armed.
    pub fn write(&mut self, offset: u64, size_bytes: usize, value: u64) -> Option<RouteUpdate> {
        let index = self.entry(offset)?;
        let entry = self.entries.get_mut(index)?;
        let (before, dword) = (*entry, offset % ENTRY_BYTES / 4);
        let half = |n: u64| u32::try_from(n & 0xFFFF_FFFF).unwrap_or(0);
        match size_bytes {
            4 => entry.write(dword, half(value)),
            8 => {
                entry.write(dword, half(value));
                entry.write(dword | 1, half(value >> 32));
            }
            _ => return None,
        }
        let is_same = Entry {
            is_masked: entry.is_masked,
            ..before
        } == *entry;
        (!is_same).then_some(RouteUpdate {
            first_vector: u32::try_from(index).ok()?,
            count: 1,
            address: deliverable_address(entry.address, entry.upper_address),
            data: entry.data,
            is_live: false,
        })
    }

    /// The vectors that the guest does not mask one by one.
    #[must_use]
    pub fn unmasked(&self) -> VectorSet {
        VectorSet::of(self.vectors, |vector| {
            let entry = usize::try_from(vector)
                .ok()
                .and_then(|v| self.entries.get(v));
            entry.is_some_and(|e| !e.is_masked)
        })
    }

    /// The index of the entry that holds `offset`, if the guest has it.
    fn entry(&self, offset: u64) -> Option<usize> {
        let index = offset / ENTRY_BYTES;
        usize::try_from(index)
            .ok()
            .filter(|_| index < u64::from(self.vectors))
    }
}

/// The address of a message if it is one to a local APIC, else zero: the vector must not be delivered.
///
/// *Source:* `Intel SDM volume 3, section 11.11.1 (message address register format)`.
#[must_use]
pub fn deliverable_address(address: u32, upper_address: u32) -> u64 {
    let is_interrupt = address & 0xFFF0_0000 == 0xFEE0_0000 && upper_address == 0;
    if is_interrupt { u64::from(address) } else { 0 }
}
