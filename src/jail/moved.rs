//! A process of the supervisor's side that is in the guest's cgroup meanwhile.

use std::{os::fd::OwnedFd, path::PathBuf};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::folder::{Failed, errno, write};

/// A process that was moved into `supervisor`.
#[derive(Debug)]
pub(super) struct Moved {
    pid: u32,
    /// Readable when it has ended: then its number says nothing any more.
    pidfd: OwnedFd,
    /// Where it came from.
    home: PathBuf,
}

impl Moved {
    /// The process that has the number `pid` now.
    pub(super) fn new(pid: u32, home: PathBuf) -> Result<Self, Failed> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let opened = number
            .ok_or(Errno::SRCH)
            .and_then(|number| pidfd_open(number, PidfdFlags::empty()));
        let pidfd = opened.map_err(|errno| Failed {
            path: PathBuf::from(format!("/proc/{pid}")),
            doing: "opening the process".to_owned(),
            error: errno.into(),
        })?;
        Ok(Self { pid, pidfd, home })
    }

    /// Moves the process back, unless it has ended. The kernel takes only a number here: it is looked at right before, as it
    /// takes all numbers in turn until one comes again.
    pub(super) fn go_home(&self) -> Result<(), Failed> {
        let mut waits = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let has_ended = poll(&mut waits, Some(&Timespec::default())).map_err(|errno| Failed {
            path: PathBuf::from(format!("/proc/{}", self.pid)),
            doing: "looking whether it has ended".to_owned(),
            error: errno.into(),
        })?;
        if has_ended > 0 {
            return Ok(());
        }
        match write(&self.home.join("cgroup.procs"), &self.pid.to_string()) {
            // It has ended just now.
            Err(failed) if errno(&failed) == Some(Errno::SRCH) => Ok(()),
            written => written,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{env::temp_dir, fs};

    use super::*;

    #[test]
    fn a_number_is_moved_back_only_while_it_is_the_process_that_was_moved() {
        let home = temp_dir().join(format!("narrows-moved-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("cgroup.procs"), "").unwrap();
        let read = || fs::read_to_string(home.join("cgroup.procs")).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let moved = Moved::new(child.id(), home.clone()).unwrap();
        moved.go_home().unwrap();
        assert_eq!(read(), child.id().to_string());
        // From here on the number may be anybody's.
        fs::write(home.join("cgroup.procs"), "").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        moved.go_home().unwrap();
        assert_eq!(read(), "");
    }
}
