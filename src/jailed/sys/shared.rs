//! Memory shared with a process that may write it at any time: reached by atomic access only.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use super::lock::seal;
use super::syscall::flag::{MAP_SHARED, MAP_WINDOW, PROT_READ_WRITE};
use super::syscall::{Errno, Fd, call, number};

/// A shared mapping that lives as long as the process.
///
/// An offset outside of it is a bug of ours, never a peer's: the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    base: *mut u8,
    size_bytes: usize,
}

// SAFETY: the mapping is never unmapped, and every access to it is atomic.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps the first `size_bytes` bytes of `fd`, readable and writable, sealed.
    ///
    /// # Errors
    /// The errno of `mmap` or `mseal`.
    pub fn map(fd: Fd, size_bytes: usize) -> Result<Self, Errno> {
        Self::map_with(0, MAP_SHARED, fd.number() as usize, size_bytes)
    }

    /// The same at the address `at`, where nothing is yet.
    ///
    /// # Errors
    /// The errno of `mmap` or `mseal`; `EEXIST` where the address is taken.
    pub fn map_at(at: u64, fd: Fd, size_bytes: usize) -> Result<Self, Errno> {
        let place = usize::try_from(at).map_err(|_wide| Errno::INVALID)?;
        let mapped = Self::map_with(place, MAP_WINDOW, fd.number() as usize, size_bytes)?;
        if mapped.base.addr() == place {
            Ok(mapped)
        } else {
            Err(Errno::INVALID)
        }
    }

    /// Maps memory of this process alone.
    #[cfg(test)]
    pub(crate) fn anonymous(size_bytes: usize) -> Self {
        const MAP_SHARED_ANONYMOUS: usize = 0x21;
        Self::map_with(0, MAP_SHARED_ANONYMOUS, usize::MAX, size_bytes).unwrap()
    }

    fn map_with(at: usize, flags: usize, fd: usize, size_bytes: usize) -> Result<Self, Errno> {
        let args = [at, size_bytes, PROT_READ_WRITE, flags, fd, 0];
        // SAFETY: 1. the kernel chooses the address, or fails where something is there: no memory of ours is replaced.
        let base = unsafe { call(number::MMAP, args)? };
        seal(base, size_bytes)?;
        Ok(Self {
            base: core::ptr::with_exposed_provenance_mut(base),
            size_bytes,
        })
    }

    /// Its length.
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The byte at `offset`.
    ///
    /// # Panics
    /// If it lies outside.
    #[must_use]
    pub fn byte(&self, offset: usize) -> &AtomicU8 {
        let place = self.place::<AtomicU8>(offset);
        // SAFETY: `place` checked bounds and alignment; the mapping lives as long as `self`, and its accesses are atomic.
        unsafe { AtomicU8::from_ptr(place.cast()) }
    }

    /// The aligned 32-bit word at `offset`.
    ///
    /// # Panics
    /// If it lies outside or is not aligned.
    #[must_use]
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        let place = self.place::<AtomicU32>(offset);
        // SAFETY: as for `byte`.
        unsafe { AtomicU32::from_ptr(place.cast()) }
    }

    /// The aligned 64-bit word at `offset`.
    ///
    /// # Panics
    /// If it lies outside or is not aligned.
    #[must_use]
    pub fn long(&self, offset: usize) -> &AtomicU64 {
        let place = self.place::<AtomicU64>(offset);
        // SAFETY: as for `byte`.
        unsafe { AtomicU64::from_ptr(place.cast()) }
    }

    fn place<T>(&self, offset: usize) -> *mut T {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.size_bytes) && offset.is_multiple_of(align_of::<T>())
        );
        self.base.wrapping_add(offset).cast()
    }
}
