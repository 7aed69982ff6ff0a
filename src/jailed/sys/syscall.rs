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
    /// `EINVAL`.
    pub const INVALID: Self = Self(22);
    /// `ESRCH`.
    pub const NO_PROCESS: Self = Self(3);
    /// `E2BIG`.
    pub const TOO_BIG: Self = Self(7);
    /// `ENOSYS`.
    pub const NO_CALL: Self = Self(38);
    /// `EOPNOTSUPP`.
    pub const NOT_SUPPORTED: Self = Self(95);
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
    /// `restart_syscall`
    pub const RESTART_SYSCALL: usize = 219;
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
    /// `madvise`
    pub const MADVISE: usize = 28;
    /// `mprotect`
    pub const MPROTECT: usize = 10;
    /// `prctl`
    pub const PRCTL: usize = 157;
    /// `setrlimit`
    pub const SETRLIMIT: usize = 160;
    /// `seccomp`
    pub const SECCOMP: usize = 317;
    /// `landlock_create_ruleset`
    pub const LANDLOCK_CREATE_RULESET: usize = 444;
    /// `landlock_restrict_self`
    pub const LANDLOCK_RESTRICT_SELF: usize = 446;
    /// `mseal`
    pub const MSEAL: usize = 462;
}

/// Flags of calls, in the combinations that V and D use and their filters allow.
pub mod flag {
    /// `PROT_READ`
    pub const PROT_READ: usize = 1;
    /// `PROT_READ | PROT_WRITE`
    pub const PROT_READ_WRITE: usize = 3;
    /// `MAP_SHARED`: where the kernel likes.
    pub const MAP_SHARED: usize = 1;
    /// `MAP_SHARED | MAP_FIXED`: in place of a reservation.
    pub const MAP_PLACED: usize = 0x11;
    /// `MAP_SHARED | MAP_FIXED | MAP_POPULATE`: in place of a reservation, and present at once.
    pub const MAP_PRESENT: usize = 0x8011;
    /// `MAP_SHARED | MAP_FIXED_NOREPLACE`: at a fixed address where nothing is yet.
    pub const MAP_WINDOW: usize = 0x10_0001;
    /// `MAP_PRIVATE | MAP_ANONYMOUS`: fresh memory.
    pub const MAP_FRESH: usize = 0x22;
    /// `MADV_DONTNEED`: memory without a file is zeroes again, and takes none.
    pub const MADV_DONTNEED: usize = 4;
    /// `MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE`: a reservation of addresses.
    pub const MAP_RESERVED: usize = 0x4022;
    /// `CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM`, as POSIX threads have it.
    pub const CLONE_THREAD: usize = 0x5_0F00;
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
