//! Starting V and D: a fresh program with exactly the descriptors it is meant to have.

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

/// Starts `program` with descriptor `first + i` being `fds[i]`, `/dev/null` as 0, 1 and 2, an empty environment,
/// `/` as its folder, and a SIGKILL when the calling thread's process ends.
///
/// Every other descriptor of this process must be close-on-exec; all that Rust's standard library and `rustix` open
/// here are, and V and D check their list again.
///
/// # Errors
/// The errno of `fork`, of a descriptor's duplication or of `exec`.
pub fn exec_with(program: &Path, first: RawFd, fds: &[BorrowedFd<'_>]) -> io::Result<Child> {
    let sources: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let count = RawFd::try_from(sources.len()).map_err(io::Error::other)?;
    // Room above every source and every target, so that no duplication overwrites a source not yet used.
    let above = sources
        .iter()
        .copied()
        .max()
        .unwrap_or(0)
        .max(first + count)
        + 1;
    let mut parked = vec![-1; sources.len()];
    // SAFETY: `getpid` has no preconditions.
    let parent = unsafe { libc::getpid() };

    let mut command = Command::new(program);
    command
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let in_child = move || {
        for (park, source) in parked.iter_mut().zip(&sources) {
            *park = duplicate_above(*source, above)?;
        }
        for (park, target) in parked.iter().zip(first..) {
            // SAFETY: both are numbers; the target's earlier meaning in this child is not needed any more.
            if unsafe { libc::dup2(*park, target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: sets a property of this process alone.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `getppid` has no preconditions.
        let is_orphan = unsafe { libc::getppid() } != parent;
        if is_orphan {
            // The supervisor died before the signal was armed.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the closure allocates nothing and makes only async-signal-safe calls on numbers prepared before.
    unsafe { command.pre_exec(in_child) };
    command.spawn()
}

fn duplicate_above(source: RawFd, above: RawFd) -> io::Result<RawFd> {
    // SAFETY: duplicating a number; close-on-exec keeps the copy from surviving the exec.
    let fd = unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, above) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}
