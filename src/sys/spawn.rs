//! Starting V and D: a fresh program in a jail, with exactly the descriptors it is meant to have.
//!
//! On entry: one thread, root in the initial user namespace. On exit: a child that has given up everything between
//! `clone3` and `exec`, in the order of [`Step`]; or none, and the step that failed. The child allocates nothing and calls
//! nothing but the kernel.

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use jailed::manifest::layer;
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair},
    process::{Pid, Signal, set_parent_process_death_signal, setsid},
    thread::{CapabilitySet, UnshareFlags, set_no_new_privs},
};

use super::{
    child::Child,
    confine::{self, last_errno},
};

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

/// What happens between the order and the program's first instruction, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the words of the table below say what each is")]
pub enum Step {
    Prepare = 1,
    Clone,
    Descriptors,
    Signals,
    Session,
    CgroupNamespace,
    MountNamespace,
    EmptyRoot,
    NetNamespace,
    IpcNamespace,
    UtsNamespace,
    HostName,
    Groups,
    UserNamespace,
    UserMap,
    User,
    Keyring,
    Personality,
    BoundingSet,
    SecureBits,
    Capabilities,
    NoNewPrivileges,
    Limits,
    DeathSignal,
    ParentGone,
    Exec,
}

const WORDS: [(Step, &str); 26] = [
    (Step::Prepare, "making the socket for the steps"),
    (
        Step::Clone,
        "clone3 with new pid (and time) namespaces into the cgroup",
    ),
    (Step::Descriptors, "placing descriptors"),
    (Step::Signals, "resetting signals"),
    (Step::Session, "setsid"),
    (Step::CgroupNamespace, "unshare of the cgroup namespace"),
    (Step::MountNamespace, "unshare of the mount namespace"),
    (Step::EmptyRoot, "exchanging the root for an empty one"),
    (Step::NetNamespace, "unshare of the network namespace"),
    (Step::IpcNamespace, "unshare of the IPC namespace"),
    (Step::UtsNamespace, "unshare of the UTS namespace"),
    (Step::HostName, "setting host and domain name"),
    (Step::Groups, "setgroups"),
    (Step::UserNamespace, "unshare of the user namespace"),
    (Step::UserMap, "writing uid_map and gid_map"),
    (Step::User, "setresgid and setresuid"),
    (Step::Keyring, "joining a new session keyring"),
    (Step::Personality, "personality"),
    (
        Step::BoundingSet,
        "emptying the bounding set of capabilities",
    ),
    (Step::SecureBits, "locking the securebits"),
    (Step::Capabilities, "giving up all capabilities"),
    (Step::NoNewPrivileges, "no_new_privs"),
    (Step::Limits, "setting limits"),
    (Step::DeathSignal, "asking to die with the parent"),
    (Step::ParentGone, "looking for the parent, which has gone"),
    (Step::Exec, "execveat"),
];

impl Step {
    /// What is being done, for a message.
    #[must_use]
    pub fn words(self) -> &'static str {
        let row = WORDS.iter().find(|(step, _)| *step == self);
        row.map_or("a step without a name", |(_, words)| words)
    }

    fn from_number(number: u32) -> Option<Self> {
        let row = WORDS.iter().find(|(step, _)| *step as u32 == number);
        row.map(|(step, _)| *step)
    }
}

/// The child asks for its user map: this in place of a step.
const ASKS_FOR_MAP: u32 = u32::MAX;
/// As new as the kernels we run on (5.7); the `libc` crate has it as an `int`, which it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// What a child that could not become the program ends with.
const NOT_STARTED: libc::c_int = 127;

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

/// The child's whole life before its program.
fn child(order: &Order<'_>, places: &mut Places, parents_end: RawFd) -> ! {
    // SAFETY: this copy of the parent's end is the child's, and nothing here uses it.
    unsafe { libc::close(parents_end) };
    let Err(Failed { step, errno }) = confine(order, places);
    let said = say(places, step as u32, errno.raw_os_error().unsigned_abs());
    // The parent, if it is there, sees at least this.
    let status = if said.is_ok() {
        NOT_STARTED
    } else {
        NOT_STARTED + 1
    };
    // SAFETY: ends the process without running anything of the parent's.
    unsafe { libc::_exit(status) }
}

/// Every step after `clone3`, up to the program.
fn confine(order: &Order<'_>, places: &mut Places) -> Result<std::convert::Infallible, Failed> {
    let at = |step| move |errno| Failed { step, errno };
    places.place(order).map_err(at(Step::Descriptors))?;
    confine::reset_signals().map_err(at(Step::Signals))?;
    setsid().map_err(at(Step::Session))?;
    let leave = |step, flags| confine::leave_namespaces(flags).map_err(at(step));
    if order.has_cgroup_namespace && order.has(layer::CGROUP_NAMESPACE) {
        leave(Step::CgroupNamespace, UnshareFlags::NEWCGROUP)?;
    }
    if order.has(layer::MOUNT_NAMESPACE) {
        leave(Step::MountNamespace, UnshareFlags::NEWNS)?;
        confine::empty_root().map_err(at(Step::EmptyRoot))?;
    }
    if order.has(layer::NET_NAMESPACE) {
        leave(Step::NetNamespace, UnshareFlags::NEWNET)?;
    }
    if order.has(layer::IPC_NAMESPACE) {
        leave(Step::IpcNamespace, UnshareFlags::NEWIPC)?;
    }
    if order.has(layer::UTS_NAMESPACE) {
        leave(Step::UtsNamespace, UnshareFlags::NEWUTS)?;
        confine::set_names().map_err(at(Step::HostName))?;
    }
    confine::leave_groups().map_err(at(Step::Groups))?;
    // The last namespace: it owns none of the others, so that root in it would be nobody in them.
    if order.has(layer::USER_NAMESPACE) {
        leave(Step::UserNamespace, UnshareFlags::NEWUSER)?;
    }
    say(places, ASKS_FOR_MAP, 0).map_err(at(Step::UserMap))?;
    if hear(places, RecvFlags::empty()) != Ok(1) {
        return Err(at(Step::ParentGone)(Errno::SRCH));
    }
    let bound = || {
        confine::bound_capabilities(CapabilitySet::empty()).map_err(at(Step::BoundingSet))?;
        confine::lock_secure_bits().map_err(at(Step::SecureBits))
    };
    // Without a namespace, in which a change of user keeps them, the capabilities have to go first.
    let is_bound = !order.has(layer::USER_NAMESPACE) && order.has(layer::CAPABILITIES);
    if is_bound {
        bound()?;
    }
    if order.has(layer::UID) {
        confine::become_user(order.id).map_err(at(Step::User))?;
        confine::leave_keyring().map_err(at(Step::Keyring))?;
    }
    confine::reset_personality().map_err(at(Step::Personality))?;
    if order.has(layer::CAPABILITIES) {
        if !is_bound {
            bound()?;
        }
        confine::keep_capabilities(CapabilitySet::empty()).map_err(at(Step::Capabilities))?;
    }
    #[cfg(feature = "breakout")]
    if !order.has(layer::CAPABILITIES) {
        confine::hand_capabilities_on().map_err(at(Step::Capabilities))?;
    }
    if order.has(layer::NO_NEW_PRIVS) {
        set_no_new_privs(true).map_err(at(Step::NoNewPrivileges))?;
    }
    if order.has(layer::RLIMITS) {
        confine::limit(order.limits).map_err(at(Step::Limits))?;
    }
    // Behind the change of uid, which clears it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::DeathSignal))?;
    // The parent may have gone before the signal was armed.
    if hear(places, RecvFlags::DONTWAIT) != Err(Errno::AGAIN) {
        return Err(at(Step::ParentGone)(Errno::SRCH));
    }
    Err(at(Step::Exec)(exec(order, places)))
}

/// Becomes the program; returns only why not.
fn exec(order: &Order<'_>, places: &Places) -> Errno {
    let arguments = [order.name.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: both lists end with a null pointer and outlive the call, as does the empty path.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            places.program,
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}

fn say(places: &Places, first: u32, second: u32) -> Result<(), Errno> {
    let mut bytes = [0; 8];
    let (front, back) = bytes.split_at_mut(4);
    front.copy_from_slice(&first.to_ne_bytes());
    back.copy_from_slice(&second.to_ne_bytes());
    send(places.socket(), &bytes, SendFlags::NOSIGNAL).map(drop)
}

/// How many bytes the parent has sent; 0 when it has gone.
fn hear(places: &Places, flags: RecvFlags) -> Result<usize, Errno> {
    let mut byte = [0];
    recv(places.socket(), byte.as_mut_slice(), flags).map(|(_, len)| len)
}

/// Where the child keeps what: the numbers of its descriptors, before and after they are in place.
#[derive(Debug)]
struct Places {
    sources: Vec<RawFd>,
    parked: Vec<RawFd>,
    /// Above every source and every target, so that no duplication overwrites a source not yet used.
    above: RawFd,
    program: RawFd,
    socket: RawFd,
}

impl Places {
    fn new(order: &Order<'_>, socket: RawFd) -> Result<Self, Errno> {
        let program = order.program.as_raw_fd();
        // 0, 1 and 2 first.
        let null = order.null.as_raw_fd();
        let mut sources = vec![null; usize::try_from(order.first).unwrap_or(0)];
        sources.extend(order.fds.iter().map(AsRawFd::as_raw_fd));
        let count = RawFd::try_from(sources.len()).map_err(|_many| Errno::MFILE)?;
        let highest = sources.iter().copied().chain([program, socket, count + 2]);
        Ok(Self {
            above: highest.max().unwrap_or(count) + 1,
            parked: vec![-1; sources.len()],
            sources,
            program,
            socket,
        })
    }

    fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: open until exec, as `place` left it or the parent gave it.
        unsafe { BorrowedFd::borrow_raw(self.socket) }
    }

    /// Puts every descriptor at its number, the program and the socket right behind them to be closed by exec, and
    /// closes all others.
    fn place(&mut self, order: &Order<'_>) -> Result<(), Errno> {
        for (park, source) in self.parked.iter_mut().zip(&self.sources) {
            *park = duplicate_above(*source, self.above)?;
        }
        self.program = duplicate_above(order.program.as_raw_fd(), self.above)?;
        self.socket = duplicate_above(self.socket, self.above)?;
        let mut target = 0;
        for park in &self.parked {
            // SAFETY: both are numbers; the target's earlier meaning in this child is not needed any more.
            if unsafe { libc::dup2(*park, target) } < 0 {
                return Err(last_errno());
            }
            target += 1;
        }
        for kept in [&mut self.program, &mut self.socket] {
            // SAFETY: as above.
            if unsafe { libc::dup3(*kept, target, libc::O_CLOEXEC) } < 0 {
                return Err(last_errno());
            }
            *kept = target;
            target += 1;
        }
        // SAFETY: closes numbers that nothing in this child uses.
        let closed = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                target.unsigned_abs(),
                libc::c_uint::MAX,
                0,
            )
        };
        if closed == 0 {
            Ok(())
        } else {
            Err(last_errno())
        }
    }
}

fn duplicate_above(source: RawFd, above: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: duplicating a number; close-on-exec keeps the copy from surviving the exec.
    let fd = unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, above) };
    if fd < 0 { Err(last_errno()) } else { Ok(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_row_at_its_place() {
        for (index, (step, _)) in WORDS.iter().enumerate() {
            assert_eq!(*step as usize, index + 1, "{step:?}");
            assert_eq!(Step::from_number(*step as u32), Some(*step));
        }
        assert_eq!(WORDS.len(), Step::Exec as usize);
        assert_eq!(Step::from_number(ASKS_FOR_MAP), None);
    }
}
