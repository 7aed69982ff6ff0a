//! Processes of a run by number and time of start, so that one that died is not taken for a later one with its number.
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

/// The host's boot: another one has none of this one's processes and bindings.
pub(super) fn boot(root: &SysRoot) -> iommu::error::Result<String> {
    root.read_text("proc/sys/kernel/random/boot_id")
}

/// Which process `pid` is at the moment; `None` where there is none.
///
/// # Errors
/// `sysfs-io`; `EINVAL` for a file that is not as proc(5) has it.
pub(super) fn identify(root: &SysRoot, pid: u32) -> io::Result<Option<ProcessId>> {
    let stat = root
        .read_text_if_any(format!("proc/{pid}/stat"))
        .map_err(io::Error::other)?;
    let Some(stat) = stat else {
        return Ok(None);
    };
    start_of(&stat)
        .map(|start| Some(ProcessId { pid, start }))
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The time of start in a line of `/proc/PID/stat`, where the name may hold anything.
///
/// *Source:* proc(5), field 22 of `stat`.
fn start_of(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    behind_name.split(' ').nth(22 - 3)?.parse().ok()
}

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
    if identify(root, process.pid)? != Some(process) {
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
    fn time_of_start_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["narrows", "a b", ") 9 (", "\u{e4})"] {
            assert_eq!(start_of(&format!("7 ({name}) {rest}")), Some(4711));
        }
        assert_eq!(start_of("7 (narrows) S 1 2"), None);
        assert_eq!(start_of(""), None);
    }

    #[test]
    fn a_process_is_ended_only_if_it_is_the_one_that_was_meant() {
        let root = SysRoot::default();
        let mut child = Command::new("sleep")
            .arg("600")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let found = identify(&root, child.id()).unwrap().unwrap();
        let other = ProcessId {
            start: found.start + 1,
            ..found
        };
        assert!(!end(&root, other).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        assert!(end(&root, found).unwrap());
        child.wait().unwrap();
        assert!(!end(&root, found).unwrap());
        assert_eq!(identify(&root, child.id()).unwrap(), None);
    }
}
