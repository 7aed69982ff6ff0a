//! Who may be at the other end of the socket that joins the two services.
//!
//! The folder of the socket keeps others away, as long as it is as the units have it. This does not ask how it is.

use std::{io, os::fd::AsFd};

use rustix::process::geteuid;

use crate::sys::peer::{Peer, peer};

/// A user who may be there.
struct Row {
    is: fn(u32) -> bool,
    #[cfg_attr(not(test), expect(dead_code, reason = "for who reads the table"))]
    why: &'static str,
}

const ALLOWED: [Row; 2] = [
    Row {
        is: |uid| uid == 0,
        why: "the keeper, and the service manager that listens for a supervisor which is not started yet, are root",
    },
    Row {
        is: |uid| uid == geteuid().as_raw(),
        why: "who is the same user can do with this process what it likes",
    },
];

/// Shows that the other end is one that may be there.
///
/// # Errors
/// `PermissionDenied` with who is there; the errno of `getsockopt`.
pub(super) fn check_peer(socket: impl AsFd) -> io::Result<()> {
    check(peer(socket)?)
}

fn check(peer: Peer) -> io::Result<()> {
    if ALLOWED.iter().any(|row| (row.is)(peer.uid)) {
        return Ok(());
    }
    let Peer { pid, uid } = peer;
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "at the other end is process {pid} of user {uid}, which is neither root nor this one's user"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn root_and_the_own_user_are_let_in_and_named_is_who_is_not() {
        let own = geteuid().as_raw();
        for uid in [0, own] {
            check(Peer { pid: 7, uid }).unwrap();
        }
        let stranger = Peer {
            pid: 7,
            uid: own + 1000,
        };
        let refused = check(stranger).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let who = format!("process 7 of user {}", own + 1000);
        assert!(refused.to_string().contains(&who), "{refused}");
        assert!(ALLOWED.iter().all(|row| !row.why.is_empty()));
    }

    #[test]
    fn the_kernel_tells_who_is_there() {
        let flags = SocketFlags::CLOEXEC;
        let (one, _other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let found = peer(&one).unwrap();
        let uid = geteuid().as_raw();
        assert_eq!(
            found,
            Peer {
                pid: std::process::id().cast_signed(),
                uid
            }
        );
        check_peer(&one).unwrap();
    }
}
