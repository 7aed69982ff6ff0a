//! Mappings of descriptors, and guest RAM while the guest is being built.

use super::lock::seal;
use super::syscall::flag::{MAP_PLACED, MAP_PRESENT, MAP_RESERVED, PROT_READ, PROT_READ_WRITE};
use super::syscall::{Errno, Fd, call, number};
use crate::addr::{Gpa, GpaRange};
use crate::handoff::{MAX_RAM_RANGES, RamRange};

/// The size of a large page.
const LARGE_BYTES: usize = 2 << 20;
/// The processor's largest page: 1 GiB.
const HUGE_BYTES: usize = 1 << 30;

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only to be read.
    ReadOnly,
    /// To be read and written.
    ReadWrite,
}

/// A run of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the file.
    pub offset: usize,
    /// Its length, whole pages.
    pub len_bytes: usize,
}

/// A shared mapping of a descriptor, sealed. It lasts as long as the process: dropping it changes nothing.
#[derive(Debug)]
pub struct Mapping {
    host: *mut u8,
    len_bytes: usize,
}

impl Mapping {
    /// Maps `len_bytes` bytes of `fd` from `offset` on, for the guest to find at `at`.
    ///
    /// # Errors
    /// The errno of `mmap`, `munmap` or `mseal`.
    pub fn new(
        fd: Fd,
        offset: u64,
        at: Gpa,
        len_bytes: u64,
        access: Access,
    ) -> Result<Self, Errno> {
        let wide = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let (offset, len_bytes) = (wide(offset), wide(len_bytes));
        let protection = match access {
            Access::ReadOnly => PROT_READ,
            Access::ReadWrite => PROT_READ_WRITE,
        };
        let place = reserve(wide(at.raw()), len_bytes)?;
        let fd = fd.number() as usize;
        // SAFETY: 1. six numbers; what is replaced is the reservation above, which nobody else knows.
        let host = unsafe {
            call(
                number::MMAP,
                [place, len_bytes, protection, MAP_PLACED, fd, offset],
            )
        }?;
        Self::sealed(host, len_bytes)
    }

    /// Maps `pieces` of `fd` side by side, only to be read, for the guest to find from `at` on. They are present at once: where
    /// a page is not, KVM has the guest wait for it by a page fault, which costs more than the page.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_pieces(fd: Fd, at: Gpa, pieces: &[Piece]) -> Result<Self, Errno> {
        let len_bytes = pieces.iter().map(|piece| piece.len_bytes).sum();
        let in_guest = usize::try_from(at.raw()).unwrap_or(usize::MAX);
        let start = reserve(in_guest, len_bytes)?;
        let mut place = start;
        for Piece { offset, len_bytes } in pieces {
            let fd = fd.number() as usize;
            // SAFETY: 1. six numbers; what is replaced is a part of the reservation above, which is as long as all pieces
            // and which nobody else knows.
            unsafe {
                call(
                    number::MMAP,
                    [place, *len_bytes, PROT_READ, MAP_PRESENT, fd, *offset],
                )
            }?;
            place += len_bytes;
        }
        Self::sealed(start, len_bytes)
    }

    /// Seals what was mapped.
    fn sealed(host: usize, len_bytes: usize) -> Result<Self, Errno> {
        seal(host, len_bytes)?;
        Ok(Self {
            host: core::ptr::with_exposed_provenance_mut(host),
            len_bytes,
        })
    }

    /// Where it lies in this process: for KVM's memory slots.
    #[must_use]
    pub fn host(&self) -> *mut u8 {
        self.host
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

/// Reserves `len_bytes` bytes of address space that lie as far behind a multiple of the largest page that fits as `at`
/// does: only then can KVM use large pages, and only then does the kernel take a mapping of huge ones.
fn reserve(at: usize, len_bytes: usize) -> Result<usize, Errno> {
    let large_bytes = if len_bytes >= HUGE_BYTES {
        HUGE_BYTES
    } else {
        LARGE_BYTES
    };
    let in_large = at % large_bytes;
    let all_bytes = len_bytes.checked_add(large_bytes).ok_or(Errno::NO_MEMORY)?;
    // SAFETY: 1. six numbers; the kernel picks a free address, so nothing that exists is replaced.
    let start = unsafe { call(number::MMAP, [0, all_bytes, 0, MAP_RESERVED, usize::MAX, 0]) }?;
    let skipped = (in_large + large_bytes - start % large_bytes) % large_bytes;
    let end = start + skipped + len_bytes;
    for (at, unused_bytes) in [(start, skipped), (end, large_bytes - skipped)] {
        if unused_bytes > 0 {
            // SAFETY: 1. numbers; the range is the front or the back of the reservation, which nobody else knows.
            unsafe { call(number::MUNMAP, [at, unused_bytes, 0, 0, 0, 0]) }?;
        }
    }
    Ok(start + skipped)
}

/// Why guest RAM could not be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillError {
    /// The bytes do not lie in one range of RAM.
    NotRam,
    /// The file ended before its length.
    Ended,
    /// `pread64` failed.
    Read(Errno),
}

/// Guest RAM as V sees it before the guest runs: raw copies at checked places, no reference into it.
///
/// V's run loop has no value of this type, so that nothing there reads or writes guest RAM.
#[derive(Debug, Default)]
pub struct GuestRam {
    ranges: [Option<(GpaRange, Mapping)>; MAX_RAM_RANGES],
}

impl GuestRam {
    /// Maps every range from the RAM file.
    ///
    /// # Errors
    /// The address of the range that could not be mapped, and the errno (0 for an empty or wrapping range).
    pub fn map(file: Fd, ranges: &[RamRange]) -> Result<Self, (u64, Errno)> {
        let mut ram = Self::default();
        for (place, range) in ram.ranges.iter_mut().zip(ranges) {
            let span = GpaRange::new(Gpa::new(range.gpa), range.len_bytes)
                .ok_or((range.gpa, Errno::NONE))?;
            let mapping = Mapping::new(
                file,
                range.file_offset,
                span.start(),
                range.len_bytes,
                Access::ReadWrite,
            )
            .map_err(|errno| (range.gpa, errno))?;
            *place = Some((span, mapping));
        }
        Ok(ram)
    }

    /// Every range with its mapping, for KVM's memory slots.
    pub fn ranges(&self) -> impl Iterator<Item = (GpaRange, &Mapping)> {
        self.ranges
            .iter()
            .flatten()
            .map(|(range, mapping)| (*range, mapping))
    }

    /// Copies `bytes` to `at`.
    ///
    /// # Errors
    /// [`FillError::NotRam`].
    pub fn write(&mut self, at: Gpa, bytes: &[u8]) -> Result<(), FillError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let to = self.host(at, bytes.len() as u64)?;
        // SAFETY: `host` checked that all the bytes lie in one mapping, which no reference points into.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Fills `len_bytes` bytes from `at` on with zeros: RAM that an earlier life of the guest wrote is not fresh.
    ///
    /// # Errors
    /// [`FillError::NotRam`].
    pub fn zero(&mut self, at: Gpa, len_bytes: u64) -> Result<(), FillError> {
        if len_bytes == 0 {
            return Ok(());
        }
        let to = self.host(at, len_bytes)?;
        let count = usize::try_from(len_bytes).unwrap_or(usize::MAX);
        // SAFETY: `host` checked that all the bytes lie in one mapping, which no reference points into.
        unsafe { core::ptr::write_bytes(to, 0, count) };
        Ok(())
    }

    /// Reads `len_bytes` bytes of `file` from `offset` on to `at`, without a copy in between.
    ///
    /// # Errors
    /// Any [`FillError`].
    pub fn write_file(
        &mut self,
        at: Gpa,
        file: Fd,
        offset: u64,
        len_bytes: u64,
    ) -> Result<(), FillError> {
        let mut done = 0;
        while done < len_bytes {
            let left = len_bytes - done;
            let to = self.host(at.checked_add(done).ok_or(FillError::NotRam)?, left)?;
            let from = offset.checked_add(done).ok_or(FillError::Ended)?;
            // SAFETY: `host` checked that `left` bytes from `to` lie in one mapping, which no reference points into.
            let count = unsafe { pread_raw(file, to, left, from) }.map_err(FillError::Read)?;
            if count == 0 {
                return Err(FillError::Ended);
            }
            done += count as u64;
        }
        Ok(())
    }

    /// The place in this process of `len_bytes` bytes at `at`, if all of them lie in one range.
    fn host(&self, at: Gpa, len_bytes: u64) -> Result<*mut u8, FillError> {
        self.ranges()
            .find(|(range, _)| range.contains(at, len_bytes))
            .and_then(|(range, mapping)| {
                let offset = usize::try_from(at.offset_from(range.start())?).ok()?;
                Some(mapping.host.wrapping_add(offset))
            })
            .ok_or(FillError::NotRam)
    }
}

/// `pread64`, again where a signal interrupted it.
///
/// # Safety
/// 1. `to` is valid for writes of `len_bytes` bytes.
unsafe fn pread_raw(file: Fd, to: *mut u8, len_bytes: u64, offset: u64) -> Result<usize, Errno> {
    let len_bytes = usize::try_from(len_bytes).unwrap_or(usize::MAX);
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let fd = file.number() as usize;
    loop {
        let args = [fd, to.expose_provenance(), len_bytes, offset, 0, 0];
        // SAFETY: 1. is the caller's.
        match unsafe { call(number::PREAD64, args) } {
            Err(Errno::INTERRUPTED) => {}
            result => return result,
        }
    }
}

/// The size in bytes of the file behind `fd`; 0 for what is no regular file.
///
/// # Errors
/// The errno of `fstat`.
pub fn file_len(fd: Fd) -> Result<u64, Errno> {
    let mut stat = [0_u64; 18];
    let args = [fd.number() as usize, stat.as_mut_ptr().addr(), 0, 0, 0, 0];
    // SAFETY: 1. `struct stat` has 144 bytes on x86-64, as many as the array.
    unsafe { call(number::FSTAT, args) }?;
    Ok(stat[6])
}

/// Closes the descriptors from `first` up to and with `last`.
///
/// # Errors
/// The errno.
pub fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    let args = [first as usize, last as usize, 0, 0, 0, 0];
    // SAFETY: 1. three numbers; descriptors here are numbers, so no owner is left behind with a closed one.
    unsafe { call(number::CLOSE_RANGE, args) }.map(drop)
}
