//! Waiting for the end of a guest while its console's bytes go to and fro.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, ExitStatus},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use iommu::bdf::Bdf;

use super::{
    console::{Console, Typed},
    dma_faults::DmaFaults,
    ending::{LastWords, Role, RunEnd},
    log::Log,
};
use crate::sys::{
    map::CounterView,
    signals::{Asked, Signals},
};

/// V or D, running.
#[derive(Debug)]
pub(super) struct Process {
    /// Which.
    pub(super) role: Role,
    child: Child,
    pidfd: OwnedFd,
}

impl Process {
    /// Takes over a child that was just started.
    ///
    /// # Errors
    /// The errno of `pidfd_open`.
    pub(super) fn new(role: Role, child: Child) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { role, child, pidfd })
    }

    /// Its process id.
    #[must_use]
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Readable when it has ended.
    #[must_use]
    pub(super) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
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

/// What is watched while a guest runs.
pub(super) struct Watched<'a> {
    /// V.
    pub(super) vcpu: &'a mut Process,
    /// D.
    pub(super) device: &'a mut Process,
    /// The console.
    pub(super) console: &'a mut Console,
    /// The operator.
    pub(super) signals: &'a Signals,
    /// What V and D leave behind.
    pub(super) counters: &'a CounterView,
    /// The kernel log.
    pub(super) faults: &'a mut DmaFaults,
    /// The guest's functions, by D's indices.
    pub(super) functions: &'a [Bdf],
    /// Where lines go.
    pub(super) log: &'a Log,
}

impl Watched<'_> {
    /// Waits until the guest has ended in any way; `on_statistics` runs whenever the operator asks for the figures.
    ///
    /// # Errors
    /// The errno of `poll`, of reading the kernel log or of waiting for a child.
    pub(super) fn until_end(
        &mut self,
        on_statistics: impl Fn(&CounterView, &DmaFaults),
    ) -> io::Result<RunEnd> {
        loop {
            let (has_output, has_input) = self.wait()?;
            if has_output {
                self.console.copy_output();
            }
            self.console.flush_input();
            if has_input && self.console.copy_input() == Typed::Stop {
                return Ok(RunEnd::Stopped);
            }
            if let Some(error) = self.console.take_failure() {
                self.log
                    .say(&format!("the console takes nothing any more: {error}"));
            }
            if let Some(end) = self.faults.look(self.log)? {
                return Ok(end);
            }
            // D first: when a device fails, D says so, and V may have noticed only that D has gone.
            for process in [&mut *self.device, &mut *self.vcpu] {
                if let Some(status) = process.ended()? {
                    let last = LastWords {
                        exit: self.counters.last_exit(),
                        failure: self.counters.device_failure(),
                        functions: self.functions,
                    };
                    return Ok(end_of(process.role, status, &last));
                }
            }
            while let Some(asked) = self.signals.next()? {
                match asked {
                    Asked::Stop => return Ok(RunEnd::Stopped),
                    Asked::Statistics => on_statistics(self.counters, self.faults),
                }
            }
        }
    }

    /// Waits until anything happens; whether the console has output to copy, and input.
    fn wait(&self) -> io::Result<(bool, bool)> {
        // While typed bytes wait for a guest that does not read them, look again this often.
        const SOON: Duration = Duration::from_millis(20);
        let mut waits = vec![
            PollFd::new(self.vcpu.pidfd(), PollFlags::IN),
            PollFd::new(self.device.pidfd(), PollFlags::IN),
            PollFd::new(self.signals, PollFlags::IN),
        ];
        let (output, events) = self.console.output();
        waits.push(PollFd::from_borrowed_fd(output, events));
        let input = self.console.input();
        if let Some(input) = input {
            waits.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
        }
        if let Some(faults) = self.faults.fd() {
            waits.push(PollFd::from_borrowed_fd(faults, PollFlags::IN));
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
        let is_ready = |at: usize| waits.get(at).is_some_and(|w| !w.revents().is_empty());
        Ok((is_ready(3), input.is_some() && is_ready(4)))
    }
}

fn end_of(role: Role, status: ExitStatus, last: &LastWords<'_>) -> RunEnd {
    match (status.signal(), status.code().map(u8::try_from)) {
        (Some(signal), _) => RunEnd::Killed { role, signal },
        (None, Some(Ok(code))) => RunEnd::from_status(role, code, last),
        (None, _) => RunEnd::Broken {
            role,
            status: u8::MAX,
        },
    }
}

/// Waits until `process` or `socket` has something to say.
///
/// # Errors
/// The errno of `poll`.
pub(super) fn until_word(
    process: &Process,
    socket: impl AsFd,
    signals: &Signals,
) -> io::Result<()> {
    let mut waits = [
        PollFd::new(process.pidfd(), PollFlags::IN),
        PollFd::new(&socket, PollFlags::IN),
        PollFd::new(signals, PollFlags::IN),
    ];
    match poll(&mut waits, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
