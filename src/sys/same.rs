//! Whether descriptors of two processes are the same opened file.
//!
//! On entry: `CAP_SYS_PTRACE`, or both processes are this user's.

use std::io;

/// Whether both lead to one opened file: not only to the same inode, which an eventfd shares with all others. Each is a
/// process and the number of a descriptor there. `None` where the kernel cannot tell (no `CONFIG_KCMP`).
///
/// # Errors
/// The errno of `kcmp`: `EPERM` without privilege, `ESRCH` for a process that is gone, `EBADF` for a number that is not open.
pub fn is_same_file(one: (u32, u32), other: (u32, u32)) -> io::Result<Option<bool>> {
    /// *Source:* `include/uapi/linux/kcmp.h` (Linux 6.12).
    const KCMP_FILE: libc::c_long = 0;
    let number = libc::c_long::from;
    // SAFETY: five numbers; nothing is written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            number(one.0),
            number(other.0),
            KCMP_FILE,
            number(one.1),
            number(other.1),
        )
    };
    match result {
        0 => Ok(Some(true)),
        1.. => Ok(Some(false)),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(None),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::is_same_file;

    #[test]
    fn a_duplicate_is_the_same_file_and_another_eventfd_is_not() {
        let made = || eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let (one, other) = (made(), made());
        let copy = one.try_clone().unwrap();
        let own = std::process::id();
        let number = |fd: &std::os::fd::OwnedFd| (own, fd.as_raw_fd().unsigned_abs());
        let same = |a, b| is_same_file(number(a), number(b)).unwrap();
        // A kernel without the call says so of all.
        let is_there = same(&one, &one).is_some();
        assert_eq!(same(&one, &copy), is_there.then_some(true));
        assert_eq!(same(&one, &other), is_there.then_some(false));
        let errno = is_same_file(number(&one), (own, 1 << 20)).unwrap_or(None);
        assert_eq!(errno, None, "what is not open is not the same");
    }
}
