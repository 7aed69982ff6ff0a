//! The supervisor S while a guest runs: the console's bytes, the kernel log, the operator's signals.
//!
//! On entry: the keeper is forked and begins to build the guest. When the guest has its jail, and none of its devices is
//! touched, the keeper asks for it, and S gives up everything but the descriptors it watches. On exit: the keeper is gone, and
//! its status is ours.
//!
//! Everything here may be hostile: the guest writes the console, and whoever has a device causes lines of the kernel log. So
//! nothing of that is read before S has given everything up.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    console::{Console, Typed},
    dma_faults::DmaFaults,
    link::{Ask, Heard, Link, Next},
    log::Log,
    pace::{Pace, Work},
    violation::Violations,
};
use crate::error::Report;
use crate::jail::seccomp::SupervisorFds;
use crate::sys::{
    signals::{Asked, Signals},
    thrift::Thrift,
};

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
    /// What it can give back.
    pub(super) thrift: Thrift,
    /// What is behind it.
    pub(super) done: Done,
}

/// What the supervisor has done and said so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// It has given up everything that it does not need to watch.
    is_guarded: bool,
    /// It has asked the keeper to end the guest for the operator, which it needs to do once.
    is_stopping: bool,
    /// It has told what ends the guest, which holds for all that is stopped later.
    has_told_fault: bool,
    /// The operator wants figures that are not said yet.
    is_asked: bool,
    pace: Pace,
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
        let mut guard = Some(guard);
        loop {
            let ready = self.wait()?;
            if ready.output {
                self.console.copy_output();
            }
            self.console.flush_input();
            if ready.input && self.console.copy_input() == Typed::Stop {
                self.stop()?;
            }
            if let Some(error) = self.console.take_failure() {
                self.log
                    .say(&format!("the console takes nothing any more: {error}"));
            }
            if self.done.is_guarded {
                self.look()?;
                self.violations.read();
            }
            while let Some(asked) = self.signals.next()? {
                match asked {
                    Asked::Stop => self.stop()?,
                    Asked::Statistics => self.done.is_asked = true,
                }
            }
            if self.done.is_asked && self.done.pace.take(Work::Figures, Instant::now()) {
                let seen = self.faults.seen();
                self.link.offer(&Heard::Statistics { seen })?;
                self.done.is_asked = false;
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
                    let again = || io::Error::other("the keeper has asked for it before");
                    let guarded = guard.take().ok_or_else(again)?(&self, id);
                    self.done.is_guarded = guarded.is_ok();
                    self.link.say(&match guarded {
                        Ok(landlock) => Heard::Guarded { landlock },
                        Err(report) => Heard::Failed {
                            doing: report.what,
                            why: report.why.join("; "),
                        },
                    })?;
                }
                Next::Word(Ask::Settle) => settle(&self.thrift, self.log),
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

    /// Asks the keeper to end the guest.
    fn stop(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.done.is_stopping, true) {
            true => Ok(()),
            false => self.link.say(&Heard::Stop),
        }
    }

    /// Looks at the kernel log, and says what has to end the guest.
    fn look(&mut self) -> io::Result<()> {
        match self.faults.look(self.log) {
            Ok(None) => Ok(()),
            Ok(Some(_)) if self.done.has_told_fault => Ok(()),
            Ok(Some(stopped)) => {
                self.done.has_told_fault = true;
                self.link.say(&Heard::Fault { stopped })
            }
            Err(error) => {
                self.faults.close();
                self.link.say(&failed("reading the kernel log", &error))
            }
        }
    }

    /// Answers with what is left to see.
    fn rest(&mut self, asked: Ask) -> io::Result<()> {
        self.console.copy_rest();
        // Not in its jail, it has nothing to look for: no device was touched.
        let looked = match self.done.is_guarded {
            true => self.faults.look(self.log),
            false => Ok(None),
        };
        let late = looked.unwrap_or_else(|error| {
            self.faults.close();
            self.log
                .warn(&format!("the kernel log cannot be read any more: {error}"));
            None
        });
        if asked == Ask::Finish {
            let lost = self.console.untaken();
            if lost > 0 {
                self.log.say(&format!(
                    "{lost} bytes of the console and what is behind them are lost: nobody takes them"
                ));
            }
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
        if self.done.is_guarded {
            for fd in [self.faults.fd(), self.violations.fd()]
                .into_iter()
                .flatten()
            {
                wait_for(fd, PollFlags::IN);
            }
        }
        let soon = self.console.has_waiting_input().then_some(SOON);
        let figures = self.done.is_asked.then(|| {
            let now = Instant::now();
            self.done.pace.left(Work::Figures, now)
        });
        let patience = [soon, figures, self.faults.patience()];
        let patience = patience.into_iter().flatten().min();
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

/// Gives back what setting up has used. Nothing depends on it; where it fails, the operator hears why more memory is in use.
pub(super) fn settle(thrift: &Thrift, log: &Log) {
    if let Err(error) = thrift.settle() {
        log.say(&format!("memory that set-up has used is kept: {error}"));
    }
}

fn failed(doing: &str, error: &io::Error) -> Heard {
    Heard::Failed {
        doing: doing.to_owned(),
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, thread};

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::{
        super::{
            console::{Target, pipes},
            violation::Found,
        },
        *,
    };
    use crate::spec::OnDmaFault;

    const FAULT: &[u8] =
        b"3,100,1000,-;DMAR: [DMA Write NO_PASID] Request device [04:00.0] fault addr 0x50000000 \
                           [fault reason 0x05] PTE Write access is not set\n";

    #[test]
    fn no_line_of_the_kernel_log_is_read_before_the_jail_is_entered_and_none_is_lost() {
        let (keeper, link) = Link::pair().unwrap();
        let (kernel_log, kernel) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let signals = Signals::take().unwrap();
        let watched = thread::spawn(move || {
            let (host_ends, _guest_ends) = pipes().unwrap();
            let functions = ["0000:04:00.0".parse().unwrap()];
            let watch = Watch {
                console: Console::new(Target::Off, host_ends).unwrap(),
                faults: DmaFaults::of(OnDmaFault::Stop, functions, Some(File::from(kernel_log))),
                violations: Violations::of(Err(Found::NoAudit)),
                signals,
                link,
                log: &Log::keeping("web", true),
                thrift: Thrift::new(),
                done: Done::default(),
            };
            watch.until_keeper_is_gone(|_, _| Ok(6)).unwrap()
        });
        for _ in 0..2 {
            rustix::io::write(&kernel, FAULT).unwrap();
        }
        let soon = Duration::from_millis(200);
        assert_eq!(keeper.wait::<Heard>(soon).unwrap(), Next::Nothing);
        let rest = |word| {
            let Heard::Rest { late, .. } = word else {
                return None;
            };
            Some(late)
        };
        let late = keeper.ask(Ask::Rest, rest).unwrap();
        assert_eq!(late, Some(None), "it is not in its jail");

        let guarded = keeper.ask(Ask::Guard { id: 1 }, Some).unwrap();
        assert_eq!(guarded, Some(Heard::Guarded { landlock: 6 }));
        let patience = Duration::from_secs(10);
        let Next::Word(Heard::Fault { stopped }) = keeper.wait(patience).unwrap() else {
            panic!("the fault is lost");
        };
        assert_eq!(stopped.address, 0x5000_0000);
        // The second says nothing more, and a full queue of such words keeps nothing from being heard.
        assert_eq!(keeper.wait::<Heard>(soon).unwrap(), Next::Nothing);
        keeper.say(&Ask::Settle).unwrap();
        keeper.say(&Ask::End { status: 7 }).unwrap();
        assert_eq!(watched.join().unwrap(), Some(7));
    }
}
