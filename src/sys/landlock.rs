//! Landlock without a rule: nothing can be opened, made or connected by path any more.
//!
//! On entry of [`deny_all`]: `no_new_privs` is set. On exit: the calling thread is under the widest rule set that the kernel
//! knows, for good.
//!
//! *Source:* `include/uapi/linux/landlock.h` (Linux 6.12).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use jailed::manifest::Ruleset;
use rustix::io::{Errno, Result};

use super::confine::last_errno;

const CREATE_RULESET_VERSION: u32 = 1;

/// The version that the kernel has.
///
/// # Errors
/// `ENOSYS` where it is not built in, `EOPNOTSUPP` where it is switched off.
pub fn version() -> Result<u32> {
    let no_attributes = std::ptr::null::<Ruleset>();
    // SAFETY: asks for a number; no structure is read.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            no_attributes,
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).map_err(|_negative| last_errno())
}

/// Refuses to the calling thread everything that the kernel can refuse, and gives the kernel's version. It has set
/// `no_new_privs`.
///
/// # Errors
/// The errno of the call that failed; `ENOSYS` and `EOPNOTSUPP` as [`version`].
pub fn deny_all() -> Result<u32> {
    let version = version()?;
    let widest = Ruleset::widest(|ruleset| match create(ruleset) {
        Ok(_closed) => Ok(true),
        // A word of a newer kernel, or a bit of one.
        Err(Errno::INVAL | Errno::TOOBIG) => Ok(false),
        Err(errno) => Err(errno),
    })?;
    let ruleset = create(&widest)?;
    // SAFETY: two numbers; the descriptor is open.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) } {
        0 => Ok(version),
        _ => Err(last_errno()),
    }
}

fn create(ruleset: &Ruleset) -> Result<OwnedFd> {
    // SAFETY: the structure is as long as is said, and outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(ruleset),
            size_of::<Ruleset>(),
            0_u32,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made it for this process.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Ok(_) => Err(last_errno()),
        Err(_no_descriptor) => Err(Errno::BADF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever version this kernel has, a thread under all of it opens nothing; without Landlock that is said.
    #[test]
    fn a_thread_is_refused_what_this_kernel_can_refuse() {
        let opened = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            let denied = deny_all();
            (denied, std::fs::read_dir("/").map(drop))
        });
        let (denied, opened) = opened.join().unwrap();
        match denied {
            Ok(denied) => {
                assert_eq!(Ok(denied), version());
                let errno = opened.unwrap_err().raw_os_error();
                assert_eq!(errno, Some(libc::EACCES));
            }
            Err(errno) => assert!(
                matches!(errno, Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM),
                "{errno}"
            ),
        }
    }
}
