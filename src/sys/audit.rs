//! A socket on which the kernel tells of processes that a filter of system calls has killed, and of nothing else.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect,
    netlink::{self, SocketAddrNetlink},
    socket_with,
};

/// The kind of a record about a filter: `AUDIT_SECCOMP`.
///
/// *Source:* `include/uapi/linux/audit.h` (v6.12).
pub const SECCOMP_RECORD: u16 = 1326;

/// The group of those that only read: `AUDIT_NLGRP_READLOG`, as a bit.
const READ_LOG: u32 = 1;

/// Opens it; what was told before is not heard.
///
/// # Errors
/// The errno of `socket`: `EPROTONOSUPPORT` where the kernel has no audit. That of `bind`: `EPERM` without
/// `CAP_AUDIT_READ`. That of attaching the filter, or of `connect`.
pub fn open_seccomp_records() -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::AUDIT),
    )?;
    // Before it hears anything: a host that audits much would fill it with what is none of ours.
    keep_only(&socket, SECCOMP_RECORD)?;
    bind(&socket, &SocketAddrNetlink::new(0, READ_LOG))?;
    // From here on nobody but the kernel, whose number is 0, can send to this socket.
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Has the kernel drop every message of another kind.
fn keep_only(socket: &OwnedFd, kind: u16) -> io::Result<()> {
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const KIND_OFFSET: u32 = 4; // nlmsghdr.nlmsg_type
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_HALF, 0, 0, KIND_OFFSET),
        // The machine that filters loads big-endian, and the head is of this processor's order.
        step(JUMP_EQUAL, 0, 1, u32::from(kind.to_be())),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: steps.as_mut_ptr(),
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(io::Error::other)?;
    // SAFETY: the option wants a program of `len` bytes with four steps, and both outlive the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        os::unix::process::{CommandExt, ExitStatusExt},
        process::Command,
    };

    use super::*;

    /// The id of a process that was killed for `call`, which it makes as soon as it runs.
    pub(crate) fn killed_for(call: u32) -> u32 {
        const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
        const JUMP_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut command = Command::new("/bin/true");
        let in_child = move || {
            let mut steps = [
                step(LOAD_WORD, 0, 0, 0),
                step(JUMP_EQUAL, 0, 1, call),
                step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
                step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
            ];
            let program = libc::sock_fprog {
                len: 4,
                filter: steps.as_mut_ptr(),
            };
            // SAFETY: sets a property of this process alone.
            if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
            let mode = libc::SECCOMP_MODE_FILTER;
            // SAFETY: the program has four steps, and both outlive the call.
            if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: the closure allocates nothing and makes two system calls.
        unsafe { command.pre_exec(in_child) };
        let mut child = command.spawn().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
        child.id()
    }
}
