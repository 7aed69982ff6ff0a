//! Waiting for descriptors.
//!
//! *Source:* `include/uapi/asm-generic/poll.h, struct pollfd (v6.12)`.

use super::syscall::{Errno, Fd, Timespec, call, number};

/// The longest list to wait for.
pub const MAX_WAITED: usize = 64;

/// A descriptor to wait for, and whether it became readable or failed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    fd: i32,
    events: i16,
    returned: i16,
}

const _: () = assert!(size_of::<Waited>() == 8);

impl Waited {
    /// Nothing to wait for.
    pub const NOTHING: Self = Self {
        fd: -1,
        events: 0,
        returned: 0,
    };

    /// Waits for `fd` to be readable.
    #[must_use]
    pub fn readable(fd: Fd) -> Self {
        const POLLIN: i16 = 1;
        i32::try_from(fd.number()).map_or(Self::NOTHING, |fd| Self {
            fd,
            events: POLLIN,
            returned: 0,
        })
    }

    /// Whether something happened to it: readable, closed, failed.
    #[must_use]
    pub const fn has_fired(&self) -> bool {
        self.returned != 0
    }

    /// Whether there is something to read.
    #[must_use]
    pub const fn is_readable(&self) -> bool {
        self.returned & 1 != 0
    }
}

/// Waits until one of `waited` has fired, or for `timeout_ms`; how many have.
///
/// # Errors
/// The errno of `ppoll`.
pub fn wait(waited: &mut [Waited], timeout_ms: Option<u32>) -> Result<usize, Errno> {
    let mut limit = timeout_ms.map(Timespec::from_millis);
    let limit_address = limit.as_mut().map_or(0, |l| core::ptr::from_mut(l).addr());
    let args = [
        waited.as_mut_ptr().addr(),
        waited.len(),
        limit_address,
        0,
        0,
        0,
    ];
    // SAFETY: 1. the list and the time are borrowed for the length of the call, which writes both; no signal mask is given.
    unsafe { call(number::PPOLL, args) }
}
