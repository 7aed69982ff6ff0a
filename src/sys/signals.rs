//! Signals to the supervisor as something to poll.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// The signals that the supervisor acts on, blocked and readable.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// What a signal asks of the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `SIGTERM`, `SIGINT`, `SIGHUP`, `SIGQUIT`: stop the guest.
    Stop,
    /// `SIGUSR1`: write the statistics now.
    Statistics,
}

impl Signals {
    /// Blocks the signals for this thread and those it starts, and makes them readable.
    ///
    /// # Errors
    /// The errno of `sigprocmask` or `signalfd`.
    pub fn take() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the set it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in [
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGQUIT,
            libc::SIGUSR1,
        ] {
            // SAFETY: the set was initialised above, the signal is valid.
            unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
        }
        let old = std::ptr::null_mut();
        // SAFETY: the set is initialised; the old mask is not wanted.
        if unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), old) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, set.as_ptr(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that has arrived, if one has.
    ///
    /// # Errors
    /// The errno of `read`.
    pub fn next(&self) -> io::Result<Option<Asked>> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            Ok(_) => {
                let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                let is_usr1 = i32::try_from(number) == Ok(libc::SIGUSR1);
                Ok(Some(if is_usr1 {
                    Asked::Statistics
                } else {
                    Asked::Stop
                }))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Signals {
    /// The next signal, waiting for it no longer than `limit`.
    ///
    /// # Errors
    /// The errno of `poll` or `read`.
    pub fn wait(&self, limit: Duration) -> io::Result<Option<Asked>> {
        let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut waits = [PollFd::new(self, PollFlags::IN)];
        match poll(&mut waits, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => self.next(),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Lets no hang-up end this process or ask it for anything any more, as long as it lives.
///
/// # Errors
/// The errno of `signal` or `sigprocmask`.
pub fn ignore_hang_up() -> io::Result<()> {
    // SAFETY: the signal is valid, and to ignore it runs no code.
    if unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    // One that is blocked is not ignored, but kept to be read.
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised above, the signal is valid.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGHUP) };
    let old = std::ptr::null_mut();
    // SAFETY: the set is initialised; the old mask is not wanted.
    if unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, set.as_ptr(), old) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
