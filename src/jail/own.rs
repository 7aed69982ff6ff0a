//! A process that puts itself into a jail and goes on with the same program: the supervisor S, and the keeper K, which
//! keeps a few capabilities.
//!
//! On entry: root, one thread, everything open that will be needed. On exit of [`enter`]: another user, no capability, an
//! empty root, no network; nothing can be opened any more. On exit of [`keep_capabilities`]: root with the capabilities of
//! the table, and no program that it could run has more.

use jailed::manifest::{AtStart, Limit};
use rustix::{
    io::Errno,
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{CapabilitySet, UnshareFlags, set_no_new_privs},
};

use crate::{
    error::{ErrorId, Report},
    layers::{Layer, LayerSet},
    sys::{confine, landlock},
};

/// What the keeper still has to be able to do while a guest runs and when it ends.
pub const KEEPER: [(CapabilitySet, &str); 5] = [
    (
        CapabilitySet::SYS_ADMIN,
        "makes the namespaces of the next life, and reads the filters of V and D",
    ),
    (
        CapabilitySet::SYS_PTRACE,
        "looks at V and D, which nobody else may",
    ),
    (CapabilitySet::SETUID, "maps the user of the next life"),
    (
        CapabilitySet::SETGID,
        "maps the group of the next life, and leaves all others",
    ),
    (CapabilitySet::KILL, "ends V and D, which are other users"),
];

/// What it has to be able to do besides where it gives VFs of NICs back: their attributes are the PF's to set.
pub const KEEPER_OF_NICS: (CapabilitySet, &str) = (
    CapabilitySet::NET_ADMIN,
    "sets the attributes of leased VFs to rest when the guest has ended",
);

/// What [`enter`] has to know.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// The user and group to become.
    pub id: u32,
    /// How many descriptors the process may have: one more than its highest.
    pub descriptors: u64,
    /// The layers that the guest does without.
    pub absent: LayerSet,
}

/// What a process that is in its jail can tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// The version of Landlock that it is under, 0 where the guest does without.
    pub landlock: u32,
}

/// Puts the calling process, which has one thread, into a jail. A filter comes after this.
///
/// # Errors
/// `jail-failed` with what was being done. The process is then neither free nor jailed: it has to end.
pub fn enter(own: &Own) -> Result<Entered, Report> {
    let at = |doing: &'static str| move |errno: Errno| failed("the supervisor", doing, errno);
    let leave = |flags, doing| confine::leave_namespaces(flags).map_err(at(doing));
    leave(UnshareFlags::NEWNS, "unshare of the mount namespace")?;
    confine::empty_root().map_err(at("exchanging the root for an empty one"))?;
    leave(UnshareFlags::NEWNET, "unshare of the network namespace")?;
    leave(UnshareFlags::NEWIPC, "unshare of the IPC namespace")?;
    leave(UnshareFlags::NEWUTS, "unshare of the UTS namespace")?;
    if !own.absent.contains(Layer::CgroupNamespace) {
        leave(UnshareFlags::NEWCGROUP, "unshare of the cgroup namespace")?;
    }
    confine::set_names().map_err(at("setting host and domain name"))?;
    confine::leave_keyring().map_err(at("joining a new session keyring"))?;
    confine::bound_capabilities(CapabilitySet::empty())
        .map_err(at("emptying the bounding set of capabilities"))?;
    confine::lock_secure_bits().map_err(at("locking the securebits"))?;
    confine::leave_groups().map_err(at("setgroups"))?;
    confine::become_user(own.id).map_err(at("setresgid and setresuid"))?;
    confine::keep_capabilities(CapabilitySet::empty()).map_err(at("giving up all capabilities"))?;
    set_no_new_privs(true).map_err(at("no_new_privs"))?;
    forbid_dumps()?;
    if !own.absent.contains(Layer::Mdwe) {
        confine::refuse_new_code().map_err(at("PR_SET_MDWE"))?;
    }
    let mut landlock = 0;
    if !own.absent.contains(Layer::Landlock) {
        landlock = landlock::deny_all().map_err(at("Landlock"))?;
    }
    let limits = limits(own.descriptors).map(|limit| (limit.resource, limit.value));
    confine::limit(&limits).map_err(at("setting limits"))?;
    Ok(Entered { landlock })
}

/// Leaves no core, and keeps processes of the same user from looking into this one.
///
/// # Errors
/// `jail-failed`.
pub fn forbid_dumps() -> Result<(), Report> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| failed("the supervisor", "PR_SET_DUMPABLE", errno))
}

/// Closes every descriptor that is not in `kept`, which ascends. Nobody owns one of the others.
///
/// # Errors
/// `jail-failed` with what was being done.
pub fn keep_descriptors(kept: &[u32]) -> Result<(), Report> {
    let at = |errno| failed("the supervisor", "closing what it does not need", errno);
    let mut first = 0;
    for number in kept {
        if first < *number {
            confine::close_descriptors(first, number - 1).map_err(at)?;
        }
        first = number + 1;
    }
    confine::close_descriptors(first, u32::MAX).map_err(at)
}

/// Gives up every capability but those of [`KEEPER`], and of [`KEEPER_OF_NICS`] where `has_nics`, for good.
///
/// # Errors
/// `jail-failed` with what was being done.
pub fn keep_capabilities(has_nics: bool) -> Result<(), Report> {
    let kept = kept(has_nics);
    let at = |doing: &'static str| move |errno: Errno| failed("the keeper", doing, errno);
    confine::bound_capabilities(kept).map_err(at("bounding its capabilities"))?;
    confine::lock_secure_bits().map_err(at("locking the securebits"))?;
    confine::keep_capabilities(kept).map_err(at("giving up capabilities"))?;
    set_no_new_privs(true).map_err(at("no_new_privs"))
}

/// What the keeper keeps: `has_nics` where its plan leases VFs of NICs.
#[must_use]
pub fn kept(has_nics: bool) -> CapabilitySet {
    let more = has_nics.then_some(&KEEPER_OF_NICS);
    KEEPER
        .iter()
        .chain(more)
        .fold(CapabilitySet::empty(), |all, (one, _)| all | *one)
}

/// The limits of S, for good; it keeps its stack, and what its allocator needs. Set by [`enter`], compared by an inspection.
///
/// *Source:* `include/uapi/asm-generic/resource.h (v6.12)`.
#[must_use]
pub const fn limits(descriptors: u64) -> [Limit; 8] {
    const fn limit(resource: u32, value: u64, why: &'static str) -> Limit {
        Limit {
            resource,
            value,
            at_start: AtStart::Hosts,
            why,
        }
    }
    [
        limit(4, 0, "CORE: a core would hold what the guest writes"),
        // Counted for its user, who has no other process.
        limit(6, 1, "NPROC: itself"),
        limit(7, descriptors, "NOFILE: what it watches"),
        limit(8, 0, "MEMLOCK: pins nothing"),
        limit(10, 0, "LOCKS: locks no file"),
        limit(12, 0, "MSGQUEUE: has no message queue"),
        limit(13, 0, "NICE: no better priority"),
        limit(14, 0, "RTPRIO: no real-time priority"),
    ]
}

fn failed(who: &str, doing: &str, errno: Errno) -> Report {
    Report::new(
        ErrorId::JailFailed,
        format!("{who} cannot put itself into its jail"),
        format!("{doing}: {}", std::io::Error::from(errno)),
        "run narrows as root of the host, with all capabilities",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keeper_gives_up_what_it_has_no_reason_for() {
        let kept = kept(false);
        assert_eq!(super::kept(true) - kept, CapabilitySet::NET_ADMIN);
        for gone in [
            CapabilitySet::DAC_OVERRIDE,
            CapabilitySet::NET_ADMIN,
            CapabilitySet::SYS_MODULE,
            CapabilitySet::SYS_RAWIO,
            CapabilitySet::SYS_BOOT,
            CapabilitySet::SETPCAP,
            CapabilitySet::IPC_LOCK,
            CapabilitySet::MKNOD,
            CapabilitySet::SETFCAP,
            CapabilitySet::SYS_CHROOT,
        ] {
            assert!(!kept.contains(gone), "{gone:?}");
        }
        assert_eq!(kept.bits().count_ones() as usize, KEEPER.len());
        assert!(KEEPER.iter().all(|(_, reason)| !reason.is_empty()));
    }
}
