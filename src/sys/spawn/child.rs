//! The child: it gives up everything, step by step, and becomes the program.
//!
//! On entry: a copy of its parent. On exit: the program runs; or the parent has heard the step that failed. Nothing here
//! allocates, and nothing calls anything but the kernel.

use std::os::fd::RawFd;

use jailed::manifest::layer;
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
    process::{Signal, set_parent_process_death_signal, setsid},
    thread::{CapabilitySet, UnshareFlags, set_no_new_privs},
};

use super::{ASKS_FOR_MAP, Failed, Order, Step, places::Places};
use crate::sys::confine::{self, last_errno};

/// What a child that could not become the program ends with.
const NOT_STARTED: libc::c_int = 127;

/// The child's whole life before its program.
pub(super) fn child(order: &Order<'_>, places: &mut Places, parents_end: RawFd) -> ! {
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
