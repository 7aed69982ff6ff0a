//! The system calls of V and D, by number, and what they return.
//!
//! *Source:* `arch/x86/entry/syscalls/syscall_64.tbl` (v6.12).

use core::arch::asm;

/// A file descriptor by number. The supervisor fixed the numbers; nothing here opens a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fd(u32);

impl Fd {
    /// The descriptor `number`.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// The errno of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u32);

impl Errno {
    /// No error: for a fault that no system call reported.
    pub const NONE: Self = Self(0);
    /// `EINTR`.
    pub const INTERRUPTED: Self = Self(4);
    /// `EBADF`.
    pub const BAD_FD: Self = Self(9);
    /// `ENOSPC`.
    pub const NO_SPACE: Self = Self(28);
    /// `EAGAIN`.
    pub const AGAIN: Self = Self(11);
    /// `ENOMEM`.
    pub const NO_MEMORY: Self = Self(12);
    /// `ETIMEDOUT`.
    pub const TIMED_OUT: Self = Self(110);
}

/// A span of time as the kernel takes it.
///
/// *Source:* `include/uapi/linux/time_types.h, struct __kernel_timespec (v6.12)`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

const _: () = assert!(size_of::<Timespec>() == 16);

impl Timespec {
    /// A span of this many milliseconds.
    #[must_use]
    pub fn from_millis(timeout_ms: u32) -> Self {
        Self {
            seconds: i64::from(timeout_ms / 1000),
            nanoseconds: i64::from(timeout_ms % 1000) * 1_000_000,
        }
    }
}

/// System call numbers.
pub mod number {
    /// `write`
    pub const WRITE: usize = 1;
    /// `read`
    pub const READ: usize = 0;
    /// `close`
    pub const CLOSE: usize = 3;
    /// `mmap`
    pub const MMAP: usize = 9;
    /// `munmap`
    pub const MUNMAP: usize = 11;
    /// `ioctl`
    pub const IOCTL: usize = 16;
    /// `pread64`
    pub const PREAD64: usize = 17;
    /// `pwrite64`
    pub const PWRITE64: usize = 18;
    /// `exit_group`
    pub const EXIT_GROUP: usize = 231;
    /// `futex`
    pub const FUTEX: usize = 202;
    /// `ppoll`
    pub const PPOLL: usize = 271;
    /// `clone`
    pub const CLONE: usize = 56;
    /// `close_range`
    pub const CLOSE_RANGE: usize = 436;
    /// `fcntl`
    pub const FCNTL: usize = 72;
    /// `fstat`
    pub const FSTAT: usize = 5;
}

/// Makes a system call with up to six arguments.
///
/// # Errors
/// The errno the kernel returned.
///
/// # Safety
/// 1. The arguments are what the call `number` takes, and every pointer among them is valid for what it does.
#[inline(always)]
pub unsafe fn call(number: usize, args: [usize; 6]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: 1. is the caller's; the kernel clobbers rcx and r11 and nothing else.
    unsafe {
        asm!("syscall", inlateout("rax") number.cast_signed() => result, in("rdi") args[0], in("rsi") args[1],
             in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // The kernel returns -errno, with errno in 1..4096.
    match u32::try_from(result.wrapping_neg()) {
        Ok(errno @ 1..4096) => Err(Errno(errno)),
        _ => Ok(result.cast_unsigned()),
    }
}

/// Ends all threads of the process with `status`.
pub fn exit_group(status: u8) -> ! {
    loop {
        // SAFETY: 1. the call takes a number.
        let returned = unsafe { call(number::EXIT_GROUP, [usize::from(status), 0, 0, 0, 0, 0]) };
        // It does not return; if a filter made it, there is nothing left to run.
        core::hint::black_box(returned.is_err());
    }
}

/// Writes `bytes` to `fd`: how many were taken.
///
/// # Errors
/// The errno, `EAGAIN` among them for a non-blocking descriptor.
pub fn write(fd: Fd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: 1. the slice is valid for reads of its length.
    unsafe {
        call(
            number::WRITE,
            [
                fd.number() as usize,
                bytes.as_ptr().addr(),
                bytes.len(),
                0,
                0,
                0,
            ],
        )
    }
}
