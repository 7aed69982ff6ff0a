//! Who was at the other end of a socket when it was connected, as the kernel tells it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// A process at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number; 0 where it is not seen from here.
    pub pid: i32,
    /// Its user, as this user namespace has it.
    pub uid: u32,
}

/// Asks for it. Of a socket that connected, it is who began to listen.
///
/// # Errors
/// The errno of `getsockopt`.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let mut found = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut len_bytes =
        libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `len_bytes`, which is what `found` has; any bytes are a `ucred`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut len_bytes,
        )
    };
    match result {
        0 => Ok(Peer {
            pid: found.pid,
            uid: found.uid,
        }),
        _ => Err(io::Error::last_os_error()),
    }
}
