//! What the supervisor and the keeper say to each other: a few typed words over a pair of sockets.
//!
//! The supervisor looks at the console and at the kernel log, which hostile hands can write to; the keeper can touch the
//! host. So the keeper takes from the supervisor only these words, each of bounded length, and waits for none of them
//! without end.
//!
//! A word that finds no room waits for it, and where none comes to be its speaker fails, which ends the guest: a stop, a fault,
//! a question or an answer that got lost would leave a guest running that should not. Only the figures may be dropped: they
//! are asked for again, and come at the end by themselves. So may the word to settle, on which nothing depends.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use iommu::events::Access;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendFlags, SocketFlags, SocketType, recvmsg, send, socketpair,
        sockopt::set_socket_passcred,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{pace, violation::Found};

/// The longest word in bytes: the figures of as many functions as a guest can have, and one reason in the kernel's words.
pub(super) const WORD_BYTES: usize = 8192;
/// How long an answer may take before the asker goes on without it, and a word may wait for room.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the supervisor has seen of stopped DMA so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    /// For each function in the plan's order: how many, and the address of the last one.
    pub(super) functions: Vec<(u64, Option<u64>)>,
    /// Records of the kernel log that could not be read.
    pub(super) lost: u64,
}

/// A request of a device that the IOMMU stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stopped {
    /// The function, by its place in the plan.
    pub(super) function: usize,
    /// What was tried.
    pub(super) access: Access,
    /// Where.
    pub(super) address: u64,
    /// Why it was stopped, in the kernel's words.
    pub(super) reason: String,
}

/// What the keeper hears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Heard {
    /// The operator asks to stop the guest.
    Stop,
    /// The operator asks for the figures.
    Statistics {
        /// Those that the supervisor has.
        seen: Seen,
    },
    /// A device of the guest was stopped, and the guest is to end for it.
    Fault {
        /// Which, and why.
        stopped: Stopped,
    },
    /// The supervisor has given everything up, and watches.
    Guarded {
        /// The version of Landlock that it is under, 0 for none.
        landlock: u32,
    },
    /// The answer to [`Ask::Rest`] and [`Ask::Finish`].
    Rest {
        /// The figures.
        seen: Seen,
        /// What was seen only now.
        late: Option<Stopped>,
    },
    /// The answer to [`Ask::Call`].
    Call {
        /// What the kernel told.
        found: Found,
    },
    /// The supervisor cannot do its part.
    Failed {
        /// What it was doing.
        doing: String,
        /// Why it cannot.
        why: String,
    },
}

/// What the supervisor is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ask {
    /// To give up what it does not need any more: the guest is about to run.
    Guard {
        /// The user and group to become.
        id: u32,
    },
    /// To give back what setting up has used: the guest runs.
    Settle,
    /// To copy the rest of the console and to look at the kernel log: V and D are gone.
    Rest,
    /// To look once more: the devices are given back.
    Finish,
    /// To say which call the process was killed for.
    Call {
        /// Its id.
        pid: u32,
    },
    /// To end with this status: the keeper is another service, and tells its own.
    End {
        /// The status.
        status: u8,
    },
}

/// One end of the pair.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    /// Whether the kernel tells who speaks.
    is_told: bool,
    /// Process and user, one half each; 0 for nobody.
    speaker: AtomicU64,
}

/// Who says words to this end, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Speaker {
    /// The process.
    pub(super) pid: u32,
    /// Its user.
    pub(super) uid: u32,
}

/// What came, if anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// Nothing yet.
    Nothing,
    /// A word.
    Word(T),
    /// Nothing any more: the other side is gone.
    Gone,
}

impl Link {
    /// Two ends that hear each other.
    ///
    /// # Errors
    /// The errno of `socketpair`.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::of(one), Self::of(other)))
    }

    /// The end of a pair that somebody else made.
    pub(super) const fn of(socket: OwnedFd) -> Self {
        Self {
            socket,
            is_told: false,
            speaker: AtomicU64::new(0),
        }
    }

    /// Has the kernel tell with each word whose it is. The other end cannot say that it is another one.
    ///
    /// # Errors
    /// The errno of `setsockopt`.
    pub(super) fn ask_who_speaks(&mut self) -> io::Result<()> {
        set_socket_passcred(&self.socket, true)?;
        self.is_told = true;
        Ok(())
    }

    /// Who said the last word that was heard; `None` where the kernel was not asked.
    pub(super) fn speaker(&self) -> Option<Speaker> {
        let [a, b, c, d, uid @ ..] = self.speaker.load(Relaxed).to_be_bytes();
        let (pid, uid) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(uid));
        (pid != 0).then_some(Speaker { pid, uid })
    }

    /// Says a word, and waits for room where there is none. One who is gone hears nothing, and its end is noticed
    /// elsewhere.
    ///
    /// # Errors
    /// The errno of `send` or `poll`; `ETIMEDOUT` where the other side does not listen.
    pub(super) fn say(&self, word: &impl Serialize) -> io::Result<()> {
        self.say_within(word, PATIENCE)
    }

    fn say_within(&self, word: &impl Serialize, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        while !self.offer(word)? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut waits = [PollFd::new(&self.socket, PollFlags::OUT)];
            match poll(&mut waits, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Says a word that may be dropped; whether there was room for it.
    ///
    /// # Errors
    /// The errno of `send`.
    pub(super) fn offer(&self, word: &impl Serialize) -> io::Result<bool> {
        let bytes = serde_json::to_vec(word)?;
        if bytes.len() > WORD_BYTES {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        match send(
            &self.socket,
            &bytes,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        ) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next word, without waiting.
    ///
    /// # Errors
    /// The errno of `recvmsg`; `InvalidData` for what is no word, `EPROTO` for a word with a descriptor.
    pub(super) fn next<T: DeserializeOwned>(&self) -> io::Result<Next<T>> {
        let mut bytes = [0_u8; WORD_BYTES];
        match self.heard(&mut bytes) {
            Ok(0) | Err(Errno::CONNRESET) => Ok(Next::Gone),
            // A longer one is cut, and then it is none.
            Ok(length) => {
                let word = bytes.get(..length).unwrap_or(&bytes);
                Ok(Next::Word(serde_json::from_slice(word)?))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Next::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next word as it came; notes who said it. What comes with a descriptor is no word: there is no room for one, so that
    /// the kernel throws it away before this process has it.
    fn heard(&self, bytes: &mut [u8]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = match self.is_told {
            true => RecvAncillaryBuffer::new(&mut space),
            false => RecvAncillaryBuffer::default(),
        };
        let mut to = [IoSliceMut::new(bytes)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, &mut to, &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmCredentials(said) = message {
                let pid = said.pid.as_raw_nonzero().get().unsigned_abs();
                let both = (u64::from(pid) << 32) | u64::from(said.uid.as_raw());
                self.speaker.store(both, Relaxed);
            }
        }
        match received.flags.contains(ReturnFlags::CTRUNC) {
            true => Err(Errno::PROTO),
            false => Ok(received.bytes),
        }
    }

    /// The next word, waiting no longer than `limit`.
    ///
    /// # Errors
    /// As [`Self::next`], and the errno of `poll`.
    pub(super) fn wait<T: DeserializeOwned>(&self, limit: Duration) -> io::Result<Next<T>> {
        let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut waits = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut waits, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => self.next(),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Asks the supervisor, and gives its answer: the first word that `answer` takes. Nothing where it is gone or silent.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub(super) fn ask<A>(
        &self,
        asked: Ask,
        mut answer: impl FnMut(Heard) -> Option<A>,
    ) -> io::Result<Option<A>> {
        self.say(&asked)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            match self.wait(left)? {
                Next::Word(word) => {
                    if let Some(taken) = answer(word) {
                        return Ok(Some(taken));
                    }
                    pace::breathe();
                }
                Next::Nothing => {}
                Next::Gone => return Ok(None),
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg};

    use super::*;

    #[test]
    fn a_word_arrives_as_it_was_said() {
        let (keeper, supervisor) = Link::pair().unwrap();
        let stopped = Stopped {
            function: 1,
            access: Access::Write,
            address: u64::MAX,
            reason: "reason 0x05 \"\u{1b}[2J".to_owned(),
        };
        let words = [
            Heard::Stop,
            Heard::Fault {
                stopped: stopped.clone(),
            },
            Heard::Rest {
                seen: Seen {
                    functions: vec![(3, Some(0x1000)), (0, None)],
                    lost: 7,
                },
                late: Some(stopped),
            },
        ];
        for word in &words {
            supervisor.say(word).unwrap();
        }
        for word in words {
            assert_eq!(keeper.next().unwrap(), Next::Word(word));
        }
        assert_eq!(keeper.next::<Heard>().unwrap(), Next::Nothing);
        drop(supervisor);
        assert_eq!(keeper.next::<Heard>().unwrap(), Next::Gone);
    }

    #[test]
    fn the_kernel_tells_who_speaks() {
        let (mut keeper, supervisor) = Link::pair().unwrap();
        keeper.ask_who_speaks().unwrap();
        assert_eq!(keeper.speaker(), None);
        supervisor.say(&Heard::Guarded { landlock: 6 }).unwrap();
        let word = Heard::Guarded { landlock: 6 };
        assert_eq!(keeper.next().unwrap(), Next::Word(word));
        let own = Speaker {
            pid: std::process::id(),
            uid: rustix::process::getuid().as_raw(),
        };
        assert_eq!(keeper.speaker(), Some(own));
        // The other end was not asked to.
        keeper.say(&Ask::Rest).unwrap();
        assert_eq!(supervisor.next().unwrap(), Next::Word(Ask::Rest));
        assert_eq!(supervisor.speaker(), None);
    }

    #[test]
    fn a_word_with_a_descriptor_is_an_error_and_the_descriptor_does_not_arrive() {
        for is_told in [false, true] {
            let (mut keeper, supervisor) = Link::pair().unwrap();
            if is_told {
                keeper.ask_who_speaks().unwrap();
            }
            let sent = [keeper.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&sent)));
            let bytes = serde_json::to_vec(&Heard::Stop).unwrap();
            let words = [IoSlice::new(&bytes)];
            sendmsg(
                &supervisor.socket,
                &words,
                &mut control,
                SendFlags::NOSIGNAL,
            )
            .unwrap();
            let error = keeper.next::<Heard>().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPROTO), "told {is_told}");
        }
    }

    #[test]
    fn what_is_no_word_is_an_error() {
        let (keeper, supervisor) = Link::pair().unwrap();
        for bytes in [
            b"{".to_vec(),
            br#"{"word":"go"}"#.to_vec(),
            br#"{"word":"fault","stopped":{"function":-1}}"#.to_vec(),
            // One that is too long is cut.
            format!("{{\"word\":\"stop\"{}}}", " ".repeat(2 * WORD_BYTES)).into_bytes(),
        ] {
            send(&supervisor.socket, &bytes, SendFlags::NOSIGNAL).unwrap();
            assert!(keeper.next::<Heard>().is_err(), "{}", bytes.escape_ascii());
        }
        let long = Heard::Failed {
            doing: "x".repeat(WORD_BYTES),
            why: String::new(),
        };
        assert!(supervisor.say(&long).is_err());
    }

    #[test]
    fn a_supervisor_that_is_gone_keeps_nobody_waiting() {
        let (keeper, supervisor) = Link::pair().unwrap();
        drop(supervisor);
        let answer = keeper.ask(Ask::Rest, Some).unwrap();
        assert_eq!(answer, None);
    }

    /// Fills the queue with what may be dropped.
    fn fill(supervisor: &Link) -> usize {
        let seen = Seen::default();
        let word = Heard::Statistics { seen };
        (0..)
            .take_while(|_| supervisor.offer(&word).unwrap())
            .count()
    }

    #[test]
    fn a_word_that_matters_waits_for_room() {
        let (keeper, supervisor) = Link::pair().unwrap();
        let filled = fill(&supervisor);
        std::thread::scope(|scope| {
            let said = scope.spawn(|| supervisor.say(&Heard::Stop));
            std::thread::sleep(Duration::from_millis(50));
            for _ in 0..filled {
                assert!(matches!(
                    keeper.next().unwrap(),
                    Next::Word(Heard::Statistics { .. })
                ));
            }
            said.join().unwrap().unwrap();
        });
        assert_eq!(keeper.next().unwrap(), Next::Word(Heard::Stop));
    }

    #[test]
    fn a_word_that_finds_no_room_is_an_error_and_not_lost_in_silence() {
        let (_keeper, supervisor) = Link::pair().unwrap();
        fill(&supervisor);
        let said = supervisor.say_within(&Heard::Stop, Duration::from_millis(50));
        assert_eq!(said.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn the_most_that_is_told_fits() {
        let (keeper, supervisor) = Link::pair().unwrap();
        let word = Heard::Rest {
            seen: Seen {
                functions: vec![(u64::MAX, Some(u64::MAX)); jailed::handoff::MAX_FUNCTIONS],
                lost: u64::MAX,
            },
            late: Some(Stopped {
                function: 0,
                access: Access::Interrupt,
                address: u64::MAX,
                reason: "\u{1}".repeat(super::super::dma_faults::REASON_CHARS),
            }),
        };
        supervisor.say(&word).unwrap();
        assert_eq!(keeper.next().unwrap(), Next::Word(word));
    }
}
