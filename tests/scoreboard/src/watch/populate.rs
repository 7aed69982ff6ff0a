//! The limit that mapping is held to: making memory of the same kind present once, which the kernel zeroes.
//
// UNSAFETY: memory is mapped, made present and unmapped again; nobody reads it.
#![expect(unsafe_code, reason = "mmap, madvise and munmap")]

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};

use crate::record::Pages;

/// The time one thread takes for `mib` MiB of shared memory.
///
/// # Errors
/// There is not that much memory, or not that many huge pages.
pub fn time(mib: u32, pages: Pages) -> io::Result<Duration> {
    let len = usize::try_from(mib).map_err(io::Error::other)? << 20;
    let flags = match pages {
        Pages::TwoMib => MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        Pages::Default | Pages::Small => MemfdFlags::CLOEXEC,
    };
    let file = memfd_create("scoreboard", flags)?;
    ftruncate(&file, u64::from(mib) << 20)?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a mapping where the kernel finds room.
    let start = unsafe {
        mmap(
            std::ptr::null_mut(),
            len,
            protection,
            MapFlags::SHARED,
            &file,
            0,
        )?
    };
    if pages == Pages::Default {
        // SAFETY: the mapping from above. A kernel without large pages says so, and goes on with small ones.
        let _small = unsafe { madvise(start, len, Advice::LinuxHugepage) };
    }
    let begin = Instant::now();
    // SAFETY: the mapping from above, in which nothing lies yet.
    let populated = unsafe { madvise(start, len, Advice::LinuxPopulateWrite) };
    let taken = begin.elapsed();
    // SAFETY: nobody has a reference into the mapping.
    unsafe { munmap(start, len)? };
    populated?;
    Ok(taken)
}
