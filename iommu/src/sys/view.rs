//! A file's bytes in this process's address space, for the moment in which the kernel pins them.
//!
//! UNSAFETY: see the folder's `mod.rs`. No reference to the bytes is ever made, so whoever else writes the file, a
//! device included, breaks no rule of the language.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// A shared mapping of a part of a file; its pages stay pinned by whatever pinned them after the mapping is gone.
#[derive(Debug)]
pub(crate) struct View {
    address: *mut libc::c_void,
    len: usize,
}

impl View {
    /// Maps `len` bytes of `file` from `start`.
    pub(crate) fn of_file(
        file: BorrowedFd<'_>,
        start: u64,
        len: u64,
        writable: bool,
    ) -> io::Result<Self> {
        let start = libc::off_t::try_from(start)
            .map_err(|_beyond| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        let len = usize::try_from(len)
            .map_err(|_beyond| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        let write = if writable { libc::PROT_WRITE } else { 0 };
        let protection = libc::PROT_READ | write;
        // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                start,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { address, len })
    }

    /// Where it is, as the ABI wants addresses.
    pub(crate) fn address(&self) -> u64 {
        u64::try_from(self.address.expose_provenance()).unwrap_or(u64::MAX)
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.len).unwrap_or(u64::MAX)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // It cannot fail for a mapping of our own.
        // SAFETY: the range is this mapping's, whole, and nothing refers to it any more.
        unsafe { libc::munmap(self.address, self.len) };
    }
}

/// Whether the kernel can pin the file's pages without an address: it is in memory (shmem, hugetlbfs).
pub(crate) fn is_memory_file(file: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the structure consists of integers, for which all zeroes is a value.
    let mut about: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes one statfs at this address, which is live and exclusively borrowed.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut about) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok([libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC].contains(&about.f_type))
}
