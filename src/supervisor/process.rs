//! V and D as the keeper sees them: children that end.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::ExitStatus,
    time::Instant,
};

use iommu::bdf::Bdf;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    ending::{LastWords, Role, RunEnd},
    link::{Ask, Heard, Link, Next, Seen, Stopped},
    pace::{Pace, Work},
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
    /// Waits until the guest has ended in any way; `on_statistics` runs when the operator asks for the figures, as often as
    /// [`Work::Figures`] may be done.
    ///
    /// # Errors
    /// The errno of `poll` or of waiting for a child; what the supervisor cannot do.
    pub(super) fn until_end(&mut self, mut on_statistics: impl FnMut(Seen)) -> io::Result<RunEnd> {
        let mut pace = Pace::default();
        let mut asked = None;
        loop {
            self.until_word(&pace, asked.is_some())?;
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
            if pace.take(Work::Word, Instant::now()) {
                match self.link.next()? {
                    Next::Nothing => {}
                    Next::Gone => return Ok(RunEnd::Abandoned),
                    Next::Word(Heard::Stop) => return Ok(RunEnd::Stopped),
                    // Asked again before they are written, the newest are.
                    Next::Word(Heard::Statistics { seen }) => asked = Some(seen),
                    Next::Word(Heard::Fault { stopped }) => {
                        return dma_fault(self.functions, &stopped);
                    }
                    Next::Word(Heard::Failed { doing, why }) => {
                        return Err(io::Error::other(format!("{doing}: {why}")));
                    }
                    Next::Word(
                        word @ (Heard::Guarded { .. } | Heard::Rest { .. } | Heard::Call { .. }),
                    ) => return Err(out_of_turn(&word)),
                }
            }
            if asked.is_some() && pace.take(Work::Figures, Instant::now()) {
                asked.take().map(&mut on_statistics);
            }
        }
    }

    /// Waits until V or D has ended, the supervisor has something to say and is heard, or the figures that are asked for
    /// may be written.
    fn until_word(&self, pace: &Pace, is_asked: bool) -> io::Result<()> {
        let now = Instant::now();
        let quiet = pace.left(Work::Word, now);
        let mut waits = vec![
            PollFd::new(self.vcpu.pidfd(), PollFlags::IN),
            PollFd::new(self.device.pidfd(), PollFlags::IN),
        ];
        if quiet.is_zero() {
            waits.push(PollFd::new(self.link, PollFlags::IN));
        }
        let patience = [
            (!quiet.is_zero()).then_some(quiet),
            is_asked.then(|| pace.left(Work::Figures, now)),
        ];
        let timeout = patience
            .into_iter()
            .flatten()
            .min()
            .map(Timespec::try_from)
            .transpose()
            .map_err(io::Error::other)?;
        match poll(&mut waits, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The end for a request that the IOMMU stopped.
///
/// # Errors
/// Where it is of no function of the guest.
pub(super) fn dma_fault(functions: &[Bdf], stopped: &Stopped) -> io::Result<RunEnd> {
    let bdf = functions.get(stopped.function).copied();
    Ok(RunEnd::DmaFault {
        bdf: bdf.ok_or_else(|| io::Error::other("a fault of no device of the guest"))?,
        access: stopped.access,
        address: stopped.address,
        reason: stopped.reason.clone(),
    })
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

#[cfg(test)]
mod tests {
    use jailed::handoff::Handoff;

    use super::{super::launch::ring_file, *};

    #[test]
    fn a_supervisor_that_asks_and_asks_has_the_figures_written_once_an_interval() {
        let (keeper, supervisor) = Link::pair().unwrap();
        let ring = ring_file(&Handoff::empty()).unwrap();
        let mut vcpu = Process::new(Role::Vcpu, Child::asleep());
        let mut device = Process::new(Role::Device, Child::asleep());
        let mut life = Life {
            vcpu: &mut vcpu,
            device: &mut device,
            counters: &CounterView::new(&ring).unwrap(),
            link: &keeper,
            functions: &[],
        };
        let asks = 100_u64;
        let begin = Instant::now();
        let end = std::thread::scope(|scope| {
            scope.spawn(|| {
                for lost in 0..asks {
                    let functions = Vec::new();
                    let seen = Seen { functions, lost };
                    supervisor.say(&Heard::Statistics { seen }).unwrap();
                }
                supervisor.say(&Heard::Stop).unwrap();
            });
            let mut written = Vec::new();
            let end = life.until_end(|seen| written.push(seen.lost)).unwrap();
            (end, written)
        });
        let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap();
        assert_eq!(end.0, RunEnd::Stopped, "a word behind others is not lost");
        assert_eq!(end.1[0], 0, "the first is not kept waiting");
        assert!(end.1.len() <= 1 + seconds, "{:?}", end.1);
        vcpu.stop().unwrap();
        device.stop().unwrap();
    }
}
