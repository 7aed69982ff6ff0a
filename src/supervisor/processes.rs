//! Ending what is left of a run's processes.
//!
//! On exit of [`end`]: the process is gone, with its descriptors and mappings.

use std::{
    io,
    time::{Duration, Instant},
};

use iommu::sysfs::SysRoot;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::state::ProcessId;

/// How long the kernel may take to take a killed process apart.
const ENDING: Duration = Duration::from_secs(10);

/// Kills the process, if it is there still, and waits until it is gone; whether it was there.
///
/// # Errors
/// The errno of `pidfd_open`, `pidfd_send_signal` or `poll`; `ETIMEDOUT` where it does not go.
pub(super) fn end(root: &SysRoot, process: ProcessId) -> io::Result<bool> {
    let number = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let Some(pid) = number else {
        return Ok(false);
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    // Compared now that the number cannot be given to another one unnoticed.
    if ProcessId::of(root, process.pid)? != Some(process) {
        return Ok(false);
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => return Err(errno.into()),
    }
    let deadline = Instant::now() + ENDING;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut waits = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut waits, Some(&timeout)) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_ended_only_if_it_is_the_one_that_was_meant() {
        let root = SysRoot::default();
        let mut child = Command::new("sleep")
            .arg("600")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let found = ProcessId::of(&root, child.id()).unwrap().unwrap();
        let other = ProcessId {
            start: found.start + 1,
            ..found
        };
        assert!(!end(&root, other).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        assert!(end(&root, found).unwrap());
        child.wait().unwrap();
        assert!(!end(&root, found).unwrap());
        assert_eq!(ProcessId::of(&root, child.id()).unwrap(), None);
    }
}
