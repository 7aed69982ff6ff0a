//! Waiting for the end of a guest while its console's bytes go to and fro.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, ExitStatus},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    console::{Console, Typed},
    ending::{Role, RunEnd},
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

/// Waits until the guest has ended in any way; `on_statistics` runs whenever the operator asks for the figures.
///
/// # Errors
/// The errno of `poll` or of waiting for a child.
pub(super) fn until_end(
    vcpu: &mut Process,
    device: &mut Process,
    console: &mut Console,
    signals: &Signals,
    counters: &CounterView,
    log: &Log,
    on_statistics: impl Fn(),
) -> io::Result<RunEnd> {
    // While typed bytes wait for a guest that does not read them, look again this often.
    let soon = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    loop {
        let mut waits = vec![
            PollFd::new(vcpu.pidfd(), PollFlags::IN),
            PollFd::new(device.pidfd(), PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        let (output, events) = console.output();
        waits.push(PollFd::from_borrowed_fd(output, events));
        let input = console.input();
        if let Some(input) = input {
            waits.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
        }
        let timeout = console.has_waiting_input().then_some(&soon);
        match poll(&mut waits, timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let has_output = waits.get(3).is_some_and(|w| !w.revents().is_empty());
        let has_input = waits.get(4).is_some_and(|w| !w.revents().is_empty());
        drop(waits);

        if has_output {
            console.copy_output();
        }
        console.flush_input();
        if has_input && console.copy_input() == Typed::Stop {
            return Ok(RunEnd::Stopped);
        }
        if let Some(error) = console.take_failure() {
            log.say(&format!("the console takes nothing any more: {error}"));
        }
        // D first: when a device fails, D says so, and V may have noticed only that D has gone.
        for process in [&mut *device, &mut *vcpu] {
            if let Some(status) = process.ended()? {
                return Ok(end_of(process.role, status, counters));
            }
        }
        while let Some(asked) = signals.next()? {
            match asked {
                Asked::Stop => return Ok(RunEnd::Stopped),
                Asked::Statistics => on_statistics(),
            }
        }
    }
}

fn end_of(role: Role, status: ExitStatus, counters: &CounterView) -> RunEnd {
    match (status.signal(), status.code().map(u8::try_from)) {
        (Some(signal), _) => RunEnd::Killed { role, signal },
        (None, Some(Ok(code))) => RunEnd::from_status(role, code, counters.last_exit()),
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
