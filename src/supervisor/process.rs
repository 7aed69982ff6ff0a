//! V and D as the keeper sees them: children that end.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::ExitStatus,
};

use iommu::bdf::Bdf;
use rustix::event::{PollFd, PollFlags, poll};

use super::{
    ending::{LastWords, Role, RunEnd},
    link::{Ask, Heard, Link, Next, Seen, Stopped},
    violation::{Call, Found, SIGNAL},
};
use crate::sys::{child::Child, map::CounterView};

/// V or D, running.
#[derive(Debug)]
pub(super) struct Process {
    /// Which.
    pub(super) role: Role,
    child: Child,
}

impl Process {
    /// Takes over a child that was just started.
    pub(super) const fn new(role: Role, child: Child) -> Self {
        Self { role, child }
    }

    /// Its process id.
    #[must_use]
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Readable when it has ended.
    #[must_use]
    pub(super) fn pidfd(&self) -> &OwnedFd {
        self.child.pidfd()
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// The errno of `waitpid`.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Ends it at once and waits until the kernel has taken it apart, with its descriptors and mappings.
    ///
    /// # Errors
    /// The errno of `kill` or `waitpid`.
    pub(super) fn stop(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }
}

/// A guest that runs, and who watches it.
pub(super) struct Life<'a> {
    /// V.
    pub(super) vcpu: &'a mut Process,
    /// D.
    pub(super) device: &'a mut Process,
    /// What V and D leave behind.
    pub(super) counters: &'a CounterView,
    /// The supervisor.
    pub(super) link: &'a Link,
    /// The guest's functions, by the indices of D and of the plan.
    pub(super) functions: &'a [Bdf],
}

impl Life<'_> {
    /// Waits until the guest has ended in any way; `on_statistics` runs whenever the operator asks for the figures.
    ///
    /// # Errors
    /// The errno of `poll` or of waiting for a child; what the supervisor cannot do.
    pub(super) fn until_end(&mut self, mut on_statistics: impl FnMut(Seen)) -> io::Result<RunEnd> {
        loop {
            self.until_word()?;
            // D first: when a device fails, D says so, and V may have noticed only that D has gone.
            for process in [&mut *self.device, &mut *self.vcpu] {
                if let Some(status) = process.ended()? {
                    let last = LastWords {
                        exit: self.counters.last_exit(),
                        failure: self.counters.device_failure(),
                        functions: self.functions,
                    };
                    let end = end_of(process.role, status, &last);
                    return Ok(match forbidden(process, status, self.link)? {
                        None => end,
                        call => RunEnd::Killed {
                            role: process.role,
                            signal: SIGNAL,
                            call,
                        },
                    });
                }
            }
            match self.link.next()? {
                Next::Nothing => {}
                Next::Gone => return Ok(RunEnd::Abandoned),
                Next::Word(Heard::Stop) => return Ok(RunEnd::Stopped),
                Next::Word(Heard::Statistics { seen }) => on_statistics(seen),
                Next::Word(Heard::Fault { stopped }) => return self.stopped(&stopped),
                Next::Word(Heard::Failed { doing, why }) => {
                    return Err(io::Error::other(format!("{doing}: {why}")));
                }
                Next::Word(
                    word @ (Heard::Guarded { .. } | Heard::Rest { .. } | Heard::Call { .. }),
                ) => {
                    return Err(out_of_turn(&word));
                }
            }
        }
    }

    /// Waits until V or D has ended, or the supervisor has something to say.
    fn until_word(&self) -> io::Result<()> {
        let mut waits = [
            PollFd::new(self.link, PollFlags::IN),
            PollFd::new(self.vcpu.pidfd(), PollFlags::IN),
            PollFd::new(self.device.pidfd(), PollFlags::IN),
        ];
        match poll(&mut waits, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The end for a request that the IOMMU stopped.
    ///
    /// # Errors
    /// Where it is of no function of the guest.
    pub(super) fn stopped(&self, stopped: &Stopped) -> io::Result<RunEnd> {
        let bdf = self.functions.get(stopped.function).copied();
        Ok(RunEnd::DmaFault {
            bdf: bdf.ok_or_else(|| io::Error::other("a fault of no device of the guest"))?,
            access: stopped.access,
            address: stopped.address,
            reason: stopped.reason.clone(),
        })
    }
}

/// A word of the supervisor that answers nothing.
pub(super) fn out_of_turn(word: &Heard) -> io::Error {
    io::Error::other(format!("the supervisor says {word:?} out of turn"))
}

/// The call that a process was killed for, where it was killed for one.
///
/// # Errors
/// As [`Link::ask`].
pub(super) fn forbidden(
    process: &Process,
    status: ExitStatus,
    link: &Link,
) -> io::Result<Option<Call>> {
    if status.signal() != Some(SIGNAL) {
        return Ok(None);
    }
    let pid = process.pid();
    let found = link.ask(Ask::Call { pid }, |word| match word {
        Heard::Call { found } => Some(found),
        // What else is said now comes too late: the guest is over.
        Heard::Stop
        | Heard::Statistics { .. }
        | Heard::Fault { .. }
        | Heard::Guarded { .. }
        | Heard::Rest { .. }
        | Heard::Failed { .. } => None,
    })?;
    Ok(Some(found.unwrap_or(Found::Untold).into()))
}

fn end_of(role: Role, status: ExitStatus, last: &LastWords<'_>) -> RunEnd {
    match (status.signal(), status.code().map(u8::try_from)) {
        (Some(signal), _) => RunEnd::Killed {
            role,
            signal,
            call: None,
        },
        (None, Some(Ok(code))) => RunEnd::from_status(role, code, last),
        (None, _) => RunEnd::Broken {
            role,
            status: u8::MAX,
        },
    }
}
