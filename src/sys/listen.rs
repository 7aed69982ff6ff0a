//! The socket that a service manager opened for this process.

use std::{
    env,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::io::{FdFlags, fcntl_setfd};

/// The first descriptor that a service manager passes.
///
/// *Source:* `sd_listen_fds`(3).
const FIRST: RawFd = 3;

/// The one socket that was passed, close-on-exec. Nothing where there is none, or more than one, or it was taken before.
#[must_use]
pub fn passed_socket() -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let is = |key: &str, value: &str| env::var(key).is_ok_and(|said| said == value);
    let is_ours = is("LISTEN_PID", &std::process::id().to_string()) && is("LISTEN_FDS", "1");
    if !is_ours || TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the service manager opened it for this process alone, as the variables say, and it is taken once.
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST) };
    // A number that is no descriptor is no socket.
    fcntl_setfd(&socket, FdFlags::CLOEXEC).ok().map(|()| socket)
}
