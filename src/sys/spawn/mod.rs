//! Starting V and D: a fresh program in a jail, with exactly the descriptors it is meant to have.
//!
//! On entry: one thread, root in the initial user namespace. On exit: a child that has given up everything between
//! `clone3` and `exec`, in the order of [`Step`]; or none, and the step that failed. The child allocates nothing and calls
//! nothing but the kernel.

mod child;
mod places;
mod step;

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use jailed::manifest::layer;
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair},
    process::Pid,
};

pub use self::step::Step;
use self::{child::child, places::Places};
use super::{child::Child, confine::last_errno};

/// What is to be started, and what it may have.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The program: a static ELF file.
    pub program: BorrowedFd<'a>,
    /// Its only argument, by which it is known in lists of processes.
    pub name: &'a CStr,
    /// The number of the first descriptor.
    pub first: RawFd,
    /// The descriptors at `first`, `first + 1`, …
    pub fds: &'a [BorrowedFd<'a>],
    /// `/dev/null`, which becomes 0, 1 and 2.
    pub null: BorrowedFd<'a>,
    /// The user and group it becomes, the only ones of its user namespace.
    pub id: u32,
    /// The folder of the cgroup it starts in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether it gets a time namespace, which a kernel may lack.
    pub has_time_namespace: bool,
    /// Whether it gets a cgroup namespace, which a kernel may lack.
    pub has_cgroup_namespace: bool,
    /// Limits, soft and hard, by the number of the resource.
    pub limits: &'a [(u32, u64)],
    /// What the lab leaves away, bits of [`layer`].
    #[cfg(feature = "breakout")]
    pub left_away: u32,
}

impl Order<'_> {
    /// Whether this layer is put on: always, but where the lab tries what becomes without it.
    #[cfg(not(feature = "breakout"))]
    const fn has(&self, _layer: u32) -> bool {
        true
    }

    #[cfg(feature = "breakout")]
    const fn has(&self, layer: u32) -> bool {
        self.left_away & layer == 0
    }
}

/// Why nothing was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What was being done.
    pub step: Step,
    /// The errno.
    pub errno: Errno,
}

/// The child asks for its user map: this in place of a step.
const ASKS_FOR_MAP: u32 = u32::MAX;
/// As new as the kernels we run on (5.7); the `libc` crate has it as an `int`, which it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Starts the program of `order` in its jail. The calling thread has to be the only one.
///
/// # Errors
/// The step that failed and its errno; then there is no child.
pub fn spawn(order: &Order<'_>) -> Result<Child, Failed> {
    let at = |step| move |errno| Failed { step, errno };
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(at(Step::Prepare))?;
    // The child must not allocate.
    let mut places = Places::new(order, theirs.as_raw_fd()).map_err(at(Step::Prepare))?;
    let Some((pid, pidfd)) = clone(order).map_err(at(Step::Clone))? else {
        child(order, &mut places, ours.as_raw_fd());
    };
    drop(theirs);
    let mut child = Child::new(pid, pidfd);
    match converse(&ours, &child, order) {
        Ok(()) => Ok(child),
        Err(failed) => {
            // The fault that is told is the first one; a child that cannot be ended dies with this process.
            child.kill().and_then(|()| child.wait()).map_or_else(
                |error| {
                    Err(Failed {
                        errno: Errno::from_io_error(&error).unwrap_or(failed.errno),
                        ..failed
                    })
                },
                |_| Err(failed),
            )
        }
    }
}

/// What the child says until it is its program: it asks for its map once, and may fail at a step.
fn converse(socket: &OwnedFd, child: &Child, order: &Order<'_>) -> Result<(), Failed> {
    let at = |step| move |errno| Failed { step, errno };
    let mut has_asked = false;
    loop {
        let mut bytes = [0_u8; 8];
        let (_, len) =
            rustix::io::retry_on_intr(|| recv(socket, bytes.as_mut_slice(), RecvFlags::empty()))
                .map_err(at(Step::Prepare))?;
        let [a, b, c, d, rest @ ..] = bytes;
        let (first, second) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes(rest));
        match (len, first) {
            // Closed by exec, or by the end of the child, which its status tells.
            (0, _) => {
                return has_asked.then_some(()).ok_or(Failed {
                    step: Step::Clone,
                    errno: Errno::CHILD,
                });
            }
            (8, ASKS_FOR_MAP) if !has_asked => {
                has_asked = true;
                if order.has(layer::USER_NAMESPACE) {
                    map_user(child.id(), order.id).map_err(|error| Failed {
                        step: Step::UserMap,
                        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
                    })?;
                }
                send(socket, &[1], SendFlags::NOSIGNAL).map_err(at(Step::UserMap))?;
            }
            _ => {
                let errno = i32::try_from(second).unwrap_or(libc::EPROTO);
                return Err(Failed {
                    step: Step::from_number(first).unwrap_or(Step::Clone),
                    errno: Errno::from_raw_os_error(errno),
                });
            }
        }
    }
}

/// One user and one group, of the same number inside and outside, and no way to others.
fn map_user(pid: u32, id: u32) -> io::Result<()> {
    let write = |file: &str, text: &str| fs::write(format!("/proc/{pid}/{file}"), text);
    let map = format!("{id} {id} 1\n");
    write("setgroups", "deny\n")?;
    write("gid_map", &map)?;
    write("uid_map", &map)
}

/// The child, or `None` in the child.
fn clone(order: &Order<'_>) -> Result<Option<(Pid, OwnedFd)>, Errno> {
    let flag = |flag: libc::c_int| u64::from(flag.unsigned_abs());
    let mut pidfd: RawFd = -1;
    // SAFETY: the structure is integers, for which zero is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flag(libc::CLONE_PIDFD);
    if order.has(layer::PID_NAMESPACE) {
        args.flags |= flag(libc::CLONE_NEWPID);
    }
    args.pidfd = std::ptr::from_mut(&mut pidfd).expose_provenance() as u64;
    args.exit_signal = flag(libc::SIGCHLD);
    if order.has_time_namespace && order.has(layer::TIME_NAMESPACE) {
        args.flags |= flag(libc::CLONE_NEWTIME);
    }
    if let Some(cgroup) = order.cgroup.filter(|_| order.has(layer::CGROUP)) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    let size = size_of::<libc::clone_args>();
    // SAFETY: without `CLONE_VM` the child has a copy of this memory and goes on in `child`, which never returns; the
    // structure and the word for the pidfd outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size) };
    if result < 0 {
        return Err(last_errno());
    }
    let Some(pid) = i32::try_from(result).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(Some((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })))
}
