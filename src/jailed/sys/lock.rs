//! The calls by which a process takes rights away from itself; none gives them back.
//!
//! On entry of each: what `lock` says of the process at that step. On exit: less, by what the call is named for.

use super::landlock::Ruleset;
use super::memory::close_range;
use super::syscall::{Errno, Fd, call, number};

/// One instruction of the kernel's packet filter machine.
///
/// *Source:* `include/uapi/linux/filter.h, struct sock_filter (v6.12)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// How many instructions to skip where the test holds.
    pub if_true: u8,
    /// How many to skip where it does not.
    pub if_false: u8,
    /// What it does that with.
    pub operand: u32,
}

const _: () = assert!(size_of::<Instruction>() == 8);

impl Instruction {
    /// Room for one.
    pub const NOTHING: Self = Self::new(0, 0, 0, 0);

    /// One instruction.
    #[must_use]
    pub const fn new(code: u16, if_true: u8, if_false: u8, operand: u32) -> Self {
        Self {
            code,
            if_true,
            if_false,
            operand,
        }
    }
}

/// Gives up every gain of privilege by `exec`; the kernel asks for this before a filter and before Landlock.
///
/// # Errors
/// The errno.
pub fn forbid_new_privileges() -> Result<(), Errno> {
    const PR_SET_NO_NEW_PRIVS: usize = 38;
    prctl(PR_SET_NO_NEW_PRIVS, 1)
}

/// Keeps processes of the same user from tracing or reading this one, and its memory out of dumps.
///
/// # Errors
/// The errno.
pub fn forbid_dumps() -> Result<(), Errno> {
    const PR_SET_DUMPABLE: usize = 4;
    prctl(PR_SET_DUMPABLE, 0)
}

/// Keeps memory that was ever writable from becoming executable.
///
/// # Errors
/// `EINVAL` from a kernel before 6.3, which does not know it.
pub fn forbid_exec_gain() -> Result<(), Errno> {
    const PR_SET_MDWE: usize = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: usize = 1;
    prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN)
}

fn prctl(option: usize, value: usize) -> Result<(), Errno> {
    // SAFETY: 1. numbers; each option above restricts this process and nothing else.
    unsafe { call(number::PRCTL, [option, value, 0, 0, 0, 0]) }.map(drop)
}

/// Lets Landlock deny this process all that this kernel's version of it can deny: no rule allows anything. Returns the
/// version.
///
/// # Errors
/// `ENOSYS` and `EOPNOTSUPP` where there is no Landlock.
pub fn landlock() -> Result<u32, Errno> {
    const VERSION: usize = 1;
    // SAFETY: 1. asks for a number; no structure is given.
    let version = unsafe { call(number::LANDLOCK_CREATE_RULESET, [0, 0, VERSION, 0, 0, 0]) }?;
    let ruleset = Ruleset::widest(|ruleset| match create(ruleset) {
        Ok(fd) => close_range(fd.number(), fd.number()).map(|()| true),
        // A word of a newer kernel, or a bit of one.
        Err(Errno::INVALID | Errno::TOO_BIG) => Ok(false),
        Err(errno) => Err(errno),
    })?;
    let fd = create(&ruleset)?;
    // SAFETY: 1. numbers; it restricts this process and nothing else.
    let restricted = unsafe {
        call(
            number::LANDLOCK_RESTRICT_SELF,
            [fd.number() as usize, 0, 0, 0, 0, 0],
        )
    };
    close_range(fd.number(), fd.number())?;
    restricted?;
    Ok(u32::try_from(version).unwrap_or(u32::MAX))
}

fn create(ruleset: &Ruleset) -> Result<Fd, Errno> {
    let args = [
        core::ptr::from_ref(ruleset).addr(),
        size_of::<Ruleset>(),
        0,
        0,
        0,
        0,
    ];
    // SAFETY: 1. the structure is as long as is said, and borrowed for the length of the call, which reads it.
    let fd = unsafe { call(number::LANDLOCK_CREATE_RULESET, args) }?;
    Ok(Fd::new(u32::try_from(fd).unwrap_or(u32::MAX)))
}

/// Whether mappings can be sealed here.
///
/// # Errors
/// `ENOSYS` from a kernel before 6.10.
pub fn can_seal() -> Result<(), Errno> {
    // SAFETY: 1. an empty range.
    unsafe { call(number::MSEAL, [0, 0, 0, 0, 0, 0]) }.map(drop)
}

/// Makes the mappings of a range unchangeable: no other protection, nothing else in their place. Where the kernel cannot,
/// [`can_seal`] has said so, and the range stays as it is.
///
/// # Errors
/// The errno; `ENOMEM` for a range with a hole.
pub(super) fn seal(start: usize, len_bytes: usize) -> Result<(), Errno> {
    #[cfg(feature = "breakout")]
    if UNSEALED.load(core::sync::atomic::Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: 1. numbers; it keeps what is mapped as it is.
    match unsafe { call(number::MSEAL, [start, len_bytes, 0, 0, 0, 0]) } {
        Ok(_) | Err(Errno::NO_CALL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Whether the lab leaves this layer away.
#[cfg(feature = "breakout")]
static UNSEALED: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);

/// Seals nothing from here on: for the lab, which tries what becomes without this layer.
#[cfg(feature = "breakout")]
pub fn leave_unsealed() {
    UNSEALED.store(true, core::sync::atomic::Ordering::Relaxed);
}

/// Sets the soft and the hard limit of a resource: never to rise again.
///
/// # Errors
/// The errno.
pub fn limit(resource: u32, value: u64) -> Result<(), Errno> {
    let limit = [value, value];
    let args = [resource as usize, limit.as_ptr().addr(), 0, 0, 0, 0];
    // SAFETY: 1. `struct rlimit` are two words of 64 bits, borrowed for the length of the call, which reads them.
    unsafe { call(number::SETRLIMIT, args) }.map(drop)
}

/// `struct sock_fprog`
#[repr(C)]
struct FilterProgram {
    len: u16,
    instructions: *const Instruction,
}

/// Puts a filter on the process, all threads of it at once. Filters add up: the sternest verdict counts.
///
/// # Errors
/// The errno; `EINVAL` for a program that the kernel does not take, `ESRCH` where a thread has another filter.
pub fn install(program: &[Instruction]) -> Result<(), Errno> {
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    const SECCOMP_FILTER_FLAG_TSYNC: usize = 1;
    let filter = FilterProgram {
        len: u16::try_from(program.len()).map_err(|_long| Errno::INVALID)?,
        instructions: program.as_ptr(),
    };
    let args = [
        SECCOMP_SET_MODE_FILTER,
        SECCOMP_FILTER_FLAG_TSYNC,
        core::ptr::from_ref(&filter).addr(),
        0,
        0,
        0,
    ];
    // SAFETY: 1. the structure and its instructions are borrowed for the length of the call, which reads them.
    match unsafe { call(number::SECCOMP, args) }? {
        0 => Ok(()),
        // The id of a thread whose filters are not ours.
        _ => Err(Errno::NO_PROCESS),
    }
}

#[cfg(test)]
#[path = "lock_test.rs"]
mod lock_test;
