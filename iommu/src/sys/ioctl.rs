//! One `ioctl(2)` for each shape of argument.
//!
//! UNSAFETY: see the folder's `mod.rs`.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// A request number without direction and size, which VFIO and iommufd never use.
///
/// *Source:* `include/uapi/asm-generic/ioctl.h`, `_IO` (v6.12).
pub(super) const fn io(kind: u8, number: u32) -> libc::Ioctl {
    (kind as libc::Ioctl) << 8 | number as libc::Ioctl
}

/// A structure that starts with its own size and may be given to the kernel whole.
///
/// # Safety
/// 1. The type is `repr(C)` and has no padding that matters: the kernel reads and writes all of it.
/// 2. Any bytes the kernel writes are a valid value.
/// 3. Pointers in it are the caller's business: the function that fills the structure keeps them alive.
pub(super) unsafe trait Argument {}

/// Calls with a structure that the kernel reads and writes.
pub(super) fn with<T: Argument>(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    argument: &mut T,
) -> io::Result<u32> {
    let argument: *mut T = argument;
    // SAFETY: the pointer is to a live, exclusively borrowed structure, whose type the request fixes and which starts
    // with its own size, so the kernel stays within it (1, 2).
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    checked(result)
}

/// Calls with a number.
pub(super) fn with_number(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    number: u32,
) -> io::Result<u32> {
    // SAFETY: the requests used with this take a number by value; no memory is involved.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, libc::c_ulong::from(number)) };
    checked(result)
}

/// Calls with the address of an fd's number, as `VFIO_GROUP_SET_CONTAINER` wants it.
pub(super) fn with_fd(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    other: BorrowedFd<'_>,
) -> io::Result<u32> {
    let number: libc::c_int = other.as_raw_fd();
    // SAFETY: the kernel reads one int at this address, and the int outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw const number) };
    checked(result)
}

/// Calls with a string and takes ownership of the fd that comes back.
pub(super) fn with_name(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    name: &CStr,
) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads a nul-terminated string at this address, which outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, name.as_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the request returns a new fd, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Calls with a structure of variable length, growing it until everything the kernel has to say fits.
///
/// `head` is the fixed part; its first four bytes, the size, are filled in here. Returns everything the kernel wrote.
pub(super) fn with_growing(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    head: &[u8],
) -> io::Result<Vec<u8>> {
    let mut len = head.len();
    for _ in 0..GROWTHS {
        // The kernel writes 64-bit members, so the memory is aligned for them.
        let mut words = vec![0_u64; len.div_ceil(8)];
        let size = words.len().saturating_mul(8);
        let told = u32::try_from(size).map_err(io::Error::other)?;
        for (word, chunk) in words.iter_mut().zip(head.chunks(8)) {
            let mut bytes = [0; 8];
            for (byte, from) in bytes.iter_mut().zip(chunk) {
                *byte = *from;
            }
            *word = u64::from_ne_bytes(bytes);
        }
        if let Some(first) = words.first_mut() {
            let mut bytes = first.to_ne_bytes();
            for (byte, from) in bytes.iter_mut().zip(told.to_ne_bytes()) {
                *byte = from;
            }
            *first = u64::from_ne_bytes(bytes);
        }
        // SAFETY: the buffer is live, exclusively borrowed and as long as its first member says, and the requests used
        // with this write no further than that.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, words.as_mut_ptr()) };
        checked(result)?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let wanted =
            u32_at(&bytes, 0).map_or(0, |wanted| usize::try_from(wanted).unwrap_or(usize::MAX));
        if wanted <= size {
            return Ok(bytes);
        }
        if wanted > LONGEST {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        len = wanted;
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// A growing structure grows once; more often only if the kernel changes its mind.
const GROWTHS: usize = 4;

/// Far more than any capability chain of VFIO.
const LONGEST: usize = 1 << 20;

/// The 32-bit number at `offset` of what the kernel wrote.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// The 64-bit number at `offset` of what the kernel wrote.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// A structure's size as the kernel wants it told.
pub(super) const fn size_u32<T>() -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "structures of the ABI are small"
    )]
    let size = size_of::<T>() as u32;
    size
}

fn checked(result: libc::c_int) -> io::Result<u32> {
    u32::try_from(result).map_err(|_negative| io::Error::last_os_error())
}
