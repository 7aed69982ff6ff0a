//! Reading, writing and checking the descriptors that the supervisor handed over.

use super::{
    syscall::{Errno, Fd, call, number},
    thread,
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

/// Reads the handoff from its start, whole; `None` where the file is too short. Its counts are not checked here.
///
/// # Errors
/// The errno.
pub fn read_handoff(fd: Fd) -> Result<Option<&'static Handoff>, Errno> {
    const { assert!(size_of::<Handoff>() < 1 << 20) };
    let handoff = thread::forever(Handoff::empty())?;
    let place = core::ptr::from_mut(handoff).cast::<u8>();
    // SAFETY: the bytes of a handoff are ours alone here, and it consists of integers: any bytes make one.
    let bytes = unsafe { core::slice::from_raw_parts_mut(place, size_of::<Handoff>()) };
    let mut have = 0;
    while let Some(rest) = bytes.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match read_at(fd, rest, have as u64)? {
            0 => return Ok(None),
            n => have += n,
        }
    }
    Ok(Some(handoff))
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
