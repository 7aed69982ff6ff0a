//! Whether the running kernel has a call, asked in a way that changes nothing.

use rustix::{
    io::Result,
    process::getpid,
    thread::{CoreSchedulingScope, core_scheduling_cookie},
};

use super::confine::last_errno;

/// `PR_SET_MDWE`.
///
/// # Errors
/// `EINVAL` where the kernel lacks it.
pub fn mdwe() -> Result<()> {
    /// *Source:* `include/uapi/linux/prctl.h` (Linux 6.12).
    const PR_GET_MDWE: libc::c_int = 66;
    const NONE: libc::c_ulong = 0;
    // SAFETY: reads a property of this process.
    match unsafe { libc::prctl(PR_GET_MDWE, NONE, NONE, NONE, NONE) } {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}

/// `mseal`.
///
/// # Errors
/// `ENOSYS` where the kernel lacks it.
pub fn mseal() -> Result<()> {
    // SAFETY: a range without a byte: nothing is sealed.
    match unsafe { libc::syscall(libc::SYS_mseal, 0_usize, 0_usize, 0_usize) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Core scheduling.
///
/// # Errors
/// `EINVAL` where the kernel lacks it, `ENODEV` where no core has a second thread.
pub fn core_scheduling() -> Result<()> {
    core_scheduling_cookie(getpid(), CoreSchedulingScope::Thread).map(drop)
}

/// Whether no core of this host runs two threads: then who shares one needs no telling.
#[must_use]
pub fn has_single_cores() -> bool {
    const FILE: &str = "/sys/devices/system/cpu/smt/active";
    // What cannot be read says nothing.
    std::fs::read_to_string(FILE).is_ok_and(|text| text.trim() == "0")
}
