//! Reading, writing and checking the descriptors that the supervisor handed over.

use core::mem::offset_of;

use super::{
    syscall::{Errno, Fd, call, number},
    thread::{self, Zeroed},
};
use crate::handoff::{Handoff, Report};

/// Reads up to `bytes.len()` bytes; 0 at the end.
///
/// # Errors
/// The errno, `EAGAIN` among them for a non-blocking descriptor.
pub fn read(fd: Fd, bytes: &mut [u8]) -> Result<usize, Errno> {
    let args = [
        fd.number() as usize,
        bytes.as_mut_ptr().addr(),
        bytes.len(),
        0,
        0,
        0,
    ];
    // SAFETY: 1. the slice is valid for writes of its length.
    unsafe { call(number::READ, args) }
}

/// Reads up to `bytes.len()` bytes from `offset`.
///
/// # Errors
/// The errno.
pub fn read_at(fd: Fd, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let place = usize::try_from(offset).map_err(|_wide| Errno(22))?;
    let args = [
        fd.number() as usize,
        bytes.as_mut_ptr().addr(),
        bytes.len(),
        place,
        0,
        0,
    ];
    // SAFETY: 1. the slice is valid for writes of its length.
    unsafe { call(number::PREAD64, args) }
}

/// Writes `bytes` at `offset`.
///
/// # Errors
/// The errno.
pub fn write_at(fd: Fd, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
    let place = usize::try_from(offset).map_err(|_wide| Errno(22))?;
    let args = [
        fd.number() as usize,
        bytes.as_ptr().addr(),
        bytes.len(),
        place,
        0,
        0,
    ];
    // SAFETY: 1. the slice is valid for reads of its length.
    unsafe { call(number::PWRITE64, args) }
}

/// Closes `fd`.
///
/// # Errors
/// The errno.
pub fn close(fd: Fd) -> Result<(), Errno> {
    // SAFETY: 1. the call takes a number; nothing of ours owns descriptors by type.
    unsafe { call(number::CLOSE, [fd.number() as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// Closes all descriptors from `first` on.
///
/// # Errors
/// The errno.
pub fn close_from(first: Fd) -> Result<(), Errno> {
    let args = [first.number() as usize, u32::MAX as usize, 0, 0, 0, 0];
    // SAFETY: 1. the call takes numbers.
    unsafe { call(number::CLOSE_RANGE, args) }.map(drop)
}

/// Whether `fd` is open.
#[must_use]
pub fn is_open(fd: Fd) -> bool {
    const F_GETFD: usize = 1;
    // SAFETY: 1. the call takes numbers.
    unsafe { call(number::FCNTL, [fd.number() as usize, F_GETFD, 0, 0, 0, 0]) }.is_ok()
}

// SAFETY: 1. a handoff consists of integers.
unsafe impl Zeroed for Handoff {}

/// Reads the handoff, of the command line and the ACPI tables what is used; `None` where the file is too short. Its counts
/// are not checked here.
///
/// # Errors
/// The errno.
pub fn read_handoff(fd: Fd) -> Result<Option<&'static Handoff>, Errno> {
    const { assert!(size_of::<Handoff>() < 1 << 20) };
    const CMDLINE: usize = offset_of!(Handoff, cmdline);
    const ACPI: usize = offset_of!(Handoff, acpi);
    let handoff = thread::zeroed::<Handoff>()?;
    let place = core::ptr::from_mut(handoff).cast::<u8>();
    // SAFETY: the bytes of a handoff are ours alone here, and it consists of integers: any bytes make one.
    let facts = unsafe { core::slice::from_raw_parts_mut(place, CMDLINE) };
    if !read_whole(fd, facts, 0)? {
        return Ok(None);
    }
    // What is not used is zeroes in the file, too, and so need not be there.
    let used = |len: u32| usize::try_from(len).unwrap_or(usize::MAX);
    let (cmdline_len, acpi_len) = (used(handoff.cmdline_len), used(handoff.acpi_len));
    let cmdline = handoff.cmdline.get_mut(..cmdline_len).unwrap_or_default();
    let is_whole = read_whole(fd, cmdline, CMDLINE)?;
    let acpi = handoff.acpi.get_mut(..acpi_len).unwrap_or_default();
    Ok((is_whole && read_whole(fd, acpi, ACPI)?).then_some(&*handoff))
}

/// Fills `bytes` from `offset` on; whether the file has so many.
fn read_whole(fd: Fd, bytes: &mut [u8], offset: usize) -> Result<bool, Errno> {
    let mut have = 0;
    while let Some(rest) = bytes.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match read_at(fd, rest, offset.saturating_add(have) as u64)? {
            0 => return Ok(false),
            n => have += n,
        }
    }
    Ok(true)
}

/// The bytes of a report, as they cross the control socket.
#[must_use]
pub fn report_bytes(report: Report) -> [u8; size_of::<Report>()] {
    const { assert!(size_of::<Report>() == 16) };
    let mut bytes = [0; size_of::<Report>()];
    bytes[..4].copy_from_slice(&report.stage.to_ne_bytes());
    bytes[4..8].copy_from_slice(&report.errno.to_ne_bytes());
    bytes[8..].copy_from_slice(&report.detail.to_ne_bytes());
    bytes
}

/// Adds 1 to an eventfd; one that is at its limit stays there.
///
/// # Errors
/// The errno.
pub fn signal(fd: Fd) -> Result<(), Errno> {
    match super::syscall::write(fd, &1_u64.to_ne_bytes()) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Takes the count of a non-blocking eventfd; whether it was above zero.
///
/// # Errors
/// The errno.
pub fn take_signal(fd: Fd) -> Result<bool, Errno> {
    match read(fd, &mut [0; 8]) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno),
    }
}
