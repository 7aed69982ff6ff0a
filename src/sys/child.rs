//! A child process, waited for and signalled by what cannot come to mean another one.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::ExitStatus,
};

use rustix::{
    io::{Errno, retry_on_intr},
    process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid},
};

/// A child of this process. Dropping it neither ends it nor waits for it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
}

impl Child {
    pub(super) const fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        Self {
            pid,
            pidfd,
            status: None,
        }
    }

    /// A child that does nothing.
    #[cfg(test)]
    #[expect(
        clippy::zombie_processes,
        reason = "it is waited for as what is given back"
    )]
    pub(crate) fn asleep() -> Self {
        use rustix::process::{PidfdFlags, pidfd_open};
        let mut sleep = std::process::Command::new("sleep");
        let child = sleep.arg("600").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        Self::new(pid, pidfd_open(pid, PidfdFlags::empty()).unwrap())
    }

    /// Its process id, as this process has it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Readable when it has ended.
    #[must_use]
    pub const fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// The errno of `waitpid`.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(WaitOptions::NOHANG)
    }

    /// Waits until the kernel has taken it apart, with its descriptors and mappings.
    ///
    /// # Errors
    /// The errno of `waitpid`.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.wait_with(WaitOptions::empty())?
            .ok_or_else(|| io::Error::other("waitpid returned without a status"))
    }

    /// Ends it at once, if it has not ended.
    ///
    /// # Errors
    /// The errno of `pidfd_send_signal`.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn wait_with(&mut self, options: WaitOptions) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let found = retry_on_intr(|| waitpid(Some(self.pid), options))?;
            self.status = found.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
        }
        Ok(self.status)
    }
}
