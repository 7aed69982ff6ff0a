//! The supervisor S while a guest runs: the console's bytes, the kernel log, the operator's signals.
//!
//! On entry: the keeper is forked and begins to build the guest. When the keeper says that all is built, S gives up
//! everything but the descriptors it watches. On exit: the keeper is gone, and its status is ours.
//!
//! Everything here may be hostile: the guest writes the console, and whoever has a device causes lines of the kernel log.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    console::{Console, Typed},
    dma_faults::DmaFaults,
    link::{Ask, Heard, Link, Next},
    log::Log,
    violation::Violations,
};
use crate::error::Report;
use crate::jail::seccomp::SupervisorFds;
use crate::sys::signals::{Asked, Signals};

/// What the supervisor watches.
pub(super) struct Watch<'a> {
    /// The console.
    pub(super) console: Console,
    /// The kernel log.
    pub(super) faults: DmaFaults,
    /// What filters of system calls have killed.
    pub(super) violations: Violations,
    /// The operator.
    pub(super) signals: Signals,
    /// The keeper.
    pub(super) link: Link,
    /// Where lines go.
    pub(super) log: &'a Log,
}

/// What is ready, by [`Watch::wait`].
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    output: bool,
    input: bool,
}

impl Watch<'_> {
    /// Watches until the keeper is gone; the status that it told before, if it did. `guard` gives up what is not needed while
    /// the guest runs, and tells the version of Landlock that is in force then.
    ///
    /// # Errors
    /// The errno of `poll` or of the link: then the keeper notices that we are gone, and ends the guest.
    pub(super) fn until_keeper_is_gone(
        mut self,
        guard: impl FnOnce(&Self, u32) -> Result<u32, Report>,
    ) -> io::Result<Option<u8>> {
        let (mut guard, mut landlock) = (Some(guard), 0);
        loop {
            let ready = self.wait()?;
            if ready.output {
                self.console.copy_output();
            }
            self.console.flush_input();
            if ready.input && self.console.copy_input() == Typed::Stop {
                self.link.say(&Heard::Stop)?;
            }
            if let Some(error) = self.console.take_failure() {
                self.log
                    .say(&format!("the console takes nothing any more: {error}"));
            }
            self.look()?;
            self.violations.read();
            while let Some(asked) = self.signals.next()? {
                let seen = self.faults.seen();
                self.link.say(&match asked {
                    Asked::Stop => Heard::Stop,
                    Asked::Statistics => Heard::Statistics { seen },
                })?;
            }
            match self.link.next()? {
                Next::Nothing => {}
                Next::Gone => return Ok(None),
                Next::Word(Ask::Call { pid }) => {
                    let found = self.violations.look(pid);
                    self.link.say(&Heard::Call { found })?;
                }
                Next::Word(Ask::End { status }) => return Ok(Some(status)),
                Next::Word(Ask::Guard { id }) => {
                    // At a guest's reboot it is asked again, and has nothing left to give up.
                    let guarded = guard.take().map_or(Ok(landlock), |guard| guard(&self, id));
                    self.link.say(&match guarded {
                        Ok(version) => {
                            landlock = version;
                            Heard::Guarded { landlock }
                        }
                        Err(report) => Heard::Failed {
                            doing: report.what,
                            why: report.why.join("; "),
                        },
                    })?;
                }
                Next::Word(asked @ (Ask::Rest | Ask::Finish)) => self.rest(asked)?,
            }
        }
    }

    /// All descriptors that are needed from here on, by what is done with them.
    pub(super) fn descriptors(&self) -> SupervisorFds {
        descriptors(
            self.console.descriptors(),
            &self.signals,
            &self.faults,
            &self.violations,
            &self.link,
        )
    }

    /// Looks at the kernel log, and says what has to end the guest.
    fn look(&mut self) -> io::Result<()> {
        match self.faults.look(self.log) {
            Ok(None) => Ok(()),
            Ok(Some(stopped)) => self.link.say(&Heard::Fault { stopped }),
            Err(error) => {
                self.faults.close();
                self.link.say(&failed("reading the kernel log", &error))
            }
        }
    }

    /// Answers with what is left to see.
    fn rest(&mut self, asked: Ask) -> io::Result<()> {
        self.console.copy_rest();
        let late = self.faults.look(self.log).unwrap_or_else(|error| {
            self.faults.close();
            self.log
                .warn(&format!("the kernel log cannot be read any more: {error}"));
            None
        });
        if asked == Ask::Finish {
            self.faults.finish(self.log);
            // What is said from here on is said to a terminal as it was.
            self.console.restore_terminal();
        }
        let seen = self.faults.seen();
        self.link.say(&Heard::Rest { seen, late })
    }

    /// Waits until anything happens; whether the console has output to copy, and input.
    fn wait(&self) -> io::Result<Ready> {
        // While typed bytes wait for a guest that does not read them, look again this often.
        const SOON: Duration = Duration::from_millis(20);
        let mut waits = vec![
            PollFd::new(&self.link, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        let mut wait_for = |fd, events| {
            waits.push(PollFd::from_borrowed_fd(fd, events));
            waits.len() - 1
        };
        let output = self.console.output();
        let output = output.map(|(fd, events)| wait_for(fd, events));
        let input = self.console.input().map(|fd| wait_for(fd, PollFlags::IN));
        if let Some(faults) = self.faults.fd() {
            wait_for(faults, PollFlags::IN);
        }
        if let Some(violations) = self.violations.fd() {
            waits.push(PollFd::from_borrowed_fd(violations, PollFlags::IN));
        }
        let soon = self.console.has_waiting_input().then_some(SOON);
        let patience = soon.into_iter().chain(self.faults.patience()).min();
        let timeout = patience
            .map(Timespec::try_from)
            .transpose()
            .map_err(io::Error::other)?;
        match poll(&mut waits, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |at: Option<usize>| {
            at.and_then(|at| waits.get(at))
                .is_some_and(|w| !w.revents().is_empty())
        };
        Ok(Ready {
            output: is_ready(output),
            input: is_ready(input),
        })
    }
}

/// All descriptors of a watch on these, by what is done with them.
pub(super) fn descriptors(
    console: SupervisorFds,
    signals: &Signals,
    faults: &DmaFaults,
    violations: &Violations,
    link: &Link,
) -> SupervisorFds {
    let mut fds = console;
    fds.read.push(signals.as_fd().as_raw_fd());
    fds.read.extend(faults.fd().map(|fd| fd.as_raw_fd()));
    fds.read.extend(violations.fd().map(|fd| fd.as_raw_fd()));
    // Standard error: what the operator is told.
    fds.write.push(rustix::stdio::stderr().as_raw_fd());
    fds.socket.push(link.as_fd().as_raw_fd());
    fds
}

fn failed(doing: &str, error: &io::Error) -> Heard {
    Heard::Failed {
        doing: doing.to_owned(),
        why: error.to_string(),
    }
}
