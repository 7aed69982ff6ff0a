//! Numbers of the calls that an attacker makes, and of what they return.
//!
//! *Source:* `arch/x86/entry/syscalls/syscall_64.tbl`, `include/uapi/asm-generic/errno-base.h` (v6.12).

macro_rules! numbers {
    ($($name:ident $number:literal,)*) => { $(pub(super) const $name: usize = $number;)* };
}

numbers! {
    READ 0, CLOSE 3, MMAP 9, MPROTECT 10, BRK 12, IOCTL 16, PREAD64 17, PWRITE64 18, MREMAP 25,
    SHMGET 29, DUP 32, NANOSLEEP 35, DUP2 33, GETPID 39, SOCKET 41, CONNECT 42, SENDMSG 46, RECVMSG 47, SOCKETPAIR 53,
    CLONE 56, FORK 57, VFORK 58, EXECVE 59, KILL 62, FCNTL 72, PTRACE 101, SYSLOG 103, SETUID 105,
    SETGROUPS 116, SETRESUID 117, CAPSET 126, RT_SIGQUEUEINFO 129, PERSONALITY 135, SETPRIORITY 141,
    SCHED_SETSCHEDULER 144, MLOCK 149, MLOCKALL 151, PRCTL 157, ARCH_PRCTL 158, CHROOT 161, MOUNT 165, UMOUNT2 166,
    IOPL 172, IOPERM 173, INIT_MODULE 175, SCHED_SETAFFINITY 203, GETDENTS64 217, TIMER_CREATE 222,
    TGKILL 234, MQ_OPEN 240, ADD_KEY 248, KEYCTL 250, OPENAT 257, MKNODAT 259, UNLINKAT 263, FACCESSAT 269,
    UNSHARE 272, DUP3 292, PERF_EVENT_OPEN 298, PRLIMIT64 302, NAME_TO_HANDLE_AT 303, OPEN_BY_HANDLE_AT 304,
    SETNS 308, PROCESS_VM_READV 310, PROCESS_VM_WRITEV 311, FINIT_MODULE 313, MEMFD_CREATE 319, BPF 321,
    EXECVEAT 322, USERFAULTFD 323, PKEY_MPROTECT 329, IO_URING_SETUP 425, OPEN_TREE 428, FSOPEN 430,
    PIDFD_OPEN 434, CLONE3 435, CLOSE_RANGE 436, PIDFD_GETFD 438,
}

/// `EPERM`.
pub(super) const NOT_PERMITTED: u32 = 1;
/// `ENOEXEC`.
pub(super) const NOT_EXECUTABLE: u32 = 8;
/// `EBADF`.
pub(super) const BAD_FD: u32 = 9;
/// `EFAULT`.
pub(super) const FAULT: u32 = 14;
/// `ENOSYS`.
pub(super) const NO_SUCH_CALL: u32 = 38;

/// A folder for `…at` calls: the process's own.
pub(super) const HERE: usize = (-100_isize).cast_unsigned();
/// An argument that is nothing.
pub(super) const NONE: usize = usize::MAX;
