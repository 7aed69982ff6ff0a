//! Which call a process of the guest was killed for, as the kernel's audit tells it.
//!
//! The records name any process of the host that a filter killed, and parts of them are that process's words, so they are
//! read by the supervisor, bounded, and only what the kernel itself makes of them counts: numbers, each told once. A name
//! that a process gives itself cannot hold a space, by which fields are told apart: the kernel writes such a one in hex.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::calls;
use crate::sys::audit::{SECCOMP_RECORD, open_seccomp_records};

/// The signal of a forbidden call.
pub(super) const SIGNAL: i32 = libc::SIGSYS;

/// The longest record: `MAX_AUDIT_MESSAGE_LENGTH`, and the head.
const RECORD_BYTES: usize = 8970 + HEAD_BYTES;
/// `struct nlmsghdr`.
const HEAD_BYTES: usize = 16;
/// Records kept until they are asked for: of this guest there is one, others come from all over the host.
const KEPT: usize = 64;
/// Records read at a time, so that a host full of them does not keep the console waiting.
const TURN: usize = 64;
/// A thread of the kernel brings the records, after the process is gone.
const PATIENCE: Duration = Duration::from_secs(1);

/// The calls of 64-bit programs: `AUDIT_ARCH_X86_64`.
const ARCH_X86_64: u32 = 0xc000_003e;
/// Those of 32-bit programs: `AUDIT_ARCH_I386`.
const ARCH_I386: u32 = 0x4000_0003;
/// What marks a call of the x32 kind.
const X32: u32 = 0x4000_0000;

/// What the supervisor knows of a process that was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Found {
    /// The call that was forbidden.
    Call {
        /// `AUDIT_ARCH_…`.
        arch: u32,
        /// Its number.
        number: u32,
    },
    /// The kernel has told nothing of the process.
    Untold,
    /// The kernel cannot tell.
    NoAudit,
    /// It may not be asked.
    Deaf,
}

/// The call that a process was killed for, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Call {
    /// The kernel told it.
    Known {
        /// Its number.
        number: u32,
        /// Its name.
        name: String,
    },
    /// It did not.
    Unknown {
        /// Why.
        unknown: &'static str,
    },
}

impl From<Found> for Call {
    fn from(found: Found) -> Self {
        let unknown = |unknown| Self::Unknown { unknown };
        match found {
            Found::Call { arch, number } => Self::Known {
                number,
                name: name(arch, number),
            },
            Found::Untold => unknown("the kernel's audit told nothing of it"),
            Found::NoAudit => unknown("the kernel has no audit (CONFIG_AUDIT)"),
            Found::Deaf => unknown("the kernel's audit may not be read (CAP_AUDIT_READ)"),
        }
    }
}

impl Call {
    /// The end of a sentence: "… was killed for a forbidden call".
    #[must_use]
    pub(super) fn words(&self) -> String {
        match self {
            Self::Known { number, name } => format!(": {name} ({number})"),
            Self::Unknown { unknown } => format!(", which one is not known: {unknown}"),
        }
    }
}

fn name(arch: u32, number: u32) -> String {
    match (arch, calls::name(number)) {
        (ARCH_X86_64, Some(name)) => name.to_owned(),
        (ARCH_X86_64, None) if number & X32 != 0 => "a call of the x32 kind".to_owned(),
        (ARCH_X86_64, None) => "a call without a name".to_owned(),
        (ARCH_I386, _) => "a call of the 32-bit kind".to_owned(),
        _ => format!("a call of architecture {arch:#x}"),
    }
}

/// A process that a filter killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Violation {
    pid: u32,
    arch: u32,
    number: u32,
}

impl Violation {
    /// Reads one message of the socket; `None` for anything but a kill by a filter.
    fn parse(message: &[u8]) -> Option<Self> {
        let (head, rest) = message.split_at_checked(HEAD_BYTES)?;
        let [l0, l1, l2, l3, k0, k1, ..] = *head else {
            return None;
        };
        let is_ours = u16::from_ne_bytes([k0, k1]) == SECCOMP_RECORD;
        // The length counts the head in some kernels, and leaves it out in others: what came is what there is.
        let told = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let text = rest.get(..told.min(rest.len()))?;
        let text = std::str::from_utf8(text).ok()?.trim_end_matches('\0');
        is_ours.then(|| Self::of(text))?
    }

    fn of(text: &str) -> Option<Self> {
        let field = |key: &str| {
            let mut values = text.split(' ').filter_map(|word| word.strip_prefix(key));
            // Told twice, it is told by somebody else.
            values.next().filter(|_| values.next().is_none())
        };
        let signal = decimal(field("sig=")?)?;
        Some(Self {
            pid: decimal(field("pid=")?)?,
            arch: u32::from_str_radix(field("arch=")?, 16).ok()?,
            number: decimal(field("syscall=")?)?,
        })
        .filter(|_| i32::try_from(signal) == Ok(SIGNAL))
    }
}

fn decimal(text: &str) -> Option<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?
}

/// The records about filters from a moment on.
#[derive(Debug)]
pub(super) struct Violations {
    heard: Result<OwnedFd, Found>,
    kept: VecDeque<Violation>,
}

impl Violations {
    /// Begins to listen, where the kernel lets us. Without it guests run as safely, and less is told.
    #[must_use]
    pub(super) fn open() -> Self {
        Self::of(
            open_seccomp_records().map_err(|error| match error.raw_os_error() {
                Some(libc::EPROTONOSUPPORT) => Found::NoAudit,
                _ => Found::Deaf,
            }),
        )
    }

    /// Listens to a socket that is open already, or says why there is none.
    #[must_use]
    pub(super) fn of(heard: Result<OwnedFd, Found>) -> Self {
        Self {
            heard,
            kept: VecDeque::new(),
        }
    }

    /// What to wait for.
    #[must_use]
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.heard.as_ref().ok().map(AsFd::as_fd)
    }

    /// Why nothing is heard; `Untold` where something is.
    #[must_use]
    pub(super) fn deafness(&self) -> Found {
        self.heard.as_ref().err().copied().unwrap_or(Found::Untold)
    }

    /// Reads what has come, and keeps the newest.
    pub(super) fn read(&mut self) {
        let mut bytes = [0_u8; RECORD_BYTES];
        for _ in 0..TURN {
            let Ok(socket) = &self.heard else {
                return;
            };
            match rustix::io::read(socket, bytes.as_mut_slice()) {
                Ok(length) => {
                    let message = bytes.get(..length).unwrap_or(&bytes);
                    self.kept.extend(Violation::parse(message));
                    while self.kept.len() > KEPT {
                        self.kept.pop_front();
                    }
                }
                Err(Errno::AGAIN) => return,
                // Some were lost; the rest can be read.
                Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(_) => {
                    self.heard = Err(Found::Deaf);
                    return;
                }
            }
        }
    }

    /// What the process was killed for, waiting a little for the kernel to tell.
    pub(super) fn look(&mut self, pid: u32) -> Found {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read();
            // The newest: numbers of processes come again.
            if let Some(found) = self.kept.iter().rfind(|violation| violation.pid == pid) {
                return Found::Call {
                    arch: found.arch,
                    number: found.number,
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let (Some(fd), Ok(timeout)) = (self.fd(), Timespec::try_from(left)) else {
                return self.deafness();
            };
            let mut waits = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            if left.is_zero() || poll(&mut waits, Some(&timeout)).is_err_and(is_final) {
                return self.deafness();
            }
        }
    }
}

fn is_final(errno: Errno) -> bool {
    io::Error::from(errno).kind() != io::ErrorKind::Interrupted
}

#[cfg(test)]
#[path = "violation_test.rs"]
mod violation_test;
