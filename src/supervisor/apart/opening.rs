//! The first word of K to S: what is to be watched, with the descriptors for it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use iommu::bdf::Bdf;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    spec::OnDmaFault,
    supervisor::{
        link::{Link, WORD_BYTES},
        violation::Found,
    },
};

/// How long the supervisor waits for a keeper, and for its first word: it plans before it says one.
const PATIENCE: Duration = Duration::from_secs(60);
/// The console's two pipes, the kernel log, the console's file, the kernel's audit.
const MOST_FDS: usize = 5;

/// The keeper's first word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Opening {
    /// What to watch. Descriptors: from the guest, to the guest, the kernel log, the console's file, the kernel's audit;
    /// the last three where this says so.
    Guest {
        name: String,
        is_quiet: bool,
        functions: Vec<Bdf>,
        policy: OnDmaFault,
        console: Kind,
        has_kernel_log: bool,
        /// Why there is no socket of the audit; `untold` where there is one.
        deafness: Found,
    },
    /// There is nothing to watch.
    End { status: u8 },
}

/// Where the console's bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Off,
    Stdio,
    File,
}

/// Says the first word, with descriptors.
///
/// # Errors
/// `EMSGSIZE` where it is too long; the errno of `sendmsg`.
pub(super) fn send_with(link: &Link, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if bytes.len() > WORD_BYTES || !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    sendmsg(
        link,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The first word, with its descriptors.
///
/// # Errors
/// `InvalidData` for what is no first word; that none came, or the keeper went away.
pub(super) fn received(link: &Link) -> io::Result<(Opening, Vec<OwnedFd>)> {
    until_readable(link, "the keeper said nothing")?;
    let mut bytes = [0_u8; WORD_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut to = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(link, &mut to, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 {
        return Err(gone("the keeper ended without a word"));
    }
    let word = bytes.get(..received.bytes).unwrap_or(&bytes);
    Ok((serde_json::from_slice(word)?, fds))
}

/// Waits until something has come, for as long as the supervisor is patient.
///
/// # Errors
/// What is told `otherwise`; the errno of `poll`.
pub(super) fn until_readable(fd: impl AsFd, otherwise: &str) -> io::Result<()> {
    let timeout = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    let mut waits = [PollFd::new(&fd, PollFlags::IN)];
    match poll(&mut waits, Some(&timeout))? {
        0 => Err(gone(otherwise)),
        _ => Ok(()),
    }
}

/// Somebody who should be there is not.
pub(super) fn gone(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use rustix::pipe::pipe;

    use super::*;

    pub(in super::super) fn guest(console: Kind) -> Opening {
        Opening::Guest {
            name: "web".to_owned(),
            is_quiet: true,
            functions: vec!["0000:3b:02.1".parse().unwrap()],
            policy: OnDmaFault::Stop,
            console,
            has_kernel_log: false,
            deafness: Found::NoAudit,
        }
    }

    pub(in super::super) fn say(link: &Link, opening: &Opening, fds: &[BorrowedFd<'_>]) {
        send_with(link, &serde_json::to_vec(opening).unwrap(), fds).unwrap();
    }

    #[test]
    fn a_guest_is_handed_over_with_its_descriptors() {
        let (keeper, supervisor) = Link::pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        say(
            &keeper,
            &guest(Kind::Off),
            &[reader.as_fd(), writer.as_fd()],
        );
        drop(reader);
        let (opening, fds) = received(&supervisor).unwrap();
        assert_eq!(opening, guest(Kind::Off));
        let [reader, _] = fds.try_into().unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(rustix::io::read(&reader, &mut [0_u8; 4]).unwrap(), 1);
    }

    #[test]
    fn a_keeper_that_refuses_says_so_first() {
        let (keeper, supervisor) = Link::pair().unwrap();
        keeper.say(&Opening::End { status: 3 }).unwrap();
        let (opening, fds) = received(&supervisor).unwrap();
        assert_eq!(opening, Opening::End { status: 3 });
        assert!(fds.is_empty());
        drop(keeper);
        assert!(received(&supervisor).is_err(), "it is gone");
    }

    #[test]
    fn what_is_no_opening_is_an_error() {
        let (keeper, supervisor) = Link::pair().unwrap();
        for bytes in [&b"{"[..], br#"{"word":"end"}"#, br#"{"word":"guard"}"#] {
            send_with(&keeper, bytes, &[]).unwrap();
            assert!(received(&supervisor).is_err());
        }
    }
}
