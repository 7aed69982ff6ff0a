//! Splitting the process in two, while it has one thread.

use std::{fs, io};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid},
};

/// Which of the two this is.
#[derive(Debug)]
pub enum Side {
    /// The process that was there before.
    Parent(Child),
    /// The new one: a copy with the same descriptors.
    Child,
}

/// The new process, for its parent.
#[derive(Debug)]
pub struct Child(Pid);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this status.
    Status(u8),
    /// By this signal.
    Signal(i32),
}

/// Splits the process.
///
/// # Errors
/// The errno of `fork`; `EBUSY` where the process has more than one thread, which a copy would not have.
pub fn fork() -> io::Result<Side> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: there is one thread, so no lock is held by a thread that the copy would not have.
    match unsafe { libc::fork() } {
        0 => Ok(Side::Child),
        pid => Pid::from_raw(pid)
            .filter(|_| pid > 0)
            .map(|pid| Side::Parent(Child(pid)))
            .ok_or_else(io::Error::last_os_error),
    }
}

impl Child {
    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.0
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// The errno of `pidfd_open` or `poll`.
    pub fn runs(&self) -> io::Result<bool> {
        let pidfd = pidfd_open(self.0, PidfdFlags::empty())?;
        let mut waits = [PollFd::new(&pidfd, PollFlags::IN)];
        Ok(poll(&mut waits, Some(&Timespec::default()))? == 0)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The errno of `waitpid`.
    pub fn wait(self) -> io::Result<Ended> {
        loop {
            match waitpid(Some(self.0), WaitOptions::empty()) {
                Ok(Some((_, status))) => {
                    if let Some(signal) = status.terminating_signal() {
                        return Ok(Ended::Signal(signal));
                    }
                    if let Some(code) = status.exit_status() {
                        // The kernel keeps eight bits of it.
                        return Ok(Ended::Status(u8::try_from(code).unwrap_or(u8::MAX)));
                    }
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
