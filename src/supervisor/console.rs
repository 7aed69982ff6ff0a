//! The guest's console on this side: bytes between two pipes to D and the operator's terminal or file.
//!
//! The supervisor copies bytes and looks at none that the guest wrote.

use std::{
    fs::File,
    io::{self, IsTerminal},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr},
};

use crate::jail::seccomp::SupervisorFds;

/// Where the console's bytes go and come from.
#[derive(Debug)]
pub(super) enum Target {
    /// Nowhere.
    Off,
    /// Standard output and input.
    Stdio,
    /// A file that is appended to; no input.
    File(File),
}

/// What the operator typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Nothing to act on.
    Nothing,
    /// The escape to stop the guest: Ctrl-A, then x.
    Stop,
}

/// How much is copied at a time: what a pipe that is ready takes without blocking (`PIPE_BUF`).
const TURN_BYTES: usize = 4096;

/// The key that starts an escape: Ctrl-A.
const ESCAPE: u8 = 1;

/// The supervisor's ends of the pipes.
#[derive(Debug)]
pub(super) struct HostEnds {
    from_guest: OwnedFd,
    to_guest: OwnedFd,
}

/// D's ends of the pipes. The keeper holds them as long as it lives, so that neither pipe ends before.
#[derive(Debug)]
pub(super) struct GuestEnds {
    output: OwnedFd,
    input: OwnedFd,
}

impl HostEnds {
    /// The ends that another process made: what comes from the guest, what goes to it.
    #[must_use]
    pub(super) const fn of(from_guest: OwnedFd, to_guest: OwnedFd) -> Self {
        Self {
            from_guest,
            to_guest,
        }
    }

    /// From the guest, to the guest.
    #[must_use]
    pub(super) fn both(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.from_guest.as_fd(), self.to_guest.as_fd())
    }
}

impl GuestEnds {
    /// Output, input.
    #[must_use]
    pub(super) fn both(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.output.as_fd(), self.input.as_fd())
    }
}

/// Makes the pipes of a console.
///
/// # Errors
/// The errno of `pipe2`.
pub(super) fn pipes() -> io::Result<(HostEnds, GuestEnds)> {
    let nonblocking = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (from_guest, output) = pipe_with(nonblocking)?;
    let (input, to_guest) = pipe_with(nonblocking)?;
    let host = HostEnds {
        from_guest,
        to_guest,
    };
    Ok((host, GuestEnds { output, input }))
}

/// All that a console to `target` reads and writes, and the terminal that it puts back.
pub(super) fn descriptors(
    target: &Target,
    from_guest: BorrowedFd<'_>,
    to_guest: BorrowedFd<'_>,
) -> SupervisorFds {
    let mut fds = SupervisorFds {
        read: vec![from_guest.as_raw_fd()],
        write: vec![to_guest.as_raw_fd()],
        ..SupervisorFds::default()
    };
    match target {
        Target::Off => {}
        Target::Stdio => {
            fds.read.push(rustix::stdio::stdin().as_raw_fd());
            fds.write.push(rustix::stdio::stdout().as_raw_fd());
            fds.terminal.push(rustix::stdio::stdin().as_raw_fd());
        }
        Target::File(file) => fds.write.push(file.as_raw_fd()),
    }
    fds
}

/// The console of one run.
#[derive(Debug)]
pub(super) struct Console {
    target: Target,
    from_guest: OwnedFd,
    to_guest: OwnedFd,
    stdin_open: bool,
    /// Somebody can still write to the guest's pipe.
    guest_open: bool,
    escaped: bool,
    /// Typed bytes that the pipe has not taken yet.
    waiting: Vec<u8>,
    /// The guest's bytes that the target has not taken yet. While there are any, the pipe is not read, so a guest that
    /// writes faster than its operator reads waits, and nobody else.
    unwritten: Vec<u8>,
    /// Why the target takes nothing any more; the guest runs on without a console.
    broken: Option<io::Error>,
    terminal_before: Option<Termios>,
}

impl Console {
    /// Takes the pipes and, where standard input is a terminal, sets it to raw.
    ///
    /// # Errors
    /// The errno of `tcgetattr` or `tcsetattr`.
    pub(super) fn new(target: Target, ends: HostEnds) -> io::Result<Self> {
        let HostEnds {
            from_guest,
            to_guest,
        } = ends;
        let is_stdio = matches!(target, Target::Stdio);
        let stdin = io::stdin();
        let terminal_before = if is_stdio && stdin.is_terminal() {
            let before = tcgetattr(&stdin)?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&stdin, OptionalActions::Now, &raw)?;
            Some(before)
        } else {
            None
        };
        Ok(Self {
            target,
            from_guest,
            to_guest,
            stdin_open: is_stdio,
            guest_open: true,
            escaped: false,
            waiting: Vec::new(),
            unwritten: Vec::new(),
            broken: None,
            terminal_before,
        })
    }

    /// What to wait for: room at the target while bytes wait for it, else bytes of the guest while some can come.
    pub(super) fn output(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match (&self.target, self.unwritten.is_empty()) {
            (Target::Stdio, false) => Some((rustix::stdio::stdout(), PollFlags::OUT)),
            (Target::File(file), false) => Some((file.as_fd(), PollFlags::OUT)),
            (Target::Off, _) | (_, true) => self
                .guest_open
                .then(|| (self.from_guest.as_fd(), PollFlags::IN)),
        }
    }

    /// All that it reads and writes, and the terminal that it puts back.
    pub(super) fn descriptors(&self) -> SupervisorFds {
        descriptors(&self.target, self.from_guest.as_fd(), self.to_guest.as_fd())
    }

    /// Why the console's target failed, once.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.broken.take()
    }

    /// The input to wait on, while it is open and the guest has taken what was typed before.
    #[must_use]
    pub(super) fn input(&self) -> Option<BorrowedFd<'static>> {
        (self.stdin_open && self.waiting.is_empty()).then(rustix::stdio::stdin)
    }

    /// Copies some of what the guest has written. Call it when [`Console::output`] is ready, or at the end: it writes no
    /// more than a pipe takes at once, so it does not block.
    pub(super) fn copy_output(&mut self) {
        if self.unwritten.is_empty() {
            let mut bytes = [0_u8; TURN_BYTES];
            match rustix::io::read(&self.from_guest, &mut bytes) {
                // The keeper, who holds the writing end as long as it lives, is gone, or the pipe is.
                Ok(0) => self.guest_open = false,
                Ok(count) => self.unwritten.extend_from_slice(&bytes[..count]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.guest_open = false,
            }
        }
        if !self.is_target_ready() {
            return;
        }
        let written = match &self.target {
            Target::Off => Ok(self.unwritten.len()),
            Target::Stdio => rustix::io::write(rustix::stdio::stdout(), &self.unwritten),
            Target::File(file) => rustix::io::write(file, &self.unwritten),
        };
        match written {
            Ok(count) => drop(self.unwritten.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => {
                // A full disk or a closed pipe is no reason to end a guest.
                self.broken = Some(errno.into());
                self.target = Target::Off;
                self.unwritten.clear();
            }
        }
    }

    /// Whether the target takes what has been read without blocking: nothing else is heard while a write waits.
    fn is_target_ready(&self) -> bool {
        let target = match &self.target {
            Target::Off => return true,
            Target::Stdio => rustix::stdio::stdout(),
            Target::File(file) => file.as_fd(),
        };
        let mut waits = [PollFd::from_borrowed_fd(target, PollFlags::OUT)];
        // Where it cannot be asked, the write tells why.
        poll(&mut waits, Some(&Timespec::default())) != Ok(0)
    }

    /// Copies the last bytes of a guest that has ended, as long as the target takes them.
    pub(super) fn copy_rest(&mut self) {
        const PATIENCE: Timespec = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        while let Some((fd, events)) = self.output() {
            let is_reading = events == PollFlags::IN;
            let mut waits = [PollFd::from_borrowed_fd(fd, events)];
            let timeout = if is_reading {
                Timespec::default()
            } else {
                PATIENCE
            };
            if poll(&mut waits, Some(&timeout)).unwrap_or(0) == 0 {
                return;
            }
            self.copy_output();
        }
    }

    /// How many bytes the target has not taken of what was read from the guest; more may wait behind them.
    #[must_use]
    pub(super) fn untaken(&self) -> usize {
        self.unwritten.len()
    }

    /// Copies what the operator typed, without the escapes.
    pub(super) fn copy_input(&mut self) -> Typed {
        let mut bytes = [0_u8; 512];
        let count = match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
            Err(Errno::AGAIN | Errno::INTR) => return Typed::Nothing,
            // A terminal that has gone is an input that has ended.
            Ok(0) | Err(_) => {
                self.stdin_open = false;
                return Typed::Nothing;
            }
            Ok(count) => count,
        };
        let typed = self.take_escapes(&bytes[..count]);
        self.flush_input();
        typed
    }

    /// Tries again to hand typed bytes to the guest.
    pub(super) fn flush_input(&mut self) {
        // An error here is a full pipe: the keeper holds the reading end.
        while let Ok(count @ 1..) = rustix::io::write(&self.to_guest, &self.waiting) {
            drop(self.waiting.drain(..count));
        }
    }

    /// Whether typed bytes wait for the guest to take them.
    #[must_use]
    pub(super) fn has_waiting_input(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Puts the terminal back as it was; nothing is read from it any more.
    pub(super) fn restore_terminal(&mut self) {
        if let Some(before) = self.terminal_before.take() {
            self.stdin_open = false;
            // A terminal that has gone cannot be put back, and needs not be.
            tcsetattr(io::stdin(), OptionalActions::Now, &before).ok();
        }
    }

    /// Ctrl-A x stops, Ctrl-A Ctrl-A sends one Ctrl-A; only on a terminal, a pipe's bytes pass as they are.
    fn take_escapes(&mut self, bytes: &[u8]) -> Typed {
        if self.terminal_before.is_none() {
            self.waiting.extend_from_slice(bytes);
            return Typed::Nothing;
        }
        for &byte in bytes {
            match (self.escaped, byte) {
                (false, ESCAPE) => self.escaped = true,
                (false, _) => self.waiting.push(byte),
                (true, b'x') => return Typed::Stop,
                (true, _) => {
                    self.escaped = false;
                    self.waiting.push(byte);
                }
            }
        }
        Typed::Nothing
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.restore_terminal();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_target_that_takes_nothing_is_not_waited_for_for_ever_and_what_it_leaves_is_known() {
        let (mut receiver, target) = io::pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&target, TURN_BYTES).unwrap();
        let (host, guest) = pipes().unwrap();
        let target = Target::File(File::from(OwnedFd::from(target)));
        let mut console = Console::new(target, host).unwrap();
        let text = vec![b'x'; TURN_BYTES];
        for text in [&text[..], &b"last words"[..]] {
            rustix::io::write(guest.both().0, text).unwrap();
            console.copy_rest();
        }
        assert_eq!(console.untaken(), 10);
        receiver.read_exact(&mut vec![0; TURN_BYTES]).unwrap();
        console.copy_rest();
        assert_eq!(console.untaken(), 0);
        let mut words = [0; 10];
        receiver.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"last words");
    }

    #[test]
    fn a_guest_that_is_gone_is_not_waited_for() {
        let (host, guest) = pipes().unwrap();
        let mut console = Console::new(Target::Off, host).unwrap();
        rustix::io::write(guest.both().0, b"last words").unwrap();
        console.copy_rest();
        assert!(console.output().is_some(), "more may come");
        drop(guest);
        console.copy_rest();
        assert!(console.output().is_none());
    }
}
