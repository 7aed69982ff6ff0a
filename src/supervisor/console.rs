//! The guest's console on this side: bytes between two pipes to D and the operator's terminal or file.
//!
//! The supervisor copies bytes and looks at none that the guest wrote.

use std::{
    fs::File,
    io::{self, IsTerminal},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr},
};

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

/// The key that starts an escape: Ctrl-A.
const ESCAPE: u8 = 1;

/// The console of one run.
#[derive(Debug)]
pub(super) struct Console {
    target: Target,
    from_guest: OwnedFd,
    to_guest: OwnedFd,
    guest_out: OwnedFd,
    guest_in: OwnedFd,
    stdin_open: bool,
    escaped: bool,
    /// Typed bytes that the pipe has not taken yet.
    waiting: Vec<u8>,
    terminal_before: Option<Termios>,
}

impl Console {
    /// Makes the pipes and, where standard input is a terminal, sets it to raw.
    ///
    /// # Errors
    /// The errno of `pipe2`, `open` or `tcsetattr`.
    pub(super) fn new(target: Target) -> io::Result<Self> {
        let nonblocking = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (from_guest, guest_out) = pipe_with(nonblocking)?;
        let (guest_in, to_guest) = pipe_with(nonblocking)?;
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
            guest_out,
            guest_in,
            stdin_open: is_stdio,
            escaped: false,
            waiting: Vec::new(),
            terminal_before,
        })
    }

    /// Whether the guest has a console at all.
    #[must_use]
    pub(super) fn is_on(&self) -> bool {
        !matches!(self.target, Target::Off)
    }

    /// D's ends of the pipes: output, input.
    #[must_use]
    pub(super) fn guest_ends(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.guest_out.as_fd(), self.guest_in.as_fd())
    }

    /// The pipe to wait on for bytes of the guest.
    #[must_use]
    pub(super) fn guest_output(&self) -> BorrowedFd<'_> {
        self.from_guest.as_fd()
    }

    /// The input to wait on, while it is open and the guest has taken what was typed before.
    #[must_use]
    pub(super) fn input(&self) -> Option<BorrowedFd<'static>> {
        (self.stdin_open && self.waiting.is_empty()).then(rustix::stdio::stdin)
    }

    /// Copies what the guest has written so far.
    ///
    /// # Errors
    /// The errno of reading the pipe or writing the target.
    pub(super) fn copy_output(&mut self) -> io::Result<()> {
        let mut bytes = [0_u8; 4096];
        loop {
            let count = match rustix::io::read(&self.from_guest, &mut bytes) {
                Ok(count) if count > 0 => count,
                Ok(_) | Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let text = &bytes[..count];
            match &mut self.target {
                Target::Off => {}
                Target::Stdio => write_all(rustix::stdio::stdout(), text)?,
                Target::File(file) => write_all(file.as_fd(), text)?,
            }
        }
    }

    /// Copies what the operator typed, without the escapes.
    ///
    /// # Errors
    /// The errno of reading standard input or writing the pipe.
    pub(super) fn copy_input(&mut self) -> io::Result<Typed> {
        let mut bytes = [0_u8; 512];
        let count = match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
            Ok(0) => {
                self.stdin_open = false;
                return Ok(Typed::Nothing);
            }
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Typed::Nothing),
            Err(errno) => return Err(errno.into()),
        };
        let typed = self.take_escapes(&bytes[..count]);
        self.flush_input()?;
        Ok(typed)
    }

    /// Tries again to hand typed bytes to the guest.
    ///
    /// # Errors
    /// The errno of writing the pipe.
    pub(super) fn flush_input(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match rustix::io::write(&self.to_guest, &self.waiting) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Whether typed bytes wait for the guest to take them.
    #[must_use]
    pub(super) fn has_waiting_input(&self) -> bool {
        !self.waiting.is_empty()
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
        if let Some(before) = &self.terminal_before {
            // A terminal that has gone cannot be put back, and needs not be.
            tcsetattr(io::stdin(), OptionalActions::Now, before).ok();
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut wait = [rustix::event::PollFd::from_borrowed_fd(
                    to,
                    rustix::event::PollFlags::OUT,
                )];
                rustix::event::poll(&mut wait, None)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
