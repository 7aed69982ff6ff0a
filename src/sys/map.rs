//! Shared mappings of memory files.

use std::{io, os::fd::AsFd, ptr::NonNull};

use jailed::{
    handoff::Handoff,
    ring::{Counter, DeviceFailure, LastExit, Layout},
};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// A mapping of a file, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the mapping is only an address range; every access to it says how it is synchronised.
unsafe impl Send for Mapping {}

// SAFETY: as above; what `&Mapping` offers changes no content.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len_bytes` bytes of `file`, shared, for reading and writing.
    ///
    /// # Errors
    /// The errno of `mmap`.
    pub fn read_write(file: impl AsFd, len_bytes: usize) -> io::Result<Self> {
        Self::new(file, len_bytes, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps the first `len_bytes` bytes of `file`, shared, for reading.
    ///
    /// # Errors
    /// The errno of `mmap`.
    pub fn read_only(file: impl AsFd, len_bytes: usize) -> io::Result<Self> {
        Self::new(file, len_bytes, ProtFlags::READ)
    }

    fn new(file: impl AsFd, len_bytes: usize, protection: ProtFlags) -> io::Result<Self> {
        let hint = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { mmap(hint, len_bytes, protection, MapFlags::SHARED, file, 0)? };
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| io::Error::other("mmap returned address zero"))?;
        Ok(Self { start, len_bytes })
    }

    /// Where the mapping starts in this process.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Makes every page present and writable, `[from, from + len_bytes)` at a time, so that a lack of memory is an
    /// error here and not a signal later.
    ///
    /// # Errors
    /// The errno of `madvise(MADV_POPULATE_WRITE)`, `EINVAL` for a range outside of the mapping.
    pub fn populate(&self, from: usize, len_bytes: usize) -> io::Result<()> {
        self.advise(from, len_bytes, Advice::LinuxPopulateWrite)
    }

    /// Takes `[from, from + len_bytes)` out of this process's page tables: the pages stay in the file. Unmapping does the same,
    /// but all of it in one thread.
    ///
    /// # Errors
    /// The errno of `madvise(MADV_DONTNEED)`, `EINVAL` for a range outside of the mapping.
    pub fn leave(&self, from: usize, len_bytes: usize) -> io::Result<()> {
        self.advise(from, len_bytes, Advice::LinuxDontNeed)
    }

    /// Says that no page is likely to be used again soon because it was used: the kernel spares the work of noting that as it
    /// unmaps them, which is more than half of it.
    ///
    /// # Errors
    /// The errno of `madvise(MADV_RANDOM)`.
    pub fn forget_use(&self) -> io::Result<()> {
        self.advise(0, self.len_bytes, Advice::Random)
    }

    /// Asks for large pages where the kernel gives them to shared memory (`shmem_enabled`): fewer entries in the page
    /// tables of processor and IOMMU. A kernel that gives none says so, and nothing is lost.
    pub fn prefer_large_pages(&self) -> bool {
        self.advise(0, self.len_bytes, Advice::LinuxHugepage)
            .is_ok()
    }

    fn advise(&self, from: usize, len_bytes: usize, advice: Advice) -> io::Result<()> {
        let end = from.checked_add(len_bytes);
        if end.is_none_or(|end| end > self.len_bytes) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let at = self.start.as_ptr().wrapping_add(from).cast();
        // SAFETY: the range lies inside this mapping. It is shared, so what it holds is the file's, which no advice above changes.
        unsafe { madvise(at, len_bytes, advice)? };
        Ok(())
    }

    /// Keeps the pages on the NUMA node `node`, those that are not yet present.
    ///
    /// # Errors
    /// The errno of `mbind`.
    pub fn bind_to_node(&self, node: u32) -> io::Result<()> {
        const MPOL_BIND: libc::c_int = 2;
        let mut mask = [0_u64; 16];
        let word = mask
            .get_mut(usize::try_from(node / 64).unwrap_or(usize::MAX))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        *word = 1 << (node % 64);
        // The kernel reads one bit less than it is told.
        let bits = mask.len() * 64;
        // SAFETY: the range is this mapping, the mask is an array of `bits` bits that outlives the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start.as_ptr(),
                self.len_bytes,
                MPOL_BIND,
                mask.as_ptr(),
                bits,
                0,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped in `new`, and no reference into it is ever given out.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len_bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping");
    }
}

/// The counters of the ring, read by the supervisor, which believes nothing in them.
#[derive(Debug)]
pub struct CounterView(Mapping);

impl CounterView {
    /// Maps the head page of the ring's file for reading.
    ///
    /// # Errors
    /// The errno of `mmap`.
    pub fn new(ring: impl AsFd) -> io::Result<Self> {
        Mapping::read_only(ring, Layout::HEAD_BYTES).map(Self)
    }

    /// The value of `counter` now.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.word(Layout::COUNTERS + counter as usize * 8)
    }

    /// The last exit as V left it.
    #[must_use]
    pub fn last_exit(&self) -> LastExit {
        LastExit {
            reason: self.word(Layout::LAST_EXIT),
            detail: self.word(Layout::LAST_EXIT + 8),
            vcpu: self.word(Layout::LAST_EXIT + 16),
            reserved: 0,
        }
    }

    /// What D says it ended for; `None` where it says nothing that makes sense.
    #[must_use]
    pub fn device_failure(&self) -> Option<DeviceFailure> {
        let word = |index: usize| self.word(Layout::DEVICE_FAILURE + 8 * index);
        DeviceFailure::from_words([word(0), word(1), word(2)])
    }

    /// How many bytes of the console D has not passed on; none where V and D say what contradicts itself.
    #[must_use]
    pub fn console_left(&self) -> u32 {
        let [put, passed] = [Layout::CONSOLE_OUT_PUT, Layout::CONSOLE_OUT_PASSED].map(|offset| {
            let [a, b, c, d, ..] = self.word(offset).to_le_bytes();
            u32::from_le_bytes([a, b, c, d])
        });
        Layout::console_left(put, passed)
    }

    fn word(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.0.len_bytes());
        let at = self.0.start().as_ptr().wrapping_add(offset).cast::<u64>();
        // SAFETY: aligned and inside the mapping, as asserted; volatile, because other processes write it.
        unsafe { at.read_volatile() }
    }
}

/// How much of a handoff is facts that a manifest is made from: all before the kernel's command line.
pub const FACT_BYTES: usize = std::mem::offset_of!(Handoff, cmdline);

/// The facts of a handoff as bytes, to be read back by [`handoff_of`].
#[must_use]
pub fn handoff_facts(handoff: &Handoff) -> &[u8] {
    handoff_bytes(handoff).get(..FACT_BYTES).unwrap_or_default()
}

/// A handoff with the facts in `bytes`, no command line and no ACPI tables; `None` for what is none.
#[must_use]
pub fn handoff_of(bytes: &[u8]) -> Option<Box<Handoff>> {
    let bytes: &[u8; FACT_BYTES] = bytes.try_into().ok()?;
    let mut handoff = Box::new(Handoff::empty());
    let place = std::ptr::from_mut(handoff.as_mut()).cast::<u8>();
    // SAFETY: the struct is plain integers without padding, of which any bytes are a value, and longer than `bytes`;
    // nothing else refers to it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
    handoff.cmdline_len = 0;
    handoff.acpi_len = 0;
    handoff.check().then_some(handoff)
}

/// The handoff as bytes.
#[must_use]
pub fn handoff_bytes(handoff: &Handoff) -> &[u8] {
    let start = std::ptr::from_ref(handoff).cast::<u8>();
    // SAFETY: the struct is plain integers without padding (asserted in `jailed::handoff`), borrowed as long.
    unsafe { std::slice::from_raw_parts(start, size_of::<Handoff>()) }
}
